//! Workflows written with the builder that say everything that a definition can say, and each thing in two ways.

use backstitch_sdk::protocol::{EventOp, OnConflict, OnWithdrawn};
use backstitch_sdk::{
    Class, Emits, Empty, InvalidWorkflow, Item, Jitter, Join, Losers, Milestone, OnFailure, OnKill,
    OnPause, OnTimeout, OnUnknown, Probe, Ref, Release, Retry, Signal, Span, Task, Timeouts,
    Timestamp, Tolerance, Undo, Workflow, constant, field, list, wire,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Trip {
    id: String,
    boss: String,
    cents: u64,
    express: bool,
    note: Option<String>,
    legs: Vec<Leg>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Leg {
    id: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Decision {
    approved: bool,
}

const BOOK: Task<Leg, String> = Task::new("book").queue("air");
const CANCEL: Undo<Leg, String> = Undo::new("cancel");
const FIND: Probe<Leg, String> = Probe::new("find");
const LOOK: Task<Trip, bool> = Task::new("look");
const PAY: Task<Trip, String> = Task::new("pay");
const REFUND: Undo<Trip, String> = Undo::new("refund");
const ASK: Probe<Trip, String> = Probe::new("ask").queue("bank");
const NOTE: Task<Vec<String>, ()> = Task::new("note");

/// Returns the definitions as they are sent to a server.
pub(super) fn all() -> Vec<Value> {
    let built = [small(), tasks(), fan_outs(), waits(), conditions(), events()];
    built.map(|workflow| serde_json::from_str(&workflow.unwrap()).unwrap()).into()
}

type Built = Result<String, InvalidWorkflow>;

fn json<In, Out>(workflow: Result<Workflow<In, Out>, InvalidWorkflow>) -> Built {
    workflow.map(|workflow| workflow.json())
}

fn small() -> Built {
    json(Workflow::<Leg, String>::build("small", 1, |saga, leg: Ref<Leg>| {
        saga.serial_key(field!(leg.id), OnConflict::Queue);
        saga.requires("leg.asked", field!(leg.id), OnWithdrawn::Ignore);
        saga.produces("leg.booked", field!(leg.id));
        saga.step("book", BOOK, &leg).pivot()
    }))
}

/// Everything about tasks, and about the run as a whole.
fn tasks() -> Built {
    json(Workflow::<Trip, String>::build("tasks", 2, |saga, trip: Ref<Trip>| {
        saga.description("Everything about tasks");
        saga.timeout(Span::hours(5));
        saga.on_timeout(OnTimeout::Incident);
        saga.compensable_for(Span::days(2));
        saga.end_within(Span::days(1));
        saga.undo_budget(Span::hours(1));
        saga.serial_key(field!(trip.boss), OnConflict::Coalesce);
        saga.requires("boss.hired", field!(trip.id), OnWithdrawn::Cancel);
        saga.requires("trip.asked", field!(trip.boss), OnWithdrawn::Incident);
        saga.requires_within(Span::hours(2));
        saga.produces("trip.paid", field!(trip.boss));
        let seen = saga
            .step("look", LOOK, &trip)
            .class(Class::ReadOnly)
            .on_unknown(OnUnknown::Incident)
            .on_failure(OnFailure::Continue)
            .retry(Retry::never());
        let retry = Retry::exponential(Span::millis(5)..Span::secs(9))
            .multiplier(3.0)
            .jitter(Jitter::Equal)
            .total(Span::minutes(3))
            .final_errors(["declined"]);
        let limits = Timeouts::default()
            .to_start(Span::secs(9))
            .attempt(Span::secs(10))
            .heartbeat(Span::secs(5))
            .step(Span::minutes(4));
        let paid = saga
            .step("pay", PAY, &trip)
            .after(&seen)
            .class(Class::Compensatable)
            .compensate(REFUND)
            .undo_retry(Retry::every(Span::secs(2)).jitter(Jitter::Decorrelated).forever())
            .alert_after(2)
            .slow_after(Span::minutes(2))
            .verify(ASK)
            .verify_retry(Retry::every(Span::secs(1)).max_attempts(4))
            .retry(retry)
            .timeouts(limits)
            .on_failure(OnFailure::Incident)
            .max_losses(7)
            .checked()
            .checked_output()
            .transactional();
        let doubt = saga
            .step("doubt", PAY, &trip)
            .compensate(REFUND)
            .on_unknown(OnUnknown::Compensate)
            .after(&paid);
        let last = saga.step("last", PAY, &trip).pivot().after(&doubt);
        saga.step("after", PAY, &trip).retriable().after(&last)
    }))
}

/// Returns each join, and all else about fan-outs.
fn fan_outs() -> Built {
    json(Workflow::<Trip, Vec<String>>::build("fan-outs", 1, |saga, trip: Ref<Trip>| {
        saga.serial_key(field!(trip.id), OnConflict::Replace);
        let keyed = saga
            .map("keyed", field!(trip.legs), BOOK, |leg: Item<Leg>| {
                leg.key(field!(leg.id));
                leg
            })
            .join(Join::Quorum(1))
            .empty(Empty::Fail)
            .max_concurrency(2)
            .losers(Losers::Cancel)
            .compensate(CANCEL)
            .verify(FIND);
        let joins = [
            ("any", Join::Any, Losers::Compensate),
            ("few", Join::Tolerate(Tolerance::Count(1)), Losers::Drain),
            ("share", Join::Tolerate(Tolerance::Ratio(0.5)), Losers::Drain),
            ("most", Join::Tolerate(Tolerance::Ratio(0.25)), Losers::Drain),
            ("some", Join::Tolerate(Tolerance::Count(2)), Losers::Drain),
            ("best", Join::BestEffort, Losers::Drain),
            ("two", Join::Quorum(2), Losers::Drain),
        ];
        for (id, join, losers) in joins {
            let map = saga.map(id, field!(trip.legs), BOOK, |leg| leg).join(join).losers(losers);
            let _ = map.empty(Empty::Succeed).compensate(CANCEL).after(&keyed);
        }
        let all = saga.map("all", field!(trip.legs), BOOK, |leg| leg).join(Join::All);
        all.empty(Empty::Fail).compensate(CANCEL)
    }))
}

/// Signals, sleeps, runs of other workflows, and failing on purpose.
fn waits() -> Built {
    let other = Workflow::<Trip, bool>::build("other", 3, |saga, trip: Ref<Trip>| {
        saga.step("look", LOOK, &trip).read_only()
    })?;
    json(Workflow::<Trip, bool>::build("waits", 1, |saga, trip: Ref<Trip>| {
        saga.serial_key(field!(trip.id), OnConflict::UseExisting);
        let one = Signal::<Decision>::new("approval")
            .timeout(Span::hours(2))
            .default_to(constant(Decision { approved: false }))
            .assignee(field!(trip.boss))
            .title("May it be?");
        let decided = saga.wait("one", one);
        let several = Signal::<Decision>::first_of(["yes", "no"])
            .or::<String>("withdrawn")
            .or::<u64>("later")
            .timeout(Span::hours(1))
            .on_failure(OnFailure::Continue);
        let answer = saga.wait("several", several).after(&decided);
        let _ = saga.wait("any", Signal::<bool>::new("any"));
        let pause = saga.sleep("pause", Span::secs(5)).when(answer.is("yes"));
        let until = constant("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
        let until = saga.sleep_until("until", until).after(&pause);
        let _ = saga
            .child("child", &other, &trip)
            .after(&until)
            .on_failure(OnFailure::Continue)
            .on_kill(OnKill::Leave)
            .on_pause(OnPause::Leave);
        let _ = saga
            .child("stops", &other, &trip)
            .on_kill(OnKill::Kill)
            .on_pause(OnPause::Pause)
            .on_failure(OnFailure::Compensate);
        let _ = saga
            .fail("withdrawn", "withdrawn", "the traveller has withdrawn it")
            .details::<String>(answer.data_as::<String>())
            .when(answer.is("withdrawn"));
        let _ = saga
            .fail("rejected", "rejected", "the boss has said no")
            .when(!field!(decided.approved));
        saga.child_named::<Trip, bool>("newest", "other", &trip)
    }))
}

/// Events of steps, and milestones.
fn events() -> Built {
    json(Workflow::<Trip, String>::build("events", 1, |saga, trip: Ref<Trip>| {
        use Milestone::{CompensationStarted, Ended, Incidents, Started, WentForward};
        saga.milestones([Started, Ended, CompensationStarted, WentForward, Incidents]);
        let each = saga.map("each", field!(trip.legs), BOOK, |leg| leg).compensate(CANCEL);
        let _ = each.empty(Empty::Succeed).emits(|booked| {
            let each = Emits::of("leg.booked").data::<String>(booked);
            each.release(Release::AtOnce).retract("leg.cancelled")
        });
        let leg = wire!(Leg { id: field!(trip.id) });
        saga.step("leg", BOOK, leg)
            .compensate(CANCEL)
            .emits(|booked| {
                Emits::of("trip.booked")
                    .about("trip", field!(trip.id))
                    .op(EventOp::U)
                    .contract("trip@1")
                    .data::<String>(booked)
                    .release(Release::AtOnce)
                    .retract("trip.cancelled")
                    .retract_op(EventOp::D)
                    .retract_data::<String>(field!(trip.id))
            })
            .emits(|_| {
                let seen = Emits::of("trip.seen").stream(field!(trip.id)).op(EventOp::S);
                seen.release(Release::AtPivot).retract("trip.unseen")
            })
            .emits(|_| Emits::of("trip.made").about("trip", field!(trip.id)).op(EventOp::C))
            .emits(|_| Emits::of("trip.done").release(Release::AtSuccess))
    }))
}

/// Returns each operator of expressions.
fn conditions() -> Built {
    json(Workflow::<Trip, ()>::build("conditions", 1, |saga, trip: Ref<Trip>| {
        saga.serial_key(field!(trip.id), OnConflict::Reject);
        let cents = || field!(trip.cents);
        let compared = cents().lt(1).or(cents().le(2)) | cents().gt(3) | cents().ge(4);
        let guard = compared.and(field!(trip.id).ne("x")) & !field!(trip.express);
        let guard = guard & field!(trip.boss).eq("ann") & field!(trip.note).exists();
        let guard = guard & field!(trip.legs).length().gt(0);
        let leg = saga.step("leg", BOOK, wire!(Leg { id: field!(trip.id) })).compensate(CANCEL);
        let notes = list([field!(trip.note).unwrap_or("none"), field!(trip.id)]);
        saga.step("note", NOTE, notes).when(guard).after(&leg).pivot()
    }))
}
