//! Requests to a shard: a command, the caller to answer, and the number of tries.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use backstitch_saga::protocol::TaskOutcome;
use backstitch_saga::{Command, Payload, Reply, RunId, Start, TaskKey};
use tokio::sync::Notify;
use uuid::Uuid;

use super::digest::InputDigest;
use crate::admission::Place;
use crate::definitions::Workflow;
use crate::dispatch::{Grant, Match};
use crate::store::keys::RunKey;
use crate::{Error, StartedRun};

/// A command on its way through a shard. Every queue on the way moves a pointer.
pub(crate) struct Request(Box<RequestState>);

/// The command of an envelope, with what the shard knows of it.
pub(crate) struct RequestState {
    pub(crate) run: RunId,
    /// The namespace that the caller speaks for; `None` for the engine itself.
    pub(crate) namespace: Option<Arc<str>>,
    /// The namespace whose turn a command of the engine itself takes, if it is known.
    pub(crate) payer: Option<Arc<str>>,
    pub(crate) order: ShardCommand,
    pub(crate) ticket: Option<Ticket>,
    /// Number of decisions in vain: another node was first, or the database requested a retry.
    pub(crate) tries: u16,
    /// To be decided and committed with nothing else, because the database refused its batch.
    pub(crate) alone: bool,
    /// Its run was loaded for it, or is being loaded.
    pub(crate) loaded: bool,
    /// Its place among what waits, until it is taken.
    pub(crate) place: Option<Place>,
    /// It stops things, and goes before what waits.
    pub(crate) urgent: bool,
    pub(crate) output: Output,
    /// The session that showed the token of a lease of its task.
    pub(crate) session: Option<Uuid>,
}

/// The action.
pub(crate) enum ShardCommand {
    Start(Box<StartOrder>),
    Command(Command),
    /// Hand a task on offer to a session that has room for it.
    HandOut {
        task: TaskKey,
        grant: Grant,
    },
    /// Do what is due. `adopted`: the index now says that this node is in charge of the run. `woken`: the index says
    /// that something is due.
    Tick {
        adopted: bool,
        woken: bool,
        /// Another node received its workers' heartbeats until now, or none did.
        unheard: bool,
    },
}

/// State of the output of a report.
#[derive(Clone, Debug, Default)]
pub(crate) enum Output {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It is to be held to this schema first; the report is decided about then.
    ToBeHeld { namespace: Arc<str>, schema: Payload, output: Payload },
    /// It is what the definition promises.
    Held,
}

/// The start of a run.
pub(crate) struct StartOrder {
    pub(crate) start: Start,
    pub(crate) workflow: Arc<Workflow>,
    pub(crate) key: Option<StartKey>,
}

/// The key of a start request, and what it asked for.
#[derive(Clone)]
pub(crate) struct StartKey {
    pub(crate) key: RunKey,
    pub(crate) input_digest: InputDigest,
}

/// Result of a command.
pub(crate) type Answer = Result<Answered, Error>;

/// The answer to an accepted command.
#[derive(Debug)]
pub(crate) enum Answered {
    Reply(Reply),
    Started(StartedRun),
}

impl ShardCommand {
    /// Returns the command to do what is due in a run that this node is in charge of.
    pub(crate) fn tick() -> ShardCommand {
        ShardCommand::Tick { adopted: false, woken: false, unheard: false }
    }
}

impl Request {
    /// Returns a command of the engine itself, for which no caller waits.
    pub(crate) fn own(run: RunId, order: ShardCommand) -> Request {
        Request(Box::new(RequestState {
            run,
            namespace: None,
            payer: None,
            order,
            ticket: None,
            tries: 0,
            alone: false,
            loaded: false,
            place: None,
            urgent: false,
            output: Output::Unknown,
            session: None,
        }))
    }

    /// Returns the command to hand a task to the session that was found for it.
    pub(crate) fn hand_out(found: Match) -> Request {
        let order = ShardCommand::HandOut { task: found.task, grant: found.grant };
        Request::own(found.run, order).paid_by(&found.namespace)
    }

    /// Returns the same, in the turn of `namespace`.
    pub(crate) fn paid_by(mut self, namespace: &Arc<str>) -> Request {
        self.payer = Some(Arc::clone(namespace));
        self
    }

    /// Returns the same, before what waits if `urgent`.
    pub(crate) fn urgent_if(mut self, urgent: bool) -> Request {
        self.urgent = urgent;
        self
    }

    /// Returns the namespace whose turn it takes.
    pub(crate) fn payer(&self) -> Option<&Arc<str>> {
        self.namespace.as_ref().or(self.payer.as_ref())
    }

    /// Returns a command of a caller.
    pub(crate) fn asked(
        run: RunId,
        namespace: Arc<str>,
        order: ShardCommand,
        ticket: Ticket,
    ) -> Request {
        let mut envelope = Request::own(run, order);
        envelope.namespace = Some(namespace);
        envelope.ticket = Some(ticket);
        envelope
    }

    pub(crate) fn answer(&mut self, answer: Answer) {
        if let Some(mut ticket) = self.ticket.take() {
            ticket.answer(answer);
        }
    }

    /// Returns whether it is a report that is decided for the first time.
    pub(crate) fn is_first_report(&self) -> bool {
        let is_report = matches!(self.order, ShardCommand::Command(Command::Report { .. }));
        is_report && self.tries == 0
    }

    /// Returns the approximate size of the documents that it brings, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let length = |payload: &Payload| payload.text().len();
        match &self.order {
            ShardCommand::Start(order) => length(&order.start.input),
            ShardCommand::Command(Command::Report {
                outcome: TaskOutcome::Succeeded { output, .. },
                ..
            }) => length(output),
            ShardCommand::Command(Command::Beat { details: Some(details), .. }) => length(details),
            ShardCommand::Command(_) | ShardCommand::HandOut { .. } | ShardCommand::Tick { .. } => {
                0
            }
        }
    }
}

impl Deref for Request {
    type Target = RequestState;

    fn deref(&self) -> &RequestState {
        &self.0
    }
}

impl DerefMut for Request {
    fn deref_mut(&mut self) -> &mut RequestState {
        &mut self.0
    }
}

/// The answers to several commands that were asked together.
pub(crate) struct Answers {
    slots: Mutex<Vec<Option<Answer>>>,
    missing: AtomicUsize,
    complete: Notify,
}

/// The right and the duty to give one of the answers.
pub(crate) struct Ticket {
    answers: Arc<Answers>,
    slot: usize,
    given: bool,
}

impl Answers {
    /// Returns room for `count` answers.
    pub(crate) fn new(count: usize) -> Arc<Answers> {
        let slots = std::iter::repeat_with(|| None).take(count).collect();
        Arc::new(Answers {
            slots: Mutex::new(slots),
            missing: AtomicUsize::new(count),
            complete: Notify::new(),
        })
    }

    /// Returns the ticket for answer `slot`; one each.
    pub(crate) fn ticket(self: &Arc<Answers>, slot: usize) -> Ticket {
        Ticket { answers: self.clone(), slot, given: false }
    }

    /// Returns all answers, once they are there.
    pub(crate) async fn wait(&self) -> Vec<Answer> {
        loop {
            let complete = self.complete.notified();
            if self.missing.load(Ordering::Acquire) == 0 {
                break;
            }
            complete.await;
        }
        let slots = std::mem::take(&mut *self.slots.lock().unwrap_or_else(PoisonError::into_inner));
        slots.into_iter().map(|slot| slot.unwrap_or_else(|| Err(unanswered()))).collect()
    }
}

impl Ticket {
    pub(crate) fn answer(&mut self, answer: Answer) {
        if self.given {
            return;
        }
        self.given = true;
        let mut slots = self.answers.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(self.slot) {
            *slot = Some(answer);
        }
        drop(slots);
        if self.answers.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.answers.complete.notify_one();
        }
    }
}

impl Drop for Ticket {
    /// Answers a command that is dropped on the way, so that no caller waits for ever.
    fn drop(&mut self) {
        self.answer(Err(unanswered()));
    }
}

fn unanswered() -> Error {
    Error::Store("the node stopped before the answer was known".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_come_in_order_and_always() {
        let answers = Answers::new(2);
        let mut second = answers.ticket(1);
        drop(answers.ticket(0));
        second.answer(Ok(Answered::Reply(Reply::Done)));
        let given = answers.wait().await;
        assert!(matches!(given[0], Err(Error::Store(_))));
        assert!(matches!(given[1], Ok(Answered::Reply(Reply::Done))));
    }
}
