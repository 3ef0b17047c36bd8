//! Applies events of attempts that ended without success, and of steps or items that ended without it.

use super::Run;
use super::apply::set_current;
use super::attempt::LEASE_EXPIRED;
use super::said::What;
use super::state::{AttemptCounters, MapStage, Stage, TaskState};
use crate::event::Fate;
use crate::protocol::{Failure, FailureKind};
use crate::{Action, StepPath};

impl Run {
    /// Ends an attempt without success: as its worker reported, or lost.
    pub(super) fn attempt_over(
        &mut self,
        path: &StepPath,
        action: Action,
        attempt: u32,
        error: &Failure,
        lost: bool,
    ) -> Option<usize> {
        self.change_at(path, |work| {
            let holder = match work.current() {
                Some((_, TaskState::Leased { worker, .. })) if error.code == LEASE_EXPIRED => {
                    Some(worker.clone())
                }
                _ => None,
            };
            let tries: &mut AttemptCounters = work.tries_mut(action);
            match (lost, error.kind) {
                (true, _) => tries.losses += 1,
                (false, kind) if kind.counts() => tries.failures += 1,
                (false, _) => tries.uncounted += 1,
            }
            set_current(work, action, TaskState::Nobody);
            let aside = work.aside_mut();
            aside.error = Some(error.clone());
            let may_have_happened = lost || error.kind == FailureKind::Unknown;
            aside.doubt |= action == Action::Forward && may_have_happened;
            if let Some(worker) = holder.filter(|_| lost) {
                aside.blame(worker, action, attempt);
            }
            aside.undo_doubt |= action == Action::Compensate && may_have_happened;
            if lost {
                aside.lost.push((action, attempt, false));
            } else {
                let (kind, code) = (error.kind, error.code.clone());
                work.note_report(action, attempt, What::Failed { kind, code });
            }
        })
    }

    /// Ends a work, or a map as a whole, without success.
    pub(super) fn gave_up(
        &mut self,
        path: &StepPath,
        fate: Fate,
        error: Option<&Failure>,
    ) -> Option<usize> {
        let step = self.graph.position(&path.step)?;
        if let (None, Some(items)) = (path.item, self.items_mut(step)) {
            items.stage =
                if fate == Fate::Cancelled { MapStage::Cancelled } else { MapStage::Failed };
            items.error = error.cloned();
            return self.settle(step);
        }
        let place = self.place(path)?;
        if let (Some(item), Some(items)) = (place.item, self.items_mut(step)) {
            items.next = items.next.max(item + 1);
        }
        self.change(place, |work| {
            work.revoke();
            if let Some(error) = error {
                work.aside_mut().error = Some(error.clone());
            }
            work.stage = match fate {
                Fate::Failed => Stage::Failed,
                Fate::Unknown => Stage::Unknown,
                Fate::Cancelled => Stage::Cancelled,
            };
        });
        self.settle_task(place)
    }
}
