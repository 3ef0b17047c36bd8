//! Notifications between parent and child runs: pauses and kills.
//!
//! A notification stays pending in the journal of the parent until the child has acknowledged it, so that another node
//! sends it if one dies. Notifications are numbered: a late one changes nothing.

use super::ChildEnd;
use super::decide::{TransitionBuilder, own_failure};
use super::state::{Activity, Stage, TaskState, Told, WorkIndex};
use super::waits::{ASK_AGAIN, ChildAsk};
use super::{Mode, Run};
use crate::event::{By, Descent, Event, ParentWord};
use crate::protocol::{Failure, Outcome};
use crate::{
    Action, Body, Child, DEEPEST_DESCENDANT, Hold, HoldKind, OnKill, OnPause, Refusal, RunId,
    StepPath, Time,
};

/// The name of the hold of a run whose parent is paused.
const PARENT: &str = "parent";
/// Reason of the hold, for people.
const PARENT_PAUSED: &str = "its parent is paused";

/// A notification to a child.
#[derive(Clone, Debug)]
pub struct ChildWord {
    /// The child, and its start if it has not begun.
    pub ask: ChildAsk,
    /// The notification.
    pub word: ParentWord,
    /// The number of the word.
    pub order: u32,
    /// Who, and why.
    pub by: By,
}

impl Run {
    /// Returns the place of this run among those that belong together.
    #[must_use]
    pub fn descent(&self) -> Descent {
        let origin = self.header.origin.as_ref();
        let known = origin.and_then(|origin| origin.descent);
        // A run of an earlier version does not know it.
        let depth = u32::from(self.parent().is_some());
        known.unwrap_or(Descent { depth, ..Descent::default() })
    }

    /// Returns the place of each child of this run.
    pub(super) fn descent_of_children(&self) -> Descent {
        self.descent().of_child(self.graph.children())
    }

    /// Returns the hold, with a message for people, with which a child begins now; `None` unless this run is paused and
    /// takes the child along.
    #[must_use]
    pub fn hold_of_child(&self, step: &StepPath) -> Option<(Hold, String)> {
        let child = self.child_at(self.place(step)?)?;
        (self.is_paused() && child.on_pause == OnPause::Pause)
            .then(|| (Hold::new(HoldKind::ParentPaused, PARENT), PARENT_PAUSED.to_owned()))
    }

    /// Returns the pending notification to the child at `step`; `None` if there is none.
    #[must_use]
    pub fn child_word(&self, step: &StepPath) -> Option<ChildWord> {
        let work = self.work(self.place(step)?)?;
        let told = work.aside.as_ref()?.told.as_ref()?;
        let ask = self.ask_of(step, Action::Forward, told.run, told.again?)?;
        let reason = match told.word {
            ParentWord::Paused => self.who_paused(),
            ParentWord::Resumed => "its parent goes on".to_owned(),
            ParentWord::Killed | ParentWord::Left => {
                let by = self.header.killed_by.as_ref();
                let who =
                    by.map_or_else(String::new, |by| format!(" by {}: {}", by.actor, by.reason));
                format!("its parent was killed{who}")
            }
        };
        let by = By { actor: format!("run:{}", self.id).into(), reason };
        Some(ChildWord { ask, word: told.word, order: told.order, by })
    }

    /// Returns the children that were left at work when this run was killed, and those that work on while it is paused.
    pub(super) fn children_left(&self) -> Vec<RunId> {
        let paused = self.is_paused();
        let left = |place: WorkIndex| {
            let told = self.work(place)?.aside.as_ref().and_then(|aside| aside.told.as_ref());
            if let Some(told) = told.filter(|told| told.word == ParentWord::Left) {
                return Some(told.run);
            }
            let (_, run) = self.at_work(place)?;
            (paused && self.child_at(place)?.on_pause == OnPause::Leave).then_some(run)
        };
        self.places().filter_map(left).collect()
    }

    fn who_paused(&self) -> String {
        let pause = self.header.holds.iter().find(|held| !held.hold.kind.is_forward_only());
        pause.map_or_else(
            || PARENT_PAUSED.to_owned(),
            |held| match &held.by {
                Some(by) => format!("paused by {}: {}", by.actor, by.reason),
                None => held.message.clone(),
            },
        )
    }

    fn child_at(&self, place: WorkIndex) -> Option<&Child> {
        match &self.graph.nodes[place.step].body {
            Body::Child(child) => Some(child),
            _ => None,
        }
    }

    /// Returns whether the child `run` was requested to do `action` and has not ended.
    pub(super) fn is_at_work(&self, place: WorkIndex, action: Action, run: RunId) -> bool {
        self.at_work(place) == Some((action, run))
    }

    /// Returns the child at `place` that was asked to do something, and has not ended.
    fn at_work(&self, place: WorkIndex) -> Option<(Action, RunId)> {
        match self.work(place)?.current()? {
            (action, TaskState::Child { run, .. }) => Some((action, *run)),
            _ => None,
        }
    }

    /// Returns the children that may be running: requested without an answer, or given up before their undo is
    /// requested.
    pub(super) fn children_at_work(&self) -> Vec<(WorkIndex, RunId)> {
        let given_up = |place: WorkIndex| {
            let work = self.work(place)?;
            let may = work.stage == Stage::Unknown && !work.undo.is_over();
            self.child_of(place).filter(|_| may)
        };
        let run = |place| self.at_work(place).map(|(_, run)| run).or_else(|| given_up(place));
        self.places().filter_map(|place| Some((place, run(place)?))).collect()
    }

    /// Applies events of notifications.
    pub(super) fn family_changed(&mut self, event: &Event, at: Time) {
        match event {
            Event::ChildTold { step, run, word, order, again } => {
                let Some(place) = self.place(step) else { return };
                let (run, word, order, again) = (*run, *word, *order, Some(*again));
                self.change(place, |work| {
                    let told = &mut work.aside_mut().told;
                    let same = told.as_ref().filter(|told| told.order == order);
                    let since = same.map_or(at, |told| told.since);
                    *told = Some(Told { run, word, order, since, again });
                });
            }
            Event::ChildHeard { step, order } => {
                let Some(place) = self.place(step) else { return };
                self.change(place, |work| {
                    let told = work.aside_mut().told.as_mut();
                    if let Some(told) = told.filter(|told| told.order == *order) {
                        told.again = None;
                    }
                });
            }
            Event::ParentHeard { word, order, reason } => {
                self.header.parent_heard = *order;
                if *word == ParentWord::Left {
                    self.header.orphaned = Some((reason.clone(), at));
                }
            }
            _ => {}
        }
    }
}

impl Activity {
    /// Asks the child to undo what it did: that it was to be killed, or left, matters no more.
    pub(super) fn forget_kill(&mut self) {
        let told = self.aside.as_mut().and_then(|aside| aside.told.as_mut());
        let kill = |told: &&mut Told| matches!(told.word, ParentWord::Killed | ParentWord::Left);
        if let Some(told) = told.filter(kill) {
            told.again = None;
        }
    }
}

impl TransitionBuilder<'_> {
    /// Refuses a child that would be too deep, or one too many of those that descend from one run.
    pub(super) fn may_have_child(&self, step: usize) -> Result<(), Failure> {
        let Descent { depth, budget } = self.run.descent();
        if depth >= DEEPEST_DESCENDANT {
            let message = format!(
                "a run may stand at most {DEEPEST_DESCENDANT} levels below the first; a workflow that starts itself needs a \
                 condition that ends it"
            );
            return Err(own_failure("child_too_deep", message));
        }
        let nodes = self.run.graph.nodes.iter().take(step);
        let before = nodes.filter(|node| matches!(node.body, Body::Child(_))).count();
        if before >= budget as usize {
            let message = format!(
                "this run may have {budget} descendants: those of the first run are shared out equally among all that \
                 descend from it; start fewer, or raise the limit of the server"
            );
            return Err(own_failure("too_many_descendants", message));
        }
        Ok(())
    }

    /// Tells a child something, for the first time.
    fn tell_child(&mut self, place: WorkIndex, run: RunId, word: ParentWord) {
        let told = self.work(place).and_then(|work| work.aside.as_ref()?.told.as_ref());
        let order = told.map_or(0, |told| told.order) + 1;
        let (step, again) = (self.run.path(place), self.now().after(ASK_AGAIN.0));
        self.emit(Event::ChildTold { step, run, word, order, again });
    }

    /// Tells a child once more what it has not answered, if the time for that has come.
    pub(super) fn told_again(&mut self, place: WorkIndex) -> bool {
        let now = self.now();
        let told = self.work(place).and_then(|work| work.aside.as_ref()?.told.clone());
        let Some(Told { run, word, order, since, again: Some(again) }) = told else { return false };
        if again > now {
            return false;
        }
        let again = now.after(now.since(since).clamp(ASK_AGAIN.0, ASK_AGAIN.1));
        let step = self.run.path(place);
        self.emit(Event::ChildTold { step, run, word, order, again });
        true
    }

    /// Tells the children that were at work that the run was killed: they are killed or left.
    pub(super) fn tell_killed(&mut self, children: Vec<(WorkIndex, RunId)>) {
        for (place, run) in children {
            let policy = self.run.child_at(place).map(|child| child.on_kill).unwrap_or_default();
            let word = match policy {
                OnKill::Kill => ParentWord::Killed,
                OnKill::Leave => ParentWord::Left,
            };
            self.tell_child(place, run, word);
        }
    }

    /// Tells the children that the run was paused.
    pub(super) fn tell_paused(&mut self) {
        for (place, run) in self.run.children_at_work() {
            if self.run.child_at(place).is_some_and(|child| child.on_pause == OnPause::Pause) {
                self.tell_child(place, run, ParentWord::Paused);
            }
        }
    }

    /// Notifies the children that the run goes on.
    pub(super) fn tell_resumed(&mut self) {
        for place in self.run.places().collect::<Vec<_>>() {
            let told = self.work(place).and_then(|work| work.aside.as_ref()?.told.as_ref());
            if let Some(Told { run, word: ParentWord::Paused, .. }) = told {
                self.tell_child(place, *run, ParentWord::Resumed);
            }
        }
    }

    /// Records the acknowledgement of a child. One of an earlier notification changes nothing.
    pub(super) fn child_heard(
        &mut self,
        step: &StepPath,
        child: RunId,
        order: u32,
    ) -> Result<(), Refusal> {
        let place = self.place(step)?;
        let told = self.work(place).and_then(|work| work.aside.as_ref()?.told.as_ref());
        let open = told
            .is_some_and(|told| told.run == child && told.order == order && told.again.is_some());
        if open {
            self.emit(Event::ChildHeard { step: step.clone(), order });
        }
        Ok(())
    }

    /// Records the end of a child that was killed with this run. If no effect of it remains, none of its step
    /// does.
    pub(super) fn killed_child_ended(&mut self, place: WorkIndex, child: RunId, end: &ChildEnd) {
        let Some(work) = self.work(place) else { return };
        let told = work.aside.as_ref().and_then(|aside| aside.told.as_ref());
        let killed = told.is_some_and(|told| told.run == child && told.word == ParentWord::Killed);
        if !killed || end.stands || !work.may_stand() {
            return;
        }
        let by_hand = end.outcome == Outcome::CompensatedWithManualSteps;
        self.emit(Event::Undone { step: self.run.path(place), attempt: 0, by_hand });
        self.less_is_left();
    }

    /// Handles a notification of the parent. It does not affect a run that has ended.
    pub(super) fn parent_says(
        &mut self,
        word: ParentWord,
        order: u32,
        by: By,
    ) -> Result<(), Refusal> {
        if self.run.header.mode == Mode::Ended || order <= self.run.header.parent_heard {
            return Ok(());
        }
        self.emit(Event::ParentHeard { word, order, reason: by.reason.clone() });
        let hold = Hold::new(HoldKind::ParentPaused, PARENT);
        match word {
            ParentWord::Paused => self.hold(hold, Some(by), PARENT_PAUSED.to_owned()),
            ParentWord::Resumed => self.unhold(Some(&hold), Some(&by)),
            ParentWord::Killed => self.kill(by),
            ParentWord::Left => Ok(()),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) fn is_zero(count: &u32) -> bool {
    *count == 0
}
