//! Starts that applications requested in their own transactions: taken after the commit, in the order of the
//! requests.
//!
//! A request is reserved, its run is started with exactly the id that was returned, and the request is deleted. A node
//! that dies in between leaves the request, reserved for a few seconds; the node that takes it then finds the run by
//! its id. A refused request stays with its refusal, for a person. NOTIFY only saves time; polling finds every request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backstitch_saga::protocol::{Page, Refused, StartRequestState, StartRequestView, StartRun};
use backstitch_saga::{By, Payload, Refusal, RefusalCode, Span, Time, Timestamp, Violation};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::node::Node;
use crate::page::page;
use crate::store::listed;
use crate::store::session;
use crate::store::starts::{self as table, Asked};
use crate::{Engine, Error, StartedRun, credentials, start};

/// Number of requests that are taken together.
pub(crate) const REQUESTS: i64 = 500;
/// Approximate size of their inputs, in bytes.
const BYTES: i64 = 8 * 1024 * 1024;
/// Time for which a refused request waits for a person.
const REFUSED_FOR: Span = Span::secs(30 * 86_400);
/// Time for which a node has the first right to them.
const RESERVE_FOR: Duration = Duration::from_secs(10);
/// Number of tries of a request during which its node died, before the request is refused.
pub(crate) const TRIES: i32 = 3;
/// Delay before a connection on which NOTIFY is received is made anew.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// Name of the bell for events that an application has appended.
const LOG: &str = "log";
/// Delay before a start is retried for which the database was too busy.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Takes all waiting requests, in turns between namespaces. Returns their number.
pub(crate) async fn take(node: &Arc<Node>) -> Result<usize, Error> {
    let (mut taken, mut before) = (0, 0);
    let (mut after, mut again_after) = (String::new(), String::new());
    loop {
        let now = node.clock.now();
        let until = now.after(RESERVE_FOR.into());
        let turns = (after.as_str(), again_after.as_str());
        let mut connection = node.database.keepers.acquire().await?;
        let found = commit!(
            "starts_reserve",
            table::reserve(&mut connection, node.id, (now, until), (REQUESTS, BYTES), turns).await
        )?;
        // The connection is not kept while runs are started.
        drop(connection);
        taken += found.rows.len();
        // One over which a node may have died is tried apart from the others, so that it is known which it is.
        let (again, first): (Vec<Asked>, Vec<Asked>) =
            found.rows.into_iter().partition(|one| one.tries > 1);
        if let Some(one) = again.first() {
            again_after.clone_from(&one.namespace);
        }
        for part in [first, again] {
            if !part.is_empty() {
                start_all(node, part).await?;
            }
        }
        after = match found.last {
            Some(last) => last,
            // Nothing is left when all namespaces had none.
            None if taken == before => return Ok(taken),
            None => {
                before = taken;
                String::new()
            }
        };
    }
}

async fn start_all(node: &Arc<Node>, found: Vec<Asked>) -> Result<(), Error> {
    let mut fate = Fate::default();
    let mut by_namespace: BTreeMap<String, (Vec<Asked>, Vec<_>)> = BTreeMap::new();
    for asked in found {
        if asked.tries > TRIES {
            let message = format!(
                "{TRIES} times a node stopped while it was about to start this; retry it once the cause is known"
            );
            fate.refused.push((asked.id, refusal("poison", message, Vec::new())));
            continue;
        }
        match read(&asked) {
            Ok(start) => {
                node.clock.note_start(asked.run, node.clock.now());
                let (known, starts) = by_namespace.entry(asked.namespace.clone()).or_default();
                starts.push((asked.run, start));
                known.push(asked);
            }
            Err(error) => fate.settle(&asked, Err(error)),
        }
    }
    // Side by side: a namespace whose starts take long does not keep back the others.
    let mut under_way = JoinSet::new();
    for (namespace, (asked, starts)) in by_namespace {
        let node = Arc::clone(node);
        under_way.spawn(async move {
            let started = start::start_runs(&node, &namespace, starts).await;
            (asked, started)
        });
    }
    while let Some(done) = under_way.join_next().await {
        // A request that panicked is retried when its reservation ends, and counted.
        let Ok((asked, started)) = done else { continue };
        asked.iter().zip(started).for_each(|(asked, started)| fate.settle(asked, started));
    }
    settle(node, fate).await
}

/// Records the results of requests.
async fn settle(node: &Node, fate: Fate) -> Result<(), Error> {
    let now = node.clock.now();
    let mut connection = node.database.keepers.acquire().await?;
    if !fate.started.is_empty() {
        commit!("starts_started", table::started(&mut connection, &fate.started).await)?;
    }
    if !fate.again.is_empty() {
        commit!(
            "starts_put_back",
            table::put_back(&mut connection, &fate.again, now.after(AGAIN_AFTER.into())).await
        )?;
    }
    if !fate.refused.is_empty() {
        let (requests, refusals): (Vec<Uuid>, Vec<Refused>) = fate.refused.into_iter().unzip();
        let texts: Result<Vec<String>, _> = refusals.iter().map(serde_json::to_string).collect();
        let texts = texts.map_err(|error| Error::Bug(error.to_string()))?;
        node.counters.starts_refused.add(requests.len());
        let first = &refusals[0];
        // No message: it may contain values of an input.
        tracing::warn!(
            count = requests.len(),
            code = first.code,
            pointer = first.errors.first().map(|error| error.pointer.as_str()),
            "starts asked for in transactions were refused; GET /v1/start-requests?state=refused lists them"
        );
        commit!("starts_refuse", table::refuse(&mut connection, &requests, &texts, now).await)?;
    }
    Ok(())
}

/// Results of requests.
#[derive(Default)]
struct Fate {
    started: Vec<Uuid>,
    again: Vec<Uuid>,
    refused: Vec<(Uuid, Refused)>,
}

impl Fate {
    fn settle(&mut self, asked: &Asked, started: Result<StartedRun, Error>) {
        let refused = match started {
            Ok(started) if started.id == asked.run => return self.started.push(asked.id),
            Ok(started) => {
                let message = format!(
                    "another request started run {} with this key and input at the same time; it is that run, not {}",
                    started.id, asked.run
                );
                refusal("key_taken", message, Vec::new())
            }
            Err(Error::Busy | Error::Store(_) | Error::Quota { retry_after: Some(_), .. }) => {
                return self.again.push(asked.id);
            }
            Err(Error::Refused(Refusal { code: RefusalCode::AlreadyStarted, .. })) => {
                let message = format!("run {} has begun with another input", asked.run);
                refusal("key_conflict", message, Vec::new())
            }
            Err(Error::Refused(Refusal { code, message })) => {
                refusal(code.as_str(), message, Vec::new())
            }
            Err(Error::Invalid { code, violations }) => {
                let message = violations.first().map(ToString::to_string).unwrap_or_default();
                refusal(code, message, violations)
            }
            Err(
                Error::NotFound { code, message }
                | Error::Conflict { code, message }
                | Error::Quota { code, message, .. },
            ) => refusal(code, message, Vec::new()),
            Err(Error::Damaged(message)) => refusal("journal_damaged", message, Vec::new()),
            Err(Error::Incompatible { message, .. }) => {
                refusal("incompatible_schema", message, Vec::new())
            }
            Err(Error::StreamVersion { message, .. }) => {
                refusal("stream_version_conflict", message, Vec::new())
            }
            Err(Error::PastRetention { message, .. }) => {
                refusal("position_past_retention", message, Vec::new())
            }
            Err(Error::Bug(message)) => refusal("bug", message, Vec::new()),
        };
        self.refused.push((asked.id, refused));
    }
}

fn refusal(code: &str, message: String, errors: Vec<Violation>) -> Refused {
    // The time is a column of its own.
    Refused { code: code.to_owned(), message, errors, at: Timestamp(Time(0)) }
}

/// Returns the request as the API would get it.
fn read(asked: &Asked) -> Result<StartRun, Error> {
    let wrong = |pointer: &str, message: String| {
        Error::invalid("invalid_request", Violation::new(pointer, "wrong_type", message))
    };
    let input = Payload::trusted(asked.input.clone());
    let input = input.map_err(|error| wrong("/input", error.to_string()))?;
    let version = asked.version.map(u32::try_from).transpose();
    let version = version.map_err(|_| wrong("/version", "a version is 1 or more".to_owned()))?;
    let labels = match asked.labels.as_deref() {
        None | Some("null") => BTreeMap::new(),
        Some(text) => serde_json::from_str(text).map_err(|_| {
            wrong("/labels", "labels are an object whose values are texts".to_owned())
        })?,
    };
    Ok(StartRun {
        workflow: asked.workflow.clone(),
        version,
        key: asked.key.clone(),
        input,
        correlation_id: asked.correlation_id.clone(),
        causation_id: None,
        labels,
        sequence: None,
        start_at: asked.start_at.map(Timestamp),
        delay: None,
        end_by: None,
        undo_budget: None,
    })
}

/// Deletes requests that were dismissed longer ago than responses are kept, and old refused ones without a decision.
pub(crate) async fn forget(node: &Node) -> Result<usize, Error> {
    let keep = Span::from(node.options.idempotency_retention).0;
    let ago = |span: u64| Time(node.clock.now().0.saturating_sub_unsigned(span));
    let before = (ago(keep), ago(REFUSED_FOR.0));
    let mut connection = node.database.keepers.acquire().await?;
    let count = commit!("starts_forget", table::forget(&mut connection, before, REQUESTS).await)?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Receives the notifications of applications, and of revoked credentials. Ends when the connection breaks, or may be
/// one without further notifications.
async fn listen(node: &Node) -> Result<(), Error> {
    let suspicion = session::suspicion();
    let channels = ["backstitch", credentials::CHANNEL];
    let mut listener = node.database.listen(&channels).await?;
    // Revocations while the node did not listen were missed.
    node.credentials.forget();
    loop {
        let heard = tokio::select! {
            heard = listener.try_recv() => heard?,
            () = session::suspected_since(suspicion) => return Ok(()),
        };
        // Nothing: the connection broke, and a notification may have been missed.
        let Some(heard) = heard else { return Ok(()) };
        if heard.channel() == credentials::CHANNEL {
            node.credentials.forget();
        } else if heard.payload() == LOG {
            node.log.ring();
        } else {
            node.asked.notify_one();
        }
    }
}

/// Listens for as long as the node works.
pub(crate) async fn keep_listening(node: Arc<Node>) {
    loop {
        if let Err(error) = listen(&node).await {
            tracing::warn!(%error, "NOTIFY is not heard; what waits is found by looking for it");
        }
        node.credentials.forget();
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

impl Engine {
    /// Lists starts asked for in transactions that have not become runs, newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn start_requests(
        &self,
        namespace: &str,
        state: Option<StartRequestState>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<StartRequestView>, Error> {
        let before = after.map(Cursor::start_request).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let mut connection = self.node().database.lister(namespace).await?;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let found = listed(table::list(&mut connection, namespace, state, before, beyond).await)?;
        Ok(page(found, limit, |line| Cursor::of_start_request(line.id)))
    }

    /// Returns one of them, with its input.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when it has become a run.
    pub async fn start_request(
        &self,
        namespace: &str,
        id: Uuid,
    ) -> Result<StartRequestView, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        table::find(&mut connection, namespace, id).await?.ok_or_else(|| Error::NotFound {
            code: "unknown_start_request",
            message: format!("there is no start request {id} in this namespace; if it was accepted, it is a run now"),
        })
    }

    /// Retries a refused request (`Waiting`), or dismisses it (`Dismissed`). A repeat gets the same answer.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason.
    pub async fn decide_start_request(
        &self,
        namespace: &str,
        id: Uuid,
        state: StartRequestState,
        by: By,
    ) -> Result<StartRequestView, Error> {
        must_have_reason(&by)?;
        // Looked up before, since one that waits again may be a run in no time.
        let mut view = self.start_request(namespace, id).await?;
        let at = self.node().clock.now();
        let mut connection = self.node().database.reader(namespace).await?;
        if commit!(
            "starts_decide",
            table::decide(&mut connection, namespace, id, state, &by, at).await
        )? {
            self.node().asked.notify_one();
            let decision = backstitch_saga::protocol::Decision {
                by: by.actor.to_string(),
                reason: by.reason,
                at: Timestamp(at),
            };
            view = StartRequestView { state, decision: Some(decision), ..view };
        }
        Ok(view)
    }
}
