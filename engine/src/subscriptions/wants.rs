//! Decides which events a subscription wants.

use std::collections::BTreeMap;

use backstitch_integration::document::Pointer;
use backstitch_integration::events::{Facts, Filter, Op, Trust, Verdict};
use backstitch_saga::protocol::{EventView, SubscriptionKind};

/// An event with what filters ask about it.
pub(super) struct Seen {
    pub(super) event: EventView,
    trust: Trust,
    changed: Vec<Pointer>,
    labels: BTreeMap<String, String>,
}

impl Seen {
    pub(super) fn new(event: EventView, trust: Trust) -> Seen {
        let changed = event.changed.iter().flatten();
        let labels = event.labels.iter().map(|(name, value)| (name.clone(), value.clone()));
        Seen {
            trust,
            changed: changed.filter_map(|place| Pointer::parse(place).ok()).collect(),
            labels: labels.collect(),
            event,
        }
    }

    /// Says whether a subscription of a kind wants the event.
    pub(super) fn verdict(&self, filter: &Filter, kind: SubscriptionKind) -> Verdict {
        let event = &self.event;
        let is_private = kind == SubscriptionKind::Consumer && follows_vendor(event);
        if event.noop || is_private {
            return Verdict::NoMatch;
        }
        filter.matches(&Facts {
            event_type: &event.event_type,
            op: event.op.and_then(|op| Op::of(op.letter())),
            changed: &self.changed,
            labels: &self.labels,
            source: &event.source,
            trust: self.trust,
        })
    }
}

/// Returns whether an event follows the contract of a vendor.
fn follows_vendor(event: &EventView) -> bool {
    event.contract.as_ref().is_some_and(|contract| contract.contains('.'))
}
