//! The tasks of a run: which are offered, who holds them, and the data that a worker gets.

use std::sync::Arc;

use serde::Deserialize;

use super::state::{Activity, TaskState};
use super::{Run, forward_of, lease_span};
use crate::protocol::TaskOffer;
use crate::{Action, Body, Payload, StepPath, TaskKey, Time, Timestamp, Violation};

/// The output of a step that waits for the first of several signals.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Came {
    signal: String,
    data: Payload,
}

/// A task that is offered or leased.
#[derive(Clone, Copy, Debug)]
pub struct OpenTask<'a> {
    /// The time since when.
    pub since: Time,
    /// The worker that holds it; `None` on offer.
    pub worker: Option<&'a Arc<str>>,
    /// Its queue.
    pub queue: &'a str,
    /// The name of its handler.
    pub name: &'a str,
    /// `true` if a worker was lost during an earlier attempt, see [`Run::is_suspect`].
    pub suspect: bool,
    /// The JSON Schema that its step's output must satisfy.
    pub output_schema: Option<&'a Payload>,
}

impl Run {
    /// Forgets the attempts of before: a bug put in on purpose.
    #[cfg(feature = "planted-bugs")]
    pub fn forget_attempts(&mut self) {
        for place in self.places().collect::<Vec<_>>() {
            self.change(place, |work| work.tries_mut(Action::Forward).attempt = 0);
        }
    }

    /// Returns whether `task` is offered and not handed out.
    #[must_use]
    pub fn is_offered(&self, task: &TaskKey) -> bool {
        self.hand_of(task).is_some_and(|hand| matches!(hand, TaskState::Offered { .. }))
    }

    /// Returns whether no worker holds `task`: it is offered, or kept back while the run is held.
    pub(super) fn is_unclaimed(&self, task: &TaskKey) -> bool {
        self.hand_of(task)
            .is_some_and(|hand| matches!(hand, TaskState::Offered { .. } | TaskState::Held))
    }

    /// Returns the state of `task`, if it is the current task of its work.
    fn hand_of(&self, task: &TaskKey) -> Option<&TaskState> {
        let work = self.work(self.place(&task.step)?)?;
        let (action, hand) = work.current()?;
        (action == task.action && work.tries(action).attempt == task.attempt).then_some(hand)
    }

    /// Returns all tasks on offer and not handed out.
    #[must_use]
    pub fn offered(&self) -> Vec<TaskKey> {
        self.tasks(|hand| matches!(hand, TaskState::Offered { .. }))
    }

    /// Returns all tasks that workers hold.
    #[must_use]
    pub fn leased(&self) -> Vec<TaskKey> {
        self.tasks(|hand| matches!(hand, TaskState::Leased { .. }))
    }

    /// Returns the instant of the last record.
    #[must_use]
    pub fn moved_at(&self) -> Time {
        self.header.at
    }

    /// Returns the tasks that workers hold by a lease that ends after `from` and not after `to`.
    #[must_use]
    pub fn leases_ending(&self, from: Time, to: Time) -> Vec<TaskKey> {
        self.tasks(
            |hand| matches!(hand, TaskState::Leased { until, .. } if from < *until && *until <= to),
        )
    }

    fn tasks(&self, wanted: impl Fn(&TaskState) -> bool) -> Vec<TaskKey> {
        self.places()
            .filter_map(|place| {
                let work = self.work(place)?;
                let (action, hand) = work.current()?;
                wanted(hand).then(|| TaskKey {
                    step: self.path(place),
                    action,
                    attempt: work.tries(action).attempt,
                })
            })
            .collect()
    }

    /// Returns whether a worker was lost during an earlier attempt of `task`: only a worker that holds no other task
    /// gets it.
    #[must_use]
    pub fn is_suspect(&self, task: &TaskKey) -> bool {
        self.place(&task.step).and_then(|place| self.work(place)).is_some_and(Activity::is_suspect)
    }

    /// Returns the time at which the work of `task` was first offered: a task that is given back
    /// precedes all that came later.
    #[must_use]
    pub fn first_offered(&self, task: &TaskKey) -> Option<Time> {
        Some(self.work(self.place(&task.step)?)?.tries(task.action).since)
    }

    /// Returns the worker that holds `task`; `None` if none does.
    #[must_use]
    pub fn holder(&self, task: &TaskKey) -> Option<&Arc<str>> {
        match self.hand_of(task)? {
            TaskState::Leased { worker, .. } => Some(worker),
            _ => None,
        }
    }

    /// Returns a task that is offered or leased; `None` if it is neither.
    #[must_use]
    pub fn open_task(&self, task: &TaskKey) -> Option<OpenTask<'_>> {
        let place = self.place(&task.step)?;
        let work = self.work(place)?;
        let (action, hand) = work.current()?;
        let (since, worker) = match hand {
            TaskState::Offered { since } => (*since, None),
            TaskState::Leased { since, worker, .. } => (*since, Some(worker)),
            _ => return None,
        };
        if action != task.action || work.tries(action).attempt != task.attempt {
            return None;
        }
        let spec = self.spec(place.step);
        let (queue, name) = spec.route(action)?;
        let output_schema = spec.output_schema.as_ref();
        Some(OpenTask { since, worker, queue, name, suspect: work.is_suspect(), output_schema })
    }

    /// Returns the queue and the handler name of a task.
    #[must_use]
    pub fn route(&self, task: &TaskKey) -> Option<(&str, &str)> {
        self.spec(self.step_now(&task.step.step)?).route(task.action)
    }

    /// Returns the JSON Schema that an input must satisfy which a person gives to a step or item.
    #[must_use]
    pub fn input_schema(&self, step: &StepPath) -> Option<&Payload> {
        self.spec(self.step_now(&step.step)?).input_schema.as_ref()
    }

    /// Returns the JSON Schema that the output of a step or item must satisfy.
    #[must_use]
    pub fn output_schema(&self, step: &StepPath) -> Option<&Payload> {
        self.spec(self.step_now(&step.step)?).output_schema.as_ref()
    }

    /// Returns the JSON Schema that an output must satisfy that a person gives to a step or item, with the part of the
    /// output that it applies to. For a signal, the output is the data of the signal.
    ///
    /// # Errors
    /// When the step waits for the first of several signals, and the output names none of them.
    pub fn promised(
        &self,
        step: &StepPath,
        output: &Payload,
    ) -> Result<Option<(Payload, Payload)>, Violation> {
        let Some(position) = self.step_now(&step.step) else { return Ok(None) };
        let Body::Wait(wait) = &self.graph.nodes[position].body else {
            let schema = self.output_schema(step).cloned();
            return Ok(schema.map(|schema| (schema, output.clone())));
        };
        if wait.signals.is_empty() {
            return Ok(wait.schema.clone().map(|schema| (schema, output.clone())));
        }
        let came = output.to::<Came>().ok().filter(|came| wait.awaits(&came.signal));
        let came = came.ok_or_else(|| {
            let names: Vec<&str> = wait.signals.iter().map(|one| &*one.signal).collect();
            let message = format!(
                "the step waits for the first of several signals: its output is {{\"signal\": NAME, \"data\": DATA}}, \
                 with one of these names: {}",
                names.join(", ")
            );
            Violation::new("/output", "not_a_signal", message)
        })?;
        Ok(wait.schema_of(&came.signal).cloned().map(|schema| (schema, came.data)))
    }

    /// Returns the data that a worker needs for `task`; `None` unless the task is offered or
    /// leased.
    #[must_use]
    pub fn offer(&self, task: &TaskKey) -> Option<TaskOffer> {
        let place = self.place(&task.step)?;
        let work = self.work(place)?;
        let (action, hand) = work.current()?;
        if action != task.action || work.tries(action).attempt != task.attempt {
            return None;
        }
        let (queue, name) = self.route(task)?;
        let origin = self.header.origin.as_ref()?;
        let spec = self.spec(place.step);
        let since = match hand {
            TaskState::Leased { since, .. } | TaskState::Offered { since } => *since,
            _ => self.header.at,
        };
        Some(TaskOffer {
            run: self.id,
            step: task.step.clone(),
            action,
            attempt: task.attempt,
            name: name.to_owned(),
            queue: queue.to_owned(),
            workflow: origin.workflow.to_string(),
            version: origin.version,
            input: self.input_at(place).unwrap_or_else(Payload::null),
            forward: (action == Action::Compensate).then(|| forward_of(work)),
            item_key: self.item_key(place).map(ToString::to_string),
            effect_key: self.effect_key(place, action),
            forward_key: (action != Action::Forward)
                .then(|| self.effect_key(place, Action::Forward)),
            heartbeat: lease_span(spec),
            deadline: Timestamp(since.after(spec.timeouts.attempt)),
            alone: work.is_suspect(),
            correlation_id: self.correlation_id(),
            details: work.aside.as_ref().and_then(|aside| aside.details.clone()),
            lease: None,
        })
    }
}
