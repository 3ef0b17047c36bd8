//! Reads a story, makes it happen, and writes it down again with what happened.

mod words;
mod workflow;

use std::collections::BTreeMap;
use std::sync::Arc;

use backstitch_saga::protocol::{Failure, FailureKind, Outcome, Scope, TaskOutcome, Verdict};
use backstitch_saga::{
    Action, By, ChildEnd, Command, Descent, EndBy, Eraser, Hold, HoldKind, Payload, PlanPage,
    Record, Refusal, Reply, Run, RunId, Span, Start, StepPath, TaskKey, Time, Transition, decide,
};
use uuid::Uuid;

/// Returns the story as it happens: every line kept, what was indented before replaced by what happened.
pub(crate) fn tell(story: &str) -> String {
    let mut told = String::new();
    let mut run: Option<Telling> = None;
    let mut lines = story.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("    ") {
            continue;
        }
        told.push_str(line);
        told.push('\n');
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "workflow" {
            let mut steps = Vec::new();
            while let Some(step) =
                lines.next_if(|line| line.starts_with("  ") && !line.starts_with("    "))
            {
                told.push_str(step);
                told.push('\n');
                steps.push(step.trim().to_owned());
            }
            run = Some(Telling::new(&steps));
            continue;
        }
        let run = run.as_mut().expect("a story begins with a workflow");
        for happened in run.happen(line) {
            told.push_str("    ");
            told.push_str(&happened);
            told.push('\n');
        }
    }
    told
}

struct Telling {
    run: Run,
    /// The same run as it folds from what stays of its records when it is erased.
    erased: Run,
    eraser: Eraser,
    now: Time,
}

impl Telling {
    fn new(steps: &[String]) -> Telling {
        let id = RunId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));
        let run = Run::new(id, Arc::new(workflow::graph(steps)));
        Telling { erased: run.clone(), eraser: Eraser::default(), run, now: Time(0) }
    }

    /// Lets one line of the story happen.
    fn happen(&mut self, line: &str) -> Vec<String> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "after" => {
                self.now = self.now.after(rest.parse::<Span>().unwrap());
                self.decide(&Command::Tick)
            }
            // No server is there to hear a worker; then one is, and looks after the run.
            "unheard" => {
                self.now = self.now.after(rest.parse::<Span>().unwrap());
                let mut told = self.decide(&Command::Listen { since: self.now });
                told.extend(self.decide(&Command::Tick));
                told
            }
            "show" => words::show(&self.run, self.now),
            "plan" => words::plan(self.run.plan(&scope(rest), self.now)),
            "plan_failed" => {
                words::rerun_plan(self.run.rerun_plan(rest, true, self.now, &PlanPage::whole()))
            }
            "claim" if rest.is_empty() => {
                let offered = self.run.offered();
                offered.into_iter().flat_map(|task| self.hand_out(task)).collect()
            }
            "claim" => {
                let task = self.task_at(rest);
                self.hand_out(task)
            }
            _ => {
                let command = self.command(verb, rest);
                self.decide(&command)
            }
        }
    }

    fn hand_out(&mut self, task: TaskKey) -> Vec<String> {
        self.decide(&Command::HandOut { task, worker: "w1".into() })
    }

    fn command(&self, verb: &str, rest: &str) -> Command {
        let (first, more) = rest.split_once(' ').unwrap_or((rest, ""));
        let by = |reason: &str| By { actor: "ann".into(), reason: reason.to_owned() };
        match verb {
            "start" => {
                let input = payload(if rest.is_empty() { "null" } else { rest });
                Command::Start(Start { input, ..start(Vec::new()) })
            }
            "start_by" => self.start_by(payload("null"), rest),
            "start_by_with" => self.start_by(payload(first), more),
            "ok" => {
                let output = payload(if more.is_empty() { "null" } else { more });
                Command::Report {
                    task: self.task_at(first),
                    outcome: TaskOutcome::Succeeded { output, external_id: None },
                }
            }
            "happened" | "not_happened" => {
                let verdict = match verb {
                    "happened" => {
                        Verdict::Happened(payload(if more.is_empty() { "null" } else { more }))
                    }
                    _ => Verdict::NotHappened,
                };
                let output = Payload::of(&verdict).unwrap();
                Command::Report {
                    task: self.task_at(first),
                    outcome: TaskOutcome::Succeeded { output, external_id: None },
                }
            }
            "retryable" => self.failed(first, FailureKind::Retryable, more),
            "permanent" => self.failed(first, FailureKind::Permanent, more),
            "unknown" => self.failed(first, FailureKind::Unknown, more),
            "rate_limited" => self.failed(first, FailureKind::RateLimited, more),
            "unavailable" => self.failed(first, FailureKind::Unavailable, more),
            "beat" => Command::Beat {
                task: self.task_at(first),
                details: (!more.is_empty()).then(|| payload(more)),
            },
            "give_back" => {
                let session = if more.is_empty() { "w1" } else { more };
                Command::GiveBack {
                    task: self.task_at(first),
                    session: session.into(),
                    since: None,
                }
            }
            "compensate" => {
                Command::Compensate { scope: scope(rest), force: false, by: by("because") }
            }
            "compensate!" => {
                Command::Compensate { scope: scope(rest), force: true, by: by("because") }
            }
            "cancel" => Command::Cancel { by: by(rest) },
            "kill" => Command::Kill { by: by(rest) },
            "retry" => Command::Retry { step: None, input: None, by: by(rest) },
            "retry_step" => {
                Command::Retry { step: Some(first.parse().unwrap()), input: None, by: by(more) }
            }
            "edit" => {
                let (input, step) = (Some(payload(more)), Some(first.parse().unwrap()));
                Command::Retry { step, input, by: by("a better input") }
            }
            "skip" => {
                let output = (!more.is_empty()).then(|| payload(more));
                Command::Skip { step: first.parse().unwrap(), output, by: by("not needed") }
            }
            "resolve" => Command::Resolve {
                step: first.parse().unwrap(),
                output: payload(more),
                external_id: None,
                by: by("seen it"),
            },
            "rerun" | "rerun!" => {
                let input = (!more.is_empty()).then(|| payload(more));
                let (force, only_failed) = (verb == "rerun!", false);
                Command::Rerun {
                    from: first.into(),
                    input,
                    only_failed,
                    force,
                    by: by("once more"),
                }
            }
            "rerun_failed" => Command::Rerun {
                from: first.into(),
                input: None,
                only_failed: true,
                force: false,
                by: by(if more.is_empty() { "once more" } else { more }),
            },
            "undo_for_parent" => Command::UndoForParent { by: by(rest) },
            "signal" => {
                let data = payload(if more.is_empty() { "null" } else { more });
                Command::Signal { name: first.into(), data, by: by(""), checked: None }
            }
            "refuse_signal" => {
                Command::RefuseSignal { name: first.into(), by: by(""), message: more.to_owned() }
            }
            "checked" => {
                Command::OutputChecked { violation: (!rest.is_empty()).then(|| rest.to_owned()) }
            }
            "done_without" => {
                let message = "the work was done".to_owned();
                let outcome = TaskOutcome::DoneWithoutOutput { code: more.to_owned(), message };
                Command::Report { task: self.task_at(first), outcome }
            }
            "child" | "child_undo" => {
                // `child pay succeeded nothing`: it did nothing, as all of it was read-only or skipped.
                let (more, stands) = match more.strip_suffix(" nothing") {
                    Some(more) => (more, false),
                    None => (more, true),
                };
                // `child pay partially_completed of output_failed`: it ended with that error and without an output.
                let (more, error) = match more.split_once(" of ") {
                    Some((more, code)) => (more, Some(failure(FailureKind::Permanent, code))),
                    None => (more, None),
                };
                let (outcome, output) = more.split_once(' ').unwrap_or((more, "null"));
                let step: StepPath = first.parse().unwrap();
                let word =
                    || self.run.child_word(&step).map(|word| (word.ask.child, word.ask.action));
                let (child, asked) = match self.run.child_ask(&step) {
                    Some(ask) => (ask.child, ask.action),
                    None => word().unwrap_or((self.run.id(), Action::Forward)),
                };
                let outcome: Outcome = serde_json::from_value(outcome.into()).unwrap();
                let stands = stands && !outcome.is_clean();
                let output = error.is_none().then(|| payload(output));
                let end = ChildEnd { outcome, output, error, stands, began: true };
                let answers = (verb == "child_undo").then_some(asked);
                Command::ChildEnded { step, child, answers, end }
            }
            "heard" => {
                let step: StepPath = first.parse().unwrap();
                let heard = self.run.child_word(&step);
                let (child, order) =
                    heard.map_or((self.run.id(), 0), |word| (word.ask.child, word.order));
                Command::ChildHeard { step, child, order }
            }
            "parent" => {
                let word = serde_json::from_value(first.into()).unwrap();
                let order = more.parse().unwrap();
                let by = By { actor: "run:1".into(), reason: format!("its parent was {first}") };
                Command::FromParent { word, order, by }
            }
            "start_child" => {
                let descent: Vec<u32> = rest.split(' ').map(|word| word.parse().unwrap()).collect();
                let descent = Descent { depth: descent[0], budget: descent[1] };
                Command::Start(Start { descent: Some(descent), ..start(Vec::new()) })
            }
            "start_held" => {
                let holds = rest.split(' ');
                let holds = holds.map(|name| (turn(name), format!("waits for '{name}'")));
                Command::Start(start(holds.collect()))
            }
            // `start_later SPAN`, and what it waits for beside that.
            "start_later" => {
                let holds =
                    more.split_whitespace().map(|name| (turn(name), format!("waits for '{name}'")));
                let start_at = Some(self.now.after(first.parse().unwrap()));
                Command::Start(Start { start_at, ..start(holds.collect()) })
            }
            "label" => {
                let pair = |word: &str| {
                    word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
                };
                let gone = |word: &str| word.strip_prefix('-').map(Into::into);
                let words = || rest.split_whitespace();
                Command::Label {
                    set: words().filter_map(pair).collect(),
                    remove: words().filter_map(gone).collect(),
                    by: by("found it"),
                }
            }
            "erase" => Command::Erase { by: by(rest) },
            "unblock" => Command::Unhold { hold: Some(turn(first)), by: None },
            "withdraw" => {
                let policy = serde_json::from_value(more.into()).unwrap();
                let message = format!("'{first}' was withdrawn by bob");
                Command::FactWithdrawn { hold: turn(first), policy, message }
            }
            "restore" => Command::FactRestored { hold: turn(first) },
            "overdue" => {
                let message = format!("'{first}' was not established in time");
                Command::Overdue { hold: turn(first), message }
            }
            "skip_requirements" => Command::SkipRequirements { by: by(rest) },
            "pause" => Command::Hold {
                hold: Hold::new(HoldKind::Paused, first),
                by: Some(by(more)),
                message: "paused by a person".to_owned(),
            },
            "resume" => Command::Unhold {
                hold: (first != "all").then(|| Hold::new(HoldKind::Paused, first)),
                by: Some(by(more)),
            },
            "mark_left" => Command::MarkLeft { by: by(rest) },
            "mark" => Command::MarkUndone { step: first.parse().unwrap(), by: by(more) },
            _ => panic!("a story knows no '{verb}'"),
        }
    }

    /// `10m a=2m`: to be over in ten minutes, undoing `a` takes two; `budget=5m` reserves five.
    fn start_by(&self, input: Payload, rest: &str) -> Command {
        let (by, spans) = rest.split_once(' ').unwrap_or((rest, ""));
        let at = self.now.after(by.parse().unwrap());
        let spans = spans.split_whitespace().filter_map(|word| word.split_once('='));
        let mut undo: BTreeMap<Arc<str>, Span> =
            spans.map(|(step, span)| (step.into(), span.parse().unwrap())).collect();
        let end_by = EndBy { at, budget: undo.remove("budget"), undo };
        Command::Start(Start { input, end_by: Some(Box::new(end_by)), ..start(Vec::new()) })
    }

    fn failed(&self, task: &str, kind: FailureKind, rest: &str) -> Command {
        let (code, after) =
            rest.split_once(" after ").map_or((rest, None), |(code, after)| (code, Some(after)));
        let code = if code.is_empty() { "broken" } else { code };
        let retry_after = after.map(|span| span.parse().unwrap());
        let failure = Failure { retry_after, ..failure(kind, code) };
        Command::Report { task: self.task_at(task), outcome: TaskOutcome::Failed(failure) }
    }

    /// `pay` is the task that is current there; `pay#2` or `undo:pay#1` names one.
    fn task_at(&self, name: &str) -> TaskKey {
        let (action, name) = match name.split_once(':') {
            Some(("undo", name)) => (Some(Action::Compensate), name),
            Some(("verify", name)) => (Some(Action::Verify), name),
            Some((other, _)) => panic!("'{other}' is no action"),
            None => (None, name),
        };
        if let Some((path, attempt)) = name.split_once('#') {
            let step: StepPath = path.parse().unwrap();
            return TaskKey {
                step,
                action: action.unwrap_or(Action::Forward),
                attempt: attempt.parse().unwrap(),
            };
        }
        let step: StepPath = name.parse().unwrap();
        let current =
            self.run.offered().into_iter().chain(self.run.leased()).find(|task| task.step == step);
        current.unwrap_or(TaskKey { step, action: action.unwrap_or(Action::Forward), attempt: 1 })
    }

    /// Decides, checks the laws, and tells what happened.
    fn decide(&mut self, command: &Command) -> Vec<String> {
        let before = self.run.clone();
        let (answer, record) = self.decide_once(command.clone());
        let mut twin = before;
        if !record.events.is_empty() {
            twin.try_apply(&record).expect("a record that can be read back");
            self.run.mark_appended();
            self.fold_erased(&record);
        }
        assert_eq!(
            twin.snapshot(),
            self.run.snapshot(),
            "folding gives another run than deciding: {command:?}"
        );
        let again =
            Run::restore(self.run.id(), self.run.graph().clone(), &self.run.snapshot()).unwrap();
        assert_eq!(again.snapshot(), self.run.snapshot(), "a snapshot gives another run");
        assert_eq!(self.run.counts_agree(), Ok(()));
        // Retries that wait in line for a place have no timer any more; a restored run finds them by its next tick.
        let same_timer =
            again.next_due() == self.run.next_due() || again.next_due() <= Some(self.now);
        assert!(same_timer, "a snapshot gives other timers");
        assert_eq!(again.conditions(), self.run.conditions(), "a snapshot gives other counts");
        if answer.is_ok() {
            let (answer_again, record_again) = self.decide_once(command.clone());
            assert_eq!(
                (&answer_again, record_again.events.len()),
                (&answer, 0),
                "twice is not once: {command:?}"
            );
        }
        let mut told: Vec<String> =
            record.events.iter().map(|event| words::event(event, &record)).collect();
        if let Err(refusal) = answer {
            told.push(format!("refused: {}", refusal.code.as_str()));
        }
        told
    }

    /// Checks that the rest of an erased journal folds to a run in the same state as the whole one.
    fn fold_erased(&mut self, record: &Record) {
        let kept = self.eraser.record(record);
        assert_eq!(self.eraser.record(&kept), kept, "erasing twice is not erasing once");
        self.erased.try_apply(&kept).expect("an erased record that can be read back");
        let ends = |run: &Run| (run.outcome(), run.ended_at(), run.erased_at());
        assert_eq!(ends(&self.erased), ends(&self.run), "an erased journal tells of another end");
    }

    fn decide_once(&mut self, command: Command) -> (Result<Reply, Refusal>, Record) {
        let mut transition = Transition::default();
        let answer = decide(&mut self.run, command, self.now, &mut transition);
        (answer, transition.record)
    }
}

fn start(holds: Vec<(Hold, String)>) -> Start {
    Start {
        namespace: "default".into(),
        definition: "hash".into(),
        key: None,
        correlation_id: None,
        causation_id: None,
        labels: Default::default(),
        input: payload("null"),
        holds,
        parent: None,
        descent: None,
        start_at: None,
        requires: Vec::new(),
        end_by: None,
    }
}

fn payload(text: &str) -> Payload {
    Payload::trusted(text.to_owned()).unwrap()
}

/// Reads a scope: `all`, `back to NAME`, or names.
fn scope(text: &str) -> Scope {
    match text.strip_prefix("back to ") {
        Some(step) => Scope::BackTo(step.to_owned()),
        None if text == "all" => Scope::All,
        None => Scope::Steps(text.split_whitespace().map(str::to_owned).collect()),
    }
}

/// Returns the hold that a run begins with: a fact if it is named like one, else a serial key.
fn turn(name: &str) -> Hold {
    let kind = if name.contains('.') { HoldKind::DependencyUnmet } else { HoldKind::KeyBlocked };
    Hold::new(kind, name)
}

fn failure(kind: FailureKind, code: &str) -> Failure {
    let message = "it broke".to_owned();
    Failure { kind, code: code.to_owned(), message, details: None, retry_after: None }
}
