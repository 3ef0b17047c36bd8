//! Laws and invariants over random workflows and random histories: what workers, clocks and people may do to a run,
//! in any order, also too late and twice. A failing case is printed, made as small as it goes.
//! `PROPTEST_CASES=20000` tries more of them.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod drawn;
mod found;

use std::collections::BTreeSet;
use std::sync::Arc;

use backstitch_saga::protocol::{Outcome, RunView, Scope, State};
use backstitch_saga::rehearse::{Bounds, rehearse};
use backstitch_saga::{
    Action, By, ChildEnd, Command, Event, Graph, Hold, HoldKind, Payload, Record, Refusal, Reply,
    Run, RunId, Span, StepPath, TaskKey, Time, Transition, decide,
};
use drawn::{
    Deed, check_offers, check_open_effects, graph, histories, outcome_of, start, workflows,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

/// A run under test, with everything that was asked of it.
struct Trial {
    run: Run,
    now: Time,
    asked: Vec<(Time, Command)>,
    records: Vec<Record>,
    accepted: Vec<(Command, Reply)>,
}

impl Trial {
    fn new(graph: Graph, items: u8) -> Trial {
        let id = RunId(Uuid::from_u128(7));
        let run = Run::new(id, Arc::new(graph));
        let mut trial =
            Trial { run, now: Time(1_000), asked: vec![], records: vec![], accepted: vec![] };
        let list: Vec<u8> = (0..items % 5).collect();
        // Every other run must wait for its turn.
        let held = if items < 128 { vec![] } else { turn().into() };
        let holds = held.into_iter().map(|hold| (hold, "its turn".to_owned())).collect();
        trial.ask(Command::Start(start(Payload::of(&list).unwrap(), holds)));
        trial
    }

    /// Asks, and holds the answer to the laws.
    fn ask(&mut self, command: Command) {
        let mut twin = self.run.clone();
        let before = twin.state();
        let mut transition = Transition::default();
        let answer = decide(&mut self.run, command.clone(), self.now, &mut transition);
        let Transition { record, effects } = transition;
        drawn::check_effects(&twin, &self.run, &effects);
        self.asked.push((self.now, command.clone()));
        if !record.events.is_empty() {
            twin.try_apply(&record).expect("a record that can be read back");
            self.run.mark_appended();
        }
        assert_eq!(
            twin.snapshot(),
            self.run.snapshot(),
            "law 1: folding gives another run than {command:?}"
        );
        let restored =
            Run::restore(self.run.id(), self.run.graph().clone(), &self.run.snapshot()).unwrap();
        assert_eq!(restored.snapshot(), self.run.snapshot());
        assert_eq!(self.run.counts_agree(), Ok(()));
        assert_eq!(
            (restored.state(), restored.conditions()),
            (self.run.state(), self.run.conditions())
        );
        self.check_sound(before, &record);
        self.records.push(record);
        drawn::check_events(&self.records);
        if let Ok(reply) = answer {
            self.ask_again(&command, reply);
            self.accepted.push((command, reply));
        }
    }

    /// Checks law 5: an accepted command changes nothing the second time, and is answered the same.
    fn ask_again(&mut self, command: &Command, reply: Reply) {
        let before = self.run.snapshot();
        let mut transition = Transition::default();
        let again: Result<Reply, Refusal> =
            decide(&mut self.run, command.clone(), self.now, &mut transition);
        assert_eq!((again, transition.record.events.len()), (Ok(reply), 0), "law 5: {command:?}");
        assert_eq!(before, self.run.snapshot());
    }

    /// Checks law 6, after every record.
    fn check_sound(&self, before: State, record: &Record) {
        let view = self.run.view(self.now);
        assert_eq!(view.progress.steps.values().sum::<u32>(), view.progress.steps_total);
        assert_eq!(view.progress.items.values().sum::<u32>(), view.progress.items_total);
        assert!(!self.run.stands_still(), "nothing will ever move it: {view:#?}");
        let why = self.run.why();
        assert_eq!(why.waits_for.is_empty(), view.state == State::Ended, "{why:#?} {view:#?}");
        check_offers(&self.run, &why, self.now);
        if self.run.holds().any(|hold| hold.kind.is_forward_only()) {
            assert!(
                !self.run.in_flight() && self.run.offered().is_empty(),
                "before its turn: {view:#?}"
            );
            assert_eq!(
                view.steps.iter().filter(|step| step.state != "waiting").count(),
                0,
                "{view:#?}"
            );
        }
        let moves =
            !self.run.offered().is_empty() || self.run.in_flight() || self.run.next_due().is_some();
        let person = view.conditions.iter().any(|condition| condition.kind == "IncidentOpen");
        assert!(
            view.state == State::Ended || moves || person || self.run.holds().count() > 0,
            "nothing will ever move it: {view:#?}"
        );
        assert_eq!(view.state == State::Ended, view.outcome.is_some());
        check_open_effects(&self.run, &view);
        let mut backward = matches!(before, State::Compensating | State::CompensationBlocked);
        for event in &record.events {
            match event {
                Event::CompensationStarted { .. } => backward = true,
                Event::WentForward { .. } => backward = false,
                Event::Offered { action: Action::Forward | Action::Verify, step, .. } => {
                    assert!(!backward, "a forward step after compensation began: {step}");
                }
                Event::Offered { action: Action::Compensate, attempt: 1, step, .. } if backward => {
                    self.check_turn(&view, &step.step);
                }
                _ => {}
            }
        }
        self.check_places();
    }

    /// Checks that no more items are in flight than allowed.
    fn check_places(&self) {
        let under_way: Vec<TaskKey> =
            self.run.offered().into_iter().chain(self.run.leased()).collect();
        let graph = self.run.graph();
        for node in &graph.nodes {
            let of_step = |undo: bool| {
                let wanted = move |task: &&TaskKey| {
                    task.step.step == node.id && (task.action == Action::Compensate) == undo
                };
                under_way.iter().filter(wanted).count()
            };
            if let Some(map) = node.map() {
                assert!(
                    of_step(false).max(of_step(true)) <= map.max_concurrency as usize,
                    "too many in flight"
                );
            }
        }
    }

    /// Checks that an undo does not begin before what depends on it is undone as far as it is to
    /// be.
    fn check_turn(&self, view: &RunView, step: &str) {
        let graph = self.run.graph();
        for later in descendants(graph, graph.position(step).unwrap()) {
            let word = view.steps[later].compensation.as_deref();
            let open = matches!(word, Some("compensating" | "compensation_blocked"));
            assert!(!open, "{step} is undone before {}", graph.nodes[later].id);
        }
    }

    fn act(&mut self, (what, which, how): Deed) {
        let by = By { actor: "ann".into(), reason: format!("r{}", self.asked.len()) };
        let pick = |tasks: Vec<TaskKey>| {
            (!tasks.is_empty()).then(|| tasks[usize::from(which) % tasks.len()].clone())
        };
        let (offered, leased) = (pick(self.run.offered()), pick(self.run.leased()));
        match what % 16 {
            0..=4 => {
                if let Some(task) = offered {
                    self.ask(Command::HandOut { task, worker: format!("w{}", how % 3).into() });
                }
            }
            5..=8 => {
                if let Some(task) = leased {
                    let outcome = outcome_of(task.action, how);
                    self.ask(Command::Report { task, outcome });
                }
            }
            9 => {
                if let Some(task) = leased {
                    let details = (how.is_multiple_of(2)).then(|| Payload::of(&how).unwrap());
                    self.ask(Command::Beat { task, details });
                }
            }
            10 | 11 => self.pass_time(how),
            12 => {
                if let Some(mut task) = leased.or(offered) {
                    task.attempt = task.attempt.saturating_sub(1 + u32::from(how % 2)).max(1);
                    let outcome = outcome_of(task.action, how);
                    self.ask(Command::Report { task, outcome });
                }
            }
            13 => {
                if let Some(task) = leased {
                    let session = format!("w{}", which % 3).into();
                    self.ask(match how % 4 {
                        0 | 1 => Command::GiveBack { task, session, since: None },
                        2 => Command::Listen { since: Time(i64::MAX) },
                        _ => Command::Listen { since: self.now },
                    });
                }
            }
            14 => match how % 4 {
                0 => self.signal(which, how),
                1 | 2 => drop(self.child_ends(how)),
                _ => self.ask(Command::Retry { step: None, input: None, by }),
            },
            _ => self.act_by_hand(which, how, by),
        }
    }

    fn signal(&mut self, which: u8, how: u8) {
        let by = By { actor: "bob".into(), reason: String::new() };
        let data = Payload::of(&how).unwrap();
        let name = format!("g{}", which % 2).into();
        self.ask(Command::Signal { name, data, by, checked: None });
    }

    /// Ends one of the children, if there are any.
    fn child_ends(&mut self, how: u8) -> bool {
        let paths = self.run.graph().nodes.iter().map(|node| StepPath::step(node.id.clone()));
        let Some(ask) = paths.filter_map(|path| self.run.child_ask(&path)).next() else {
            return false;
        };
        let outcome = match (ask.action, how % 8) {
            (Action::Compensate, 7) | (Action::Forward, 5) => Outcome::FailedDirty,
            (Action::Compensate, _) => Outcome::Compensated,
            (_, 6 | 7) => Outcome::FailedClean,
            _ => Outcome::Succeeded,
        };
        let stands = !outcome.is_clean();
        // Now and then it has not the output that it should have.
        let output = (how % 8 != 4).then(Payload::null);
        let end = ChildEnd { outcome, output, error: None, stands, began: true };
        let (step, child, answers) = (ask.step, ask.child, Some(ask.action));
        self.ask(Command::ChildEnded { step, child, answers, end });
        true
    }

    fn say_how_it_ends(&mut self, which: u8, how: u8, by: By) {
        let steps = self.run.view(self.now).steps;
        let step = steps[usize::from(which) % steps.len()].step.clone();
        let step = match self.run.graph().nodes[usize::from(which) % steps.len()].map() {
            Some(_) => StepPath::item(step.step, u32::from(how % 3)),
            None => step,
        };
        let output = Payload::of(&how).unwrap();
        match how % 3 {
            0 => self.ask(Command::Skip { step, output: None, by }),
            1 => self.ask(Command::Skip { step, output: Some(output), by }),
            _ => self.ask(Command::Resolve { step, output, external_id: None, by }),
        }
    }

    fn act_by_hand(&mut self, which: u8, how: u8, by: By) {
        let nodes = &self.run.graph().nodes;
        let step = nodes[usize::from(which) % nodes.len()].id.to_string();
        match how % 8 {
            0 if how & 64 == 0 => self.ask(Command::Cancel { by }),
            0 => self.say_how_it_ends(which, how >> 1, by),
            1 => self.ask(Command::Rerun {
                from: step.into(),
                input: None,
                only_failed: which >= 128,
                force: how & 64 != 0,
                by,
            }),
            2 => self.ask(Command::Compensate { scope: Scope::All, force: how & 64 != 0, by }),
            3 => self.ask(Command::Compensate {
                scope: Scope::BackTo(step),
                force: how & 64 != 0,
                by,
            }),
            4 => self.ask(Command::Compensate { scope: Scope::Steps(vec![step]), force: true, by }),
            5 => {
                let path = self
                    .run
                    .view(self.now)
                    .steps
                    .iter()
                    .find(|step| step.compensation.is_some())
                    .map(|s| s.step.clone());
                if let Some(step) = path {
                    self.ask(Command::MarkUndone { step, by });
                }
            }
            6 if which.is_multiple_of(4) => self.ask(Command::Kill { by }),
            6 if which % 4 == 1 => self.ask(Command::Unhold { hold: None, by: Some(by) }),
            6 => self.come_nearer(which % 4 == 2, how >> 6, by),
            _ => self.ask(Command::Hold {
                hold: Hold::new(HoldKind::Paused, format!("p{}", how >> 6)),
                by: Some(by),
                message: "paused".to_owned(),
            }),
        }
    }

    /// Changes something that the run waits for before it begins.
    fn come_nearer(&mut self, key: bool, how: u8, by: By) {
        let [serial, fact] = turn();
        match (key, how) {
            (true, _) => self.ask(Command::Unhold { hold: Some(serial), by: None }),
            (false, 0) => self.ask(Command::Unhold { hold: Some(fact), by: None }),
            (false, 1) => self.ask(Command::SkipRequirements { by }),
            (false, _) => {
                self.ask(Command::Overdue { hold: fact, message: "too late".to_owned() });
            }
        }
    }

    fn pass_time(&mut self, how: u8) {
        let due = self.run.next_due().filter(|_| !how.is_multiple_of(3)).unwrap_or(self.now);
        self.now = due.max(self.now).after(Span::millis(u64::from(how) * 10));
        self.ask(Command::Tick);
    }

    /// Ends the run: everything works from now on, and people do their part.
    fn heal(&mut self) {
        let by = By { actor: "ann".into(), reason: "heal".to_owned() };
        self.ask(Command::Unhold { hold: None, by: Some(by.clone()) });
        self.come_nearer(true, 0, by.clone());
        self.come_nearer(false, 1, by);
        for _ in 0..2_000 {
            if self.run.state() == State::Ended {
                return;
            }
            if let Some(task) = self.run.leased().into_iter().next() {
                let outcome = outcome_of(task.action, 0);
                self.ask(Command::Report { task, outcome });
            } else if self.child_ends(0) {
            } else if let Some(task) = self.run.offered().into_iter().next() {
                self.ask(Command::HandOut { task, worker: "healer".into() });
            } else if self.run.conditions().contains(&"IncidentOpen") && self.ask_retry() {
            } else {
                self.now = self.run.next_due().unwrap_or(self.now).max(self.now);
                self.ask(Command::Tick);
            }
        }
        panic!("the run does not end: {:#?}", self.run.view(self.now));
    }

    fn ask_retry(&mut self) -> bool {
        let before = self.records.len();
        self.ask(Command::Retry {
            step: None,
            input: None,
            by: By { actor: "ann".into(), reason: format!("heal {before}") },
        });
        !self.records[before].events.is_empty()
    }
}

/// Returns holds that a run may begin with.
fn turn() -> [Hold; 2] {
    [
        Hold::new(HoldKind::KeyBlocked, "customer:1"),
        Hold::new(HoldKind::DependencyUnmet, "customer.created on customer:1"),
    ]
}

fn descendants(graph: &Graph, of: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open = vec![of];
    while let Some(step) = open.pop() {
        open.extend(graph.nodes[step].feeds.iter().filter(|&&fed| found.insert(fed)));
    }
    found
}

/// Checks law 4: the same commands in fewer records end in the same run.
fn check_batching(trial: &Trial) {
    let mut run = Run::new(trial.run.id(), trial.run.graph().clone());
    let mut rest = trial.asked.as_slice();
    while let Some((at, _)) = rest.first() {
        let same = rest.iter().take_while(|(time, _)| time == at).count();
        let mut transition = Transition::default();
        for (_, command) in &rest[..same] {
            let _ = decide(&mut run, command.clone(), *at, &mut transition);
        }
        run.mark_appended();
        rest = &rest[same..];
    }
    let without_seq = |run: &Run| {
        let mut snapshot: Value = serde_json::from_str(&run.snapshot()).unwrap();
        snapshot["seq"] = json!(0);
        snapshot
    };
    assert_eq!(without_seq(&run), without_seq(&trial.run), "law 4: batching shows");
}

fn try_it(graph: Graph, items: u8, history: Vec<Deed>) -> Trial {
    let mut trial = Trial::new(graph, items);
    for deed in history {
        trial.act(deed);
    }
    trial.heal();
    check_batching(&trial);
    for (command, reply) in trial.accepted.clone() {
        // Whatever worker told us once it may tell us again, at any later time.
        if matches!(command, Command::Report { .. }) {
            trial.ask_again(&command, reply);
        }
    }
    trial
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_any_workflow_keeps_the_laws_and_ends(
        drawn in workflows(), items in any::<u8>(), history in histories(),
    ) {
        let trial = try_it(graph(&drawn, None), items, history);
        let view = trial.run.view(trial.now);
        let stands = ["applied", "unknown"].iter().any(|word| view.progress.effects.contains_key(*word));
        match view.outcome.unwrap() {
            Outcome::Compensated | Outcome::CompensatedWithManualSteps | Outcome::FailedClean | Outcome::Cancelled => {
                prop_assert!(!stands, "{view:#?}");
            }
            Outcome::FailedDirty => prop_assert!(stands, "{view:#?}"),
            Outcome::Succeeded | Outcome::PartiallyCompleted => {}
        }
    }

    #[test]
    fn past_its_pivot_no_run_is_undone_by_itself(
        drawn in workflows(), at in any::<usize>(), items in any::<u8>(), history in histories(),
    ) {
        let pivot = at % drawn.len();
        let trial = try_it(graph(&drawn, Some(pivot)), items, history);
        let mut passed = false;
        for event in trial.records.iter().flat_map(|record| &record.events) {
            match event {
                Event::Succeeded { step, .. } if *step.step == *format!("s{pivot}") => passed = true,
                Event::CompensationStarted { by: None, scope: None, .. } => prop_assert!(!passed, "undone past the pivot"),
                Event::WentForward { steps } if steps.iter().any(|step| **step == *format!("s{pivot}")) => passed = false,
                _ => {}
            }
        }
    }
}

proptest! {
    // A case is a hundred histories, each held to the rules of a rehearsal.
    #![proptest_config(ProptestConfig {
        failure_persistence: None, cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_is_rehearsed_only_its_definition_is_to_blame(
        drawn in workflows(), pivot in prop::option::of(any::<usize>()),
    ) {
        let pivot = pivot.map(|at| at % drawn.len());
        let found = rehearse(&Arc::new(graph(&drawn, pivot)), Bounds { faults: 2, traces: 100 });
        let of_definitions = ["nothing_left_behind", "ends_or_asks", "can_succeed"];
        let broken = found.defects.iter().find(|defect| !of_definitions.contains(&defect.rule));
        prop_assert!(broken.is_none(), "{found}");
    }
}
