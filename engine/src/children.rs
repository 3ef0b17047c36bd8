//! Child runs: relays the requests and notifications in a parent's journal to the child, and the end of the child to
//! the parent. Nothing is stored here: a lost message is sent again when the parent's timer fires.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_saga::protocol::{Failure, FailureKind, Outcome, StartRun};
use backstitch_saga::{
    Action, By, ChildAsk, ChildEnd, ChildWord, Command, Effect, Hold, HoldKind, Parent, ParentWord,
    Run, RunId,
};

use crate::executor::outputs;
use crate::executor::request::{Answers, Request, ShardCommand};
use crate::node::Node;
use crate::start::{self, ChildStart};
use crate::turns::Pass;
use crate::{Error, reads};

/// Delay before a start is retried while the shards are busy: the first and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Does what a record that is committed asks of other runs. Most ask nothing.
pub(crate) fn after(node: &Arc<Node>, run: &Run, effects: &[Effect]) {
    let parent = || Family {
        node: Arc::clone(node),
        namespace: run.namespace().into(),
        run: run.id(),
        correlation_id: run.correlation_id().into(),
        causation_id: run.causation_id().map(Arc::from),
    };
    for effect in effects {
        match effect {
            Effect::AskChild(step) => {
                let Some(ask) = run.child_ask(step) else { continue };
                // Too many wait: the parent's timer asks again.
                let Some(seat) = node.turns.seat() else { continue };
                let parent = parent();
                tokio::spawn(async move {
                    parent.ask(ask).await;
                    drop(seat);
                });
            }
            Effect::NotifyChild(step) => {
                let Some(word) = run.child_word(step) else { continue };
                let parent = parent();
                tokio::spawn(async move { parent.say(word).await });
            }
            Effect::CheckOutput => {
                outputs::check(node, run.namespace().into(), run.id(), run);
            }
            Effect::NotifyParent => {
                if let (Some(parent), Some(end)) = (run.parent(), run.end()) {
                    tell(node, &run.namespace().into(), parent, (run.id(), None, end));
                }
            }
            _ => {}
        }
    }
}

/// Reports the end of a child to its parent, in the turn of their namespace.
fn tell(
    node: &Node,
    namespace: &Arc<str>,
    parent: &Parent,
    (child, answers, end): (RunId, Option<Action>, ChildEnd),
) {
    let command = Command::ChildEnded { step: parent.step.clone(), child, answers, end };
    let envelope = Request::own(parent.run, ShardCommand::Command(command)).paid_by(namespace);
    node.submit_own(vec![envelope]);
}

/// The beginning of a child.
enum Begin {
    /// As its parent asks for it, unless it has thought better of it.
    AsAsked,
    /// As its parent requested it, in any state of the parent.
    InAnyCase,
    /// Paused, as its parent is.
    Paused(String),
    /// Ended before it does anything: a late start of it finds it ended.
    Doomed(&'static str),
}

/// A parent with a request or notification to its child.
struct Family {
    node: Arc<Node>,
    namespace: Arc<str>,
    run: RunId,
    correlation_id: Arc<str>,
    causation_id: Option<Arc<str>>,
}

impl Family {
    async fn ask(self, ask: ChildAsk) {
        let asked = match ask.action {
            Action::Compensate => {
                let _pass = self.node.turns.turn(&self.namespace, &self.correlation_id).await;
                match self.undo(&ask).await {
                    Ok(()) => Ok(self.end_of(&ask).await),
                    Err(error) => Err(error),
                }
            }
            Action::Forward | Action::Verify => self.begin(&ask).await,
        };
        let end = match asked {
            Ok(end) => end,
            Err(error) => end_by(&error, ask.action),
        };
        if let Some(end) = end {
            let parent = Parent { run: self.run, step: ask.step };
            tell(&self.node, &self.namespace, &parent, (ask.child, Some(ask.action), end));
        }
    }

    /// Starts a child in its turn, and checks if it has ended. A child of a paused workflow is not started before the
    /// workflow is resumed. If it takes longer than the parent's next request, that request continues it.
    async fn begin(&self, ask: &ChildAsk) -> Result<Option<ChildEnd>, Error> {
        let until = self.node.clock.instant(ask.again);
        let begun = async {
            let _pass = self.turn(&ask.workflow).await;
            self.start(ask, Begin::AsAsked).await?;
            Ok(self.end_of(ask).await)
        };
        let rest = until.saturating_duration_since(Instant::now());
        tokio::time::timeout(rest, begun).await.unwrap_or(Err(Error::Busy))
    }

    /// Waits for a turn, and for room in the shards; not while the workflow is paused.
    async fn turn(&self, workflow: &str) -> Pass {
        loop {
            self.node.pauses.resumed(&self.namespace, workflow).await;
            let pass = self.node.turns.turn(&self.namespace, &self.correlation_id).await;
            self.room().await;
            // It may have been paused in between.
            if !self.node.pauses.is_paused(&self.namespace, workflow) {
                return pass;
            }
        }
    }

    /// Waits while the shards have enough to do for the namespace.
    async fn room(&self) {
        let mut pause = BACK_OFF.0;
        while self.node.admission.is_loaded(&self.namespace) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    /// Starts the child, unless it was started before.
    async fn start(&self, ask: &ChildAsk, begin: Begin) -> Result<(), Error> {
        let paused = |why: String| (Hold::new(HoldKind::ParentPaused, "parent"), why);
        let (hold, doomed) = match begin {
            Begin::AsAsked => match self.wish(ask).await {
                Wish::Gone => return Ok(()),
                Wish::Stands(hold) => (hold, false),
            },
            Begin::InAnyCase => (None, false),
            Begin::Paused(why) => (Some(paused(why)), false),
            Begin::Doomed(why) => {
                let hold = Hold::new(HoldKind::DependencyUnmet, "parent");
                (Some((hold, why.to_owned())), true)
            }
        };
        let request = StartRun {
            workflow: ask.workflow.clone(),
            version: ask.version,
            key: None,
            input: ask.input.clone(),
            correlation_id: Some(self.correlation_id.to_string()),
            causation_id: self.causation_id.as_deref().map(str::to_owned),
            labels: Default::default(),
            sequence: None,
            start_at: None,
            delay: None,
            end_by: None,
            undo_budget: None,
        };
        let parent = Parent { run: self.run, step: ask.step.clone() };
        let (child, descent) = (ask.child, ask.descent);
        let start = ChildStart { child, request, parent, descent, hold, doomed };
        start::start_child(&self.node, &self.namespace, start).await
    }

    /// Looks whether the parent still asks for the child, as far as this node remembers it: a start may have waited for
    /// its turn for long.
    async fn wish(&self, ask: &ChildAsk) -> Wish {
        let (send, receive) = tokio::sync::oneshot::channel();
        let (child, step) = (ask.child, ask.step.clone());
        let look = move |run: Option<&Run>| {
            let wish = run.map(|run| match run.child_ask(&step) {
                Some(now) if now.child == child && now.action != Action::Compensate => {
                    Wish::Stands(run.hold_of_child(&step))
                }
                _ => Wish::Gone,
            });
            // The task may have been given up.
            let _ = send.send(wish.unwrap_or(Wish::Stands(None)));
        };
        self.node.read(self.run, 0, Box::new(look));
        receive.await.unwrap_or(Wish::Stands(None))
    }

    /// Lets the child undo its effects, whenever it ended. A child that was never started is started held,
    /// and undone: a late start of it finds it ended.
    async fn undo(&self, ask: &ChildAsk) -> Result<(), Error> {
        match self.command(ask.child, self.undo_command(ask)).await {
            Err(Error::NotFound { .. }) => {}
            done => return done,
        }
        self.start(ask, Begin::Doomed("its parent was undone before it began")).await?;
        self.command(ask.child, self.undo_command(ask)).await
    }

    fn undo_command(&self, ask: &ChildAsk) -> Command {
        // A request that a person had repeated is a new request; the same one is executed once.
        let again = match ask.attempt {
            0 | 1 => String::new(),
            attempt => format!(", attempt {attempt}"),
        };
        let reason = format!("the step '{}' that it is, is undone{again}", ask.step);
        Command::UndoForParent { by: By { actor: format!("run:{}", self.run).into(), reason } }
    }

    /// Notifies the child of the state of its parent, and the parent of the acknowledgement.
    async fn say(self, word: ChildWord) {
        let killed = word.word == ParentWord::Killed;
        let (heard, end) = match self.try_to_say(&word).await {
            Ok(()) if killed => (true, self.end_of(&word.ask).await),
            Ok(()) => (true, None),
            // It can never be started, and so needs to hear nothing.
            Err(error) => {
                let end = end_by(&error, Action::Forward);
                (end.is_some(), end.filter(|_| killed))
            }
        };
        if !heard {
            return;
        }
        let ChildAsk { step, child, .. } = word.ask;
        // Before the word counts as heard: who dies in between says it again.
        let ended = end.map(|end| {
            let step = step.clone();
            Command::ChildEnded { step, child, answers: None, end }
        });
        let heard = Command::ChildHeard { step, child, order: word.order };
        let envelopes = ended.into_iter().chain([heard]).map(|command| {
            Request::own(self.run, ShardCommand::Command(command)).paid_by(&self.namespace)
        });
        self.node.submit_own(envelopes.collect());
    }

    /// Notifies the child once. One that has not begun is begun so that the notification applies to it, in case it
    /// is about to be started.
    async fn try_to_say(&self, word: &ChildWord) -> Result<(), Error> {
        let ChildWord { ask, word: what, order, by } = word;
        let command = Command::FromParent { word: *what, order: *order, by: by.clone() };
        match self.command(ask.child, command.clone()).await {
            Err(Error::NotFound { .. }) => {}
            done => return done,
        }
        let begin = match what {
            ParentWord::Killed => Begin::Doomed("its parent was killed before it began"),
            ParentWord::Paused => Begin::Paused(by.reason.clone()),
            ParentWord::Resumed => Begin::AsAsked,
            ParentWord::Left => Begin::InAnyCase,
        };
        self.start(ask, begin).await?;
        match self.command(ask.child, command).await {
            // It went on, and its parent does not ask for it any more.
            Err(Error::NotFound { .. }) if *what == ParentWord::Resumed => Ok(()),
            done => done,
        }
    }

    async fn command(&self, run: RunId, command: Command) -> Result<(), Error> {
        let answers = Answers::new(1);
        let urgent = matches!(command, Command::FromParent { .. });
        let order = ShardCommand::Command(command);
        let envelope = Request::asked(run, self.namespace.clone(), order, answers.ticket(0));
        self.node.submit_own(vec![envelope.urgent_if(urgent)]);
        answers.wait().await.pop().unwrap_or(Err(Error::Busy)).map(drop)
    }

    /// Returns the end of the child; `None` if it has not ended, or that is unknown.
    async fn end_of(&self, ask: &ChildAsk) -> Option<ChildEnd> {
        let undo = ask.action == Action::Compensate;
        let end = move |run: &Run| if undo { run.end_of_undo() } else { run.end() };
        reads::read(&self.node, &self.namespace, ask.child, end).await.ok()?
    }
}

/// The intention of a parent for a child that is about to be started.
enum Wish {
    /// Nothing any more.
    Gone,
    /// That it begins, held if it is paused itself.
    Stands(Option<(Hold, String)>),
}

/// Returns the end of a child that can never be started: it failed, with nothing done. Other errors are retried: a
/// refused undo does not mean that no effect remains.
fn end_by(error: &Error, action: Action) -> Option<ChildEnd> {
    let (code, message) = match error {
        Error::Refused(_) if action == Action::Compensate => return None,
        Error::NotFound { code, message } => (*code, message.clone()),
        Error::Invalid { code, violations } => {
            let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
            (*code, all.join("; "))
        }
        Error::Refused(refusal) => (refusal.code.as_str(), refusal.message.clone()),
        _ => return None,
    };
    let code = code.to_owned();
    let kind = FailureKind::Permanent;
    let failure = Failure { kind, code, message, details: None, retry_after: None };
    Some(ChildEnd {
        outcome: Outcome::FailedClean,
        output: None,
        error: Some(failure),
        stands: false,
        began: false,
    })
}
