//! The effects of a run of `place-order`, taken from its view.

use backstitch_sdk::protocol::{Outcome, RunView, StepView};

use super::{Bill, Claim, RunStory, Says};
use crate::effect::Kind;

/// The step that is a fan-out; its effects are those of its items.
pub const FAN_OUT: &str = "stock";

/// Returns in whose ledger the effect of a step stands; `None` for steps that only read.
#[must_use]
pub fn service_of(step: &str) -> Option<Kind> {
    match step {
        "stock" => Some(Kind::Stock),
        "payment" => Some(Kind::Payment),
        "shipment" | "receipt" => Some(Kind::Shipping),
        _ => None,
    }
}

impl RunStory {
    /// Returns the effects in a run's view, and in the views of the items of its fan-out.
    #[must_use]
    pub fn told(order: &str, bill: Bill, view: &RunView, items: &[StepView]) -> RunStory {
        let tasks = view.steps.iter().filter(|step| &*step.step.step != FAN_OUT);
        let claims = tasks.chain(items).filter_map(claim).collect();
        let succeeded = view.outcome == Some(Outcome::Succeeded);
        RunStory { order: order.to_owned(), bill, succeeded, claims }
    }
}

fn claim(view: &StepView) -> Option<Claim> {
    let service = service_of(&view.step.step)?;
    let says = match (view.compensation.as_deref(), view.state.as_str()) {
        (Some("compensated" | "compensated_by_hand"), _) => Says::Reverted,
        (Some(_), _) => Says::Unknown,
        (None, "succeeded") => Says::Applied,
        (None, "failed" | "waiting" | "skipped" | "cancelled") => Says::NotApplied,
        (None, _) => Says::Unknown,
    };
    Some(Claim { step: view.step.to_string(), service, key: view.effect_key, says })
}
