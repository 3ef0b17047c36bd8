//! Steps that no worker does: waiting for a signal, for time, for another run. Plain data, as people write it.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Class, Compensate, OnFailure, OnUnknown, Retry, Step, Task, Timeouts};
use crate::{Expr, Payload, Span};

/// A step that waits for a signal: sent by another system, or a person's decision. The first one counts, also when it
/// comes before the step's turn. The step's output is the signal's data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Wait {
    /// The signal's name; steps that wait for the same one all get it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub signal: String,
    /// In place of `signal`: several, of which the first that comes ends the wait, each as its name or with a schema of
    /// its own. The step's output is then `{"signal": NAME, "data": DATA}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<OneSignal>,
    /// Longest wait, from the beginning of the step; without it, as long as the run may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// The output when nothing came in time; without it the step fails with `signal_timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Expr>,
    /// Meaning of such a failure.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// JSON Schema that the signal's data must satisfy: the form that a person fills in. Of several signals it is for
    /// those that have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Payload>,
    /// The person who is to decide, a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignee: Option<Expr>,
    /// The decision to make, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// One of several signals that a step waits for.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OneSignal {
    /// Its name. A text in place of the object is the name alone.
    pub signal: String,
    /// JSON Schema that its data must satisfy.
    pub schema: Option<Payload>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneSignalForm {
    signal: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schema: Option<Payload>,
}

impl Serialize for OneSignal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let OneSignal { signal, schema } = self.clone();
        match schema {
            None => signal.serialize(serializer),
            schema => OneSignalForm { signal, schema }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for OneSignal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Payload::deserialize(deserializer)?;
        if let Ok(signal) = written.to::<String>() {
            return Ok(OneSignal { signal, schema: None });
        }
        let OneSignalForm { signal, schema } = written.to().map_err(serde::de::Error::custom)?;
        Ok(OneSignal { signal, schema })
    }
}

impl Wait {
    /// Returns the names of the signals of which the first ends the wait.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let one = Some(self.signal.as_str()).filter(|_| self.signals.is_empty());
        one.into_iter().chain(self.signals.iter().map(|one| one.signal.as_str()))
    }

    pub(crate) fn awaits(&self, name: &str) -> bool {
        self.names().any(|own| own == name)
    }

    /// Returns whether its output names the signal that came.
    pub(crate) fn is_for_several(&self) -> bool {
        !self.signals.is_empty()
    }

    /// Returns the schema of the data of the signal `name`.
    pub(crate) fn schema_of(&self, name: &str) -> Option<&Payload> {
        let own = self.signals.iter().find(|one| one.signal == name);
        own.and_then(|one| one.schema.as_ref()).or(self.schema.as_ref())
    }
}

/// A step that waits for time to pass: exactly one of the two is given. Its output is `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sleep {
    /// For so long, from the step's turn on.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// The end of the sleep, an RFC 3339 text; an instant in the past is no wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Expr>,
}

/// A step that is a run of another workflow. Its output is the child's; undoing the step undoes the child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Child {
    /// The workflow's name.
    pub workflow: String,
    /// Its version; without it, the newest when the step begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The child's input.
    pub input: Expr,
    /// Meaning of a child that does not succeed.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Fate of the child when this run is killed.
    #[serde(default, skip_serializing_if = "OnKill::is_default")]
    pub on_kill: OnKill,
    /// Fate of the child while this run is paused.
    #[serde(default, skip_serializing_if = "OnPause::is_default")]
    pub on_pause: OnPause,
}

/// Fate of a child when its parent is killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnKill {
    /// It is killed as well, and so are its own children.
    #[default]
    Kill,
    /// It goes on as an orphan, and no run waits for it.
    Leave,
}

/// Fate of a child while its parent is paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnPause {
    /// It is paused as well, with its own children; it goes on with the parent.
    #[default]
    Pause,
    /// It goes on.
    Leave,
}

impl OnKill {
    /// A definition that says nothing of it is written as ever: it is the same definition.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_default(&self) -> bool {
        *self == OnKill::Kill
    }
}

impl OnPause {
    /// A definition that says nothing of it is written as ever: it is the same definition.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_default(&self) -> bool {
        *self == OnPause::Pause
    }
}

/// A step that fails the run on purpose, usually with `when`: what was done is undone. No worker is needed for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fail {
    /// The code of the failure, `[a-z][a-z0-9_]*`, at most 100 characters.
    pub code: String,
    /// Description of the failure, for people; at most 1000 characters.
    pub message: String,
    /// Cause of the failure, such as a person's decision: the details of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Expr>,
}

impl Step {
    /// Returns the rules of attempts, failure and undo of the step: those of its task, or those that follow from its
    /// wait. `None` in a definition that is not checked.
    pub(crate) fn policy(&self) -> Option<Cow<'_, Task>> {
        let own = self.task.as_ref().or(self.map.as_ref().map(|map| &map.task)).map(Cow::Borrowed);
        let wait = || self.wait.as_ref().map(|wait| Cow::Owned(wait.policy()));
        let sleep = || self.sleep.as_ref().map(|_| Cow::Owned(Sleep::policy()));
        let child = || self.child.as_ref().map(|child| Cow::Owned(child.policy()));
        let fail = || self.fail.as_ref().map(|_| Cow::Owned(Fail::policy()));
        own.or_else(wait).or_else(sleep).or_else(child).or_else(fail)
    }
}

impl Wait {
    pub(crate) fn policy(&self) -> Task {
        let can_fail = self.timeout.is_some() && self.default.is_none();
        let on_failure = if can_fail { self.on_failure } else { OnFailure::Incident };
        Task { on_failure, ..nobodys(Class::ReadOnly) }
    }
}

impl Sleep {
    pub(crate) fn policy() -> Task {
        Task { on_failure: OnFailure::Incident, ..nobodys(Class::ReadOnly) }
    }
}

impl Child {
    pub(crate) fn policy(&self) -> Task {
        Task {
            on_failure: self.on_failure,
            compensate: Some(Compensate::by("")),
            ..nobodys(Class::Compensatable)
        }
    }
}

impl Fail {
    /// Longest message, in characters.
    pub(crate) const LONGEST_MESSAGE: usize = 1_000;

    pub(crate) fn policy() -> Task {
        nobodys(Class::ReadOnly)
    }
}

/// Returns the policy of a step that is never offered to workers.
fn nobodys(class: Class) -> Task {
    Task {
        name: String::new(),
        queue: String::new(),
        input: Expr::Const(Payload::null()),
        input_schema: None,
        output_schema: None,
        class: Some(class),
        compensate: None,
        verify: None,
        retry: Retry { max_attempts: Some(1), ..Retry::default() },
        timeouts: Timeouts::default(),
        on_failure: OnFailure::default(),
        on_unknown: OnUnknown::default(),
        max_losses: Task::default_max_losses(),
        transactional: false,
    }
}
