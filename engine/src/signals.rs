//! Signals for runs: by the run's id, or by its business key, also before there is a run.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use backstitch_saga::protocol::{Plan, RerunItems, RerunPlan, SendSignalByKey, SignalSent};
use backstitch_saga::{By, Command, Payload, Refusal, RefusalCode, Run, RunId, Time, Violation};

use futures::StreamExt;
use sqlx::postgres::PgConnection;

use crate::crash::commit;
use crate::node::Node;
use crate::rounds::in_turns;
use crate::schemas::limits::VIOLATIONS;
use crate::store::quotas::Counted;
use crate::store::signals::{self, EarlySignal, KeyOf};
use crate::store::{forget, keys};
use crate::{Engine, Error, quotas, reads};

/// Number of kept signals of each namespace in one page.
const AT_ONCE: i64 = 500;
/// Number of such pages in one pass.
const PAGES: usize = 20;
/// Number of runs to which they are delivered concurrently.
const SIDE_BY_SIDE: usize = 16;
/// Number of signals of a run that are read together.
const OF_RUN: i64 = 20;
/// Number of times that a signal is checked again because its run was moved in between.
const CHECKS: usize = 5;
/// Number of mistakes in a signal that are recorded in its run.
const TOLD: usize = 5;
/// After so many days a signal for a run that was never started is forgotten.
pub(crate) const KEEP_DAYS: u64 = 30;
pub(crate) const KEEP: Duration = Duration::from_secs(KEEP_DAYS * 86_400);

impl Engine {
    /// Sends a signal to a run. The first of its name counts.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when a step that waits for it wants other data; [`Error::Refused`] when
    /// it came before, or nothing waits for it.
    pub async fn signal(
        &self,
        namespace: &str,
        run: RunId,
        name: &str,
        data: Payload,
        by: By,
    ) -> Result<(), Error> {
        signal(self.node(), namespace, run, name, data, by).await
    }

    /// Sends a signal to the run that a business key started. When there is none yet, it is held to the newest version
    /// of the workflow, and kept for 30 days until there is.
    ///
    /// # Errors
    /// As [`Engine::signal`]; [`Error::NotFound`] when there is no such workflow.
    pub async fn signal_key(
        &self,
        namespace: &str,
        ask: SendSignalByKey,
        by: By,
    ) -> Result<SignalSent, Error> {
        let node = self.node();
        if let Some(run) = run_of(node, namespace, &ask).await? {
            signal(node, namespace, run, &ask.signal, ask.data, by).await?;
            return Ok(SignalSent { run: Some(run) });
        }
        check_early(node, namespace, &ask).await?;
        quotas::check(node, namespace, Counted::EarlySignals, 1).await?;
        let early = EarlySignal {
            namespace: namespace.to_owned(),
            workflow: ask.workflow.clone(),
            key: ask.key.clone(),
            signal: ask.signal.clone(),
            data: ask.data.text().to_owned(),
            actor: by.actor.to_string(),
        };
        let mut connection = node.database.reader(namespace).await?;
        let kept = commit!("signals_keep", signals::keep(&mut connection, &early).await)?;
        let same = Payload::trusted(kept.0).is_ok_and(|data| data.is_same_as(&ask.data));
        if !same || kept.1 != early.actor {
            let message = format!("the signal '{}' came before, from {}", ask.signal, kept.1);
            return Err(Error::Refused(Refusal::new(RefusalCode::AlreadySignalled, message)));
        }
        Ok(SignalSent { run: None })
    }

    /// Returns what a rerun from a step would undo and repeat, with one page of its undos.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`], [`Error::Invalid`] for a cursor of another list.
    pub async fn rerun_plan(
        &self,
        namespace: &str,
        run: RunId,
        from: &str,
        items: RerunItems,
        after: Option<&str>,
        limit: u32,
    ) -> Result<RerunPlan, Error> {
        let (from, now) = (from.to_owned(), self.node().clock.now());
        let page = reads::plan_page(after, limit)?;
        let plan = reads::read(self.node(), namespace, run, move |run| {
            run.rerun_plan(&from, items == RerunItems::Failed, now, &page)
        });
        let plan = plan.await??;
        let dependents = reads::dependents(self.node(), namespace, run).await?;
        Ok(RerunPlan { undo: Plan { dependents, ..reads::with_cursor(plan.undo) }, ..plan })
    }
}

/// Checks a signal for a run that is yet to be started as the newest version of its workflow would.
async fn check_early(node: &Node, namespace: &str, ask: &SendSignalByKey) -> Result<(), Error> {
    ask.data.check(node.options.payload_limit).map_err(misplaced)?;
    let database = &node.database;
    let workflow = node.definitions.resolve(database, namespace, &ask.workflow, None).await?;
    let run = Run::new(RunId(uuid::Uuid::nil()), Arc::clone(&workflow.graph));
    let schemas = owned(run.signal_schemas(&ask.signal)?);
    hold_to(node, namespace, &schemas, &ask.data).await
}

fn owned(schemas: Vec<(&Arc<str>, &Payload)>) -> Vec<(Arc<str>, Payload)> {
    schemas.into_iter().map(|(step, schema)| (Arc::clone(step), schema.clone())).collect()
}

/// Holds the data of a signal to the schemas of the steps that wait for it. Everything wrong names the step.
async fn hold_to(
    node: &Node,
    namespace: &str,
    schemas: &[(Arc<str>, Payload)],
    data: &Payload,
) -> Result<(), Error> {
    let mut wrong = Vec::new();
    for (step, schema) in schemas {
        let held = node.schemas.check(namespace, schema, data, "/data", "invalid_data").await;
        match held {
            Err(Error::Invalid { code: "invalid_data", violations }) => {
                wrong.extend(violations.into_iter().map(|one| Violation {
                    message: format!("{}, by the schema of the step '{step}'", one.message),
                    ..one
                }));
            }
            held => held?,
        }
    }
    wrong.truncate(VIOLATIONS);
    let violations = wrong;
    if violations.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid { code: "invalid_data", violations })
}

/// Describes, for its run, the reason for which an accepted signal cannot be taken: the mistakes and their
/// places.
pub(crate) fn why(error: &Error) -> String {
    let Error::Invalid { code, violations } = error else { return error.to_string() };
    let mut told: Vec<String> = violations.iter().take(TOLD).map(ToString::to_string).collect();
    if violations.len() > TOLD {
        told.push(format!("and {} more", violations.len() - TOLD));
    }
    format!("{code}: {}", told.join("; "))
}

async fn run_of(
    node: &Node,
    namespace: &str,
    ask: &SendSignalByKey,
) -> Result<Option<RunId>, Error> {
    let key = (namespace.to_owned(), ask.key.clone(), ask.workflow.clone());
    let mut connection = node.database.reader(namespace).await?;
    let found = keys::find(&mut connection, std::slice::from_ref(&key)).await?;
    Ok(found.get(&key).map(|holder| holder.run))
}

/// Sends a run a signal, behind those that came before the run did.
pub(crate) async fn signal(
    node: &Arc<Node>,
    namespace: &str,
    run: RunId,
    name: &str,
    data: Payload,
    by: By,
) -> Result<(), Error> {
    let mut connection = node.database.reader(namespace).await?;
    let kept = signals::key_of(&mut connection, namespace, run).await?;
    drop(connection);
    if let Some(of) = kept
        && !bring_kept(node, run, &of).await?.all
    {
        return Err(Error::Busy);
    }
    tell(node, namespace, run, name, data, by).await
}

/// Tells a run of a signal, held to the schemas of the steps that wait for it.
async fn tell(
    node: &Arc<Node>,
    namespace: &str,
    run: RunId,
    name: &str,
    data: Payload,
    by: By,
) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        let version = held(node, namespace, run, name, &data, |_| Ok(())).await?;
        let (data, by, checked) = (data.clone(), by.clone(), Some(version));
        let command = Command::Signal { name: name.into(), data, by, checked };
        match node.ask(namespace, run, command).await {
            // The run was moved in between: what the new version asks for counts.
            Err(Error::Refused(one))
                if one.code == RefusalCode::SignalUnchecked && tries < CHECKS =>
            {
                tries += 1;
            }
            answer => return answer.map(drop),
        }
    }
}

/// Refuses a signal as it would be refused now.
pub(crate) async fn foresee(
    node: &Arc<Node>,
    namespace: &str,
    run: RunId,
    name: &str,
    data: Payload,
    by: By,
) -> Result<(), Error> {
    let (now, signal, given) = (node.clock.now(), Arc::from(name), data.clone());
    let refuse = move |run: &Run| {
        let (name, data, by) = (Arc::clone(&signal), given.clone(), by.clone());
        run.check_command(Command::Signal { name, data, by, checked: Some(run.version()) }, now)
    };
    held(node, namespace, run, name, &data, refuse).await.map(drop)
}

/// Holds a signal to the schemas of the steps that wait for it, and to what else refuses it now. Returns the version of
/// the run that it was held to.
async fn held(
    node: &Arc<Node>,
    namespace: &str,
    run: RunId,
    name: &str,
    data: &Payload,
    refuse: impl Fn(&Run) -> Result<(), Refusal> + Send + Sync + 'static,
) -> Result<u32, Error> {
    data.check(node.options.payload_limit).map_err(misplaced)?;
    let asked = name.to_owned();
    let read = reads::read(node, namespace, run, move |run| {
        run.check_not_erased()?;
        let schemas = owned(run.signal_schemas(&asked)?);
        refuse(run)?;
        Ok::<(u32, Vec<(Arc<str>, Payload)>), Refusal>((run.version(), schemas))
    });
    let (version, schemas) = read.await??;
    hold_to(node, namespace, &schemas, data).await?;
    Ok(version)
}

fn misplaced(violation: Violation) -> Error {
    let pointer = format!("/data{}", violation.pointer);
    Error::invalid("invalid_data", Violation { pointer, ..violation })
}

/// Delivers kept signals to runs that have been started since, in turns between namespaces. Returns their number. A
/// node that dies in between leaves the signal where it was; the run recognizes a repeated one. Signals that cannot be
/// delivered now stay, and delay only later ones of their run.
pub(crate) async fn deliver(node: &Arc<Node>) -> Result<usize, Error> {
    let places = &node.last_turns.signals;
    let (mut brought, mut after) = (0, String::new());
    // In each namespace the look ends where its signals do.
    let mut over: HashSet<String> = HashSet::new();
    for _ in 0..PAGES {
        let mut connection = node.database.keepers.acquire().await?;
        let all = places.all();
        let looked = signals::deliverable(&mut connection, AT_ONCE, &after, &all).await?;
        drop(connection);
        for (namespace, place) in &looked.places {
            if place.is_none() {
                over.insert(namespace.clone());
            }
            places.set(namespace, place.clone());
        }
        let more = looked.places.iter().any(|(namespace, _)| !over.contains(namespace));
        let found = in_turns(looked.found, "", |(_, of)| &of.namespace);
        let kept: Vec<Result<Kept, Error>> = futures::stream::iter(found)
            .map(async |(run, of)| bring_kept(node, run, &of).await)
            .buffered(SIDE_BY_SIDE)
            .collect()
            .await;
        // Those of a namespace that is busy come with a later look.
        brought += kept.iter().flatten().map(|kept| kept.brought).sum::<usize>();
        match looked.last {
            Some(last) => after = last,
            None if more => after.clear(),
            None => break,
        }
    }
    Ok(brought)
}

/// Results for the signals that were kept for a run.
struct Kept {
    brought: usize,
    /// None is left.
    all: bool,
}

/// Brings a run the signals that are kept for it, in the order in which they came. The first that cannot be brought now
/// keeps those behind it back.
async fn bring_kept(node: &Arc<Node>, run: RunId, of: &KeyOf) -> Result<Kept, Error> {
    let mut brought = 0;
    loop {
        let mut connection = node.database.reader(&of.namespace).await?;
        let kept = signals::kept_for(&mut connection, of, OF_RUN).await?;
        drop(connection);
        if kept.is_empty() {
            return Ok(Kept { brought, all: true });
        }
        for early in kept {
            if !bring(node, run, &early).await {
                return Ok(Kept { brought, all: false });
            }
            let mut connection = node.database.reader(&of.namespace).await?;
            commit!("signals_forget", signals::forget(&mut connection, &early).await)?;
            brought += 1;
        }
    }
}

/// Delivers a kept signal to its run. Returns whether the run has it now, or records its refusal.
async fn bring(node: &Arc<Node>, run: RunId, early: &EarlySignal) -> bool {
    let by = || By { actor: early.actor.as_str().into(), reason: String::new() };
    let (message, error) = match Payload::trusted(early.data.clone()) {
        Ok(data) => match tell(node, &early.namespace, run, &early.signal, data, by()).await {
            Ok(()) => return true,
            Err(Error::Busy | Error::Store(_) | Error::Damaged(_)) => return false,
            Err(Error::Refused(one)) if one.code == RefusalCode::SignalUnchecked => return false,
            Err(error) => (why(&error), error.for_log()),
        },
        Err(error) => {
            let error = format!("its data cannot be read: {error}");
            (error.clone(), error)
        }
    };
    let signal = early.signal.as_str();
    tracing::warn!(%run, signal, error, "a signal that had come early was refused");
    let command = Command::RefuseSignal { name: signal.into(), by: by(), message };
    // It stays where it is until the run has recorded it.
    let told = node.ask(&early.namespace, run, command).await;
    matches!(told, Ok(_) | Err(Error::Refused(_) | Error::NotFound { .. }))
}

/// Forgets signals that were kept before `before` and whose runs were never started.
pub(crate) async fn forget_old(connection: &mut PgConnection, before: Time) -> Result<(), Error> {
    let count = commit!("signals_forget_old", forget::early_signals(connection, before).await)?;
    if count > 0 {
        tracing::warn!(count, "signals for runs that were never started are forgotten");
    }
    Ok(())
}
