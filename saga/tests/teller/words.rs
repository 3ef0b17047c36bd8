//! Events and views in the words of a story.

use backstitch_saga::protocol::{Failure, Forward, Plan, RerunPlan};
use backstitch_saga::{Emission, Event, Record, Refusal, Run, Source, Time};

/// Describes one event.
pub(crate) fn event(event: &Event, record: &Record) -> String {
    match event {
        Event::Started(_) => "started".to_owned(),
        Event::Labelled { set, removed, by } => {
            let set: Vec<String> =
                set.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("labelled by {}: {} without {}", by.actor, set.join(" "), removed.join(" "))
        }
        Event::Erased(erasure) => format!("erased by {}", erasure.by.actor),
        Event::Skipped { step, missing: None } => format!("skipped {step}"),
        Event::Skipped { step, missing: Some(missing) } => {
            format!("skipped {step}, without {missing}")
        }
        Event::Opened { step, total, keys: None, .. } => format!("opened {step}, {total} items"),
        Event::Opened { step, total, keys: Some(keys), .. } => {
            let keys = record.payloads[keys.0 as usize].text();
            format!("opened {step}, {total} items {keys}")
        }
        Event::Deferred { step } => format!("deferred {step}"),
        Event::Offered { step, action, attempt, input } => {
            let input = input
                .as_ref()
                .map_or(String::new(), |source| format!(" with {}", document(source, record)));
            format!("offered {} {step} #{attempt}{input}", action.as_str())
        }
        Event::Leased { step, action, attempt, until, .. } => {
            format!("leased {} {step} #{attempt} until {}", action.as_str(), at(*until))
        }
        Event::Released { step, action, attempt } => {
            format!("released {} {step} #{attempt}", action.as_str())
        }
        Event::Beat { step, action, attempt, until, unheard: true, .. } => {
            format!("unheard {} {step} #{attempt} until {}", action.as_str(), at(*until))
        }
        Event::Beat { step, action, attempt, until, .. } => {
            format!("beat {} {step} #{attempt} until {}", action.as_str(), at(*until))
        }
        Event::Succeeded { step, output, .. } => {
            format!("succeeded {step} {}", record.payloads[output.0 as usize].text())
        }
        Event::Failed { step, action, attempt, error, .. } => {
            format!("failed {} {step} #{attempt}: {}", action.as_str(), failure(error))
        }
        Event::Lost { step, action, attempt, error } => {
            format!("lost {} {step} #{attempt}: {}", action.as_str(), failure(error))
        }
        Event::RetryScheduled { step, action, attempt, at: when } => {
            format!("retry {} {step} #{attempt} at {}", action.as_str(), at(*when))
        }
        Event::NotHappened { step, .. } => format!("not happened {step}"),
        Event::Happened { step, .. } => format!("happened {step}"),
        Event::GaveUp { step, fate, error } => {
            let why = error.as_ref().map_or(String::new(), |error| format!(": {}", failure(error)));
            format!("gave up {step}, {fate:?}{why}").to_lowercase()
        }
        Event::Migrated { version, .. } => format!("migrated to version {version}"),
        Event::Parked { step } => format!("parked {step}"),
        Event::RetryRequested { by } => format!("retry requested by {}", by.actor),
        Event::Resumed { step } => format!("resumed {step}"),
        Event::Joined { step, succeeded } => {
            format!("joined {step}, {}", if *succeeded { "succeeded" } else { "failed" })
        }
        Event::RunFailed { step, error } => {
            let step = step.as_ref().map_or_else(|| "the run".to_owned(), ToString::to_string);
            format!("run failed at {step}: {}", failure(error))
        }
        Event::CompensationStarted { cause, steps, .. } => {
            format!("compensation started, {cause:?}: {}", steps.join(" ")).to_lowercase()
        }
        Event::UndoRequested { step } => format!("undo requested {step}"),
        Event::Undone { step, by_hand: true, .. } => format!("undone {step}, by hand"),
        Event::Undone { step, .. } => format!("undone {step}"),
        Event::UndoBlocked { step } => format!("undo blocked {step}"),
        Event::UndoMarked { step, by } => format!("undo of {step} vouched for by {}", by.actor),
        Event::InputEdited { step, input, new_key } => {
            let key = if *new_key { ", with a new effect key" } else { "" };
            format!("input of {step} is now {}{key}", record.payloads[input.0 as usize].text())
        }
        Event::SkippedByHand { step, output, by } => {
            let output = output.map_or(String::new(), |slot| {
                format!(", with {}", record.payloads[slot.0 as usize].text())
            });
            format!("{step} skipped by {}{output}", by.actor)
        }
        Event::ResolvedByHand { step, by } => format!("{step} resolved by {}", by.actor),
        Event::SignalAwaited { step, signal, or, until, assignee } => {
            let until = until.map_or(String::new(), |until| format!(" until {}", at(until)));
            let from = assignee.as_ref().map_or(String::new(), |who| format!(" from {who}"));
            let or: String = or.iter().map(|other| format!(" or {other}")).collect();
            format!("{step} awaits the signal {signal}{or}{from}{until}")
        }
        Event::Signalled { signal, data, by } => {
            let data = record.payloads[data.0 as usize].text();
            format!("signal {signal} from {}: {data}", by.actor)
        }
        Event::SignalRefused { signal, by, message, .. } => {
            format!("signal {signal} from {} refused: {message}", by.actor)
        }
        Event::OutputUnchecked { output, again } => {
            let output = output.map_or("", |slot| record.payloads[slot.0 as usize].text());
            format!("output unchecked {output}, again at {}", at(*again))
        }
        Event::Emitted(emission) => emitted(emission, record),
        Event::SleepBegan { step, until } => format!("{step} sleeps until {}", at(*until)),
        Event::ChildAsked { step, action, attempt, again, .. } => {
            format!("child {step} #{attempt} asked, {}, again at {}", action.as_str(), at(*again))
        }
        Event::FactWithdrawn { fact, .. } => format!("withdrawn, {fact}"),
        Event::FactRestored { fact, by } => {
            let by = by.as_ref().map_or(String::new(), |by| format!(", by {}", by.actor));
            format!("no longer withdrawn, {fact}{by}")
        }
        Event::ChildTold { step, word, order, again, .. } => {
            let word = format!("{word:?}").to_lowercase();
            format!("child {step} told #{order}, {word}, again at {}", at(*again))
        }
        Event::ChildHeard { step, order } => format!("child {step} heard #{order}"),
        Event::ParentHeard { word, order, .. } => {
            format!("heard #{order} of its parent, {word:?}").to_lowercase()
        }
        Event::RerunRequested { from, by, only_failed: true, .. } => {
            format!("rerun of the failed items of {from} by {}", by.actor)
        }
        Event::RerunRequested { from, by, .. } => format!("rerun from {from} by {}", by.actor),
        Event::WentForward { steps } => format!("went forward: {}", steps.join(" ")),
        Event::Held { hold, message, .. } => format!("held, {}: {message}", hold.name),
        Event::Unheld { hold, .. } => format!("no longer held, {}", hold.name),
        Event::CancelRequested { by } => format!("cancel requested by {}", by.actor),
        Event::Killed { by } => format!("killed by {}", by.actor),
        Event::TimedOut => "timed out".to_owned(),
        Event::IncidentOpened { incident, kind, message, .. } => {
            format!("incident {incident} opened: {}: {message}", kind.as_str())
        }
        Event::IncidentResolved { incident } => format!("incident {incident} resolved"),
        Event::LateResult { step, action, attempt, contradicts: true, .. } => {
            format!("contradicted {} {step} #{attempt}", action.as_str())
        }
        Event::LateResult { step, action, attempt, .. } => {
            format!("late result {} {step} #{attempt}", action.as_str())
        }
        Event::Ended { outcome, output } => {
            let output = output.map_or(String::new(), |slot| {
                format!(" with {}", record.payloads[slot.0 as usize].text())
            });
            format!("ended {}{output}", outcome.as_str())
        }
    }
}

fn document(source: &Source, record: &Record) -> String {
    match source {
        Source::Slot(slot) => record.payloads[slot.0 as usize].text().to_owned(),
        Source::Same(pointer) => pointer.clone(),
    }
}

fn failure(error: &Failure) -> String {
    format!("{} ({:?})", error.code, error.kind).to_lowercase()
}

fn at(time: Time) -> String {
    format!("{}s", time.0 as f64 / 1_000.0)
}

/// Describes the view of the run, and checks that its parts sum to the total.
pub(crate) fn show(run: &Run, now: Time) -> Vec<String> {
    let view = run.view(now);
    assert_eq!(view.progress.steps.values().sum::<u32>(), view.progress.steps_total, "{view:?}");
    assert_eq!(view.progress.items.values().sum::<u32>(), view.progress.items_total, "{view:?}");
    let outcome = view.outcome.map_or("-", |outcome| outcome.as_str());
    let mut lines = vec![format!("{} {outcome}: {}", view.state.as_str(), view.summary)];
    lines.push(format!("effects {:?}", view.progress.effects));
    for step in &view.steps {
        let undo = step.compensation.as_deref().map_or(String::new(), |undo| format!(", {undo}"));
        let items =
            if step.items.is_empty() { String::new() } else { format!(" {:?}", step.items) };
        lines.push(format!("{}: {}{undo}{items}", step.step, step.state));
    }
    lines.extend(
        view.conditions
            .iter()
            .map(|condition| format!("{}: {}", condition.kind, condition.message)),
    );
    lines
}

/// Describes a plan.
pub(crate) fn plan(plan: Result<Plan, Refusal>) -> Vec<String> {
    let plan = match plan {
        Ok(plan) => plan,
        Err(refusal) => return vec![format!("refused: {}", refusal.code.as_str())],
    };
    let mut lines: Vec<String> = plan
        .steps
        .iter()
        .map(|undo| {
            let forward = match &undo.forward {
                Forward::Succeeded(output) => format!("succeeded with {}", output.text()),
                Forward::Unknown => "unknown".to_owned(),
            };
            format!(
                "wave {}: {} {}, {forward}, input {}",
                undo.wave,
                undo.name,
                undo.step,
                undo.input.text()
            )
        })
        .collect();
    lines.extend(plan.irreversible.iter().map(|step| format!("irreversible: {step}")));
    if plan.past_pivot {
        lines.push("past the pivot".to_owned());
    }
    lines
}

/// Describes what a rerun of failed items would do.
pub(crate) fn rerun_plan(found: Result<RerunPlan, Refusal>) -> Vec<String> {
    match found {
        Err(refusal) => vec![format!("refused: {}: {}", refusal.code.as_str(), refusal.message)],
        Ok(RerunPlan { undo, again, items }) => {
            let mut lines = plan(Ok(undo));
            lines.push(format!("again: {}", again.join(" ")));
            lines.extend(items.map(|items| format!("items executed again: {items}")));
            lines
        }
    }
}

fn emitted(emission: &Emission, record: &Record) -> String {
    let Emission { event_type, retracts, stream, op, error, .. } = emission;
    let step = emission.path();
    let about = stream.as_ref().map_or(String::new(), |stream| format!(" about {stream}"));
    let op = op.map_or(String::new(), |op| format!(" ({})", op.letter()));
    let instead = retracts.as_ref().map_or(String::new(), |one| format!(" taking back {one}"));
    let data = match error {
        Some(error) => format!("without data: {error}"),
        None => record.payloads[emission.data.0 as usize].text().to_owned(),
    };
    format!("{step} emits {event_type}{op}{about}{instead}: {data}")
}
