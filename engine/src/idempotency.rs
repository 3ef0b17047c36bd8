//! Requests with an `Idempotency-Key`: a repeated request is executed once, and gets the same
//! response.
//!
//! The key is reserved before the act and completed with the answer after it. A process that dies in between leaves a
//! reservation, which a repeat takes over and executes again. This is correct because the engine's actions are
//! idempotent: an act by the same actor for the same reason is executed once, and a start gets its run's id from the
//! reservation ([`Reservation::run_id`]), so that it is the same run. The lease on a reservation therefore only saves
//! work; no promise depends on it. `backstitch-api` applies this to HTTP.

use std::time::Duration;

use backstitch_saga::{RunId, Span, Time};
use sha2::{Digest, Sha256};

use crate::crash::commit;
use crate::node::Node;
use crate::store::idempotency as table;
use crate::store::quotas::Counted;
use crate::{Engine, Error, quotas};

/// Time for which a reservation counts as being executed if its node lives. Longer than most requests take.
const LEASE: Duration = Duration::from_secs(60);
/// Number of keys that one statement deletes.
const FORGOTTEN: i64 = 1_000;
/// Largest number of statements in one pass, so that a backlog does not keep a connection for long.
const LOOKS: usize = 100;

/// A request with a key.
#[derive(Clone, Copy, Debug)]
pub struct IdempotentRequest<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The caller.
    pub actor: &'a str,
    /// The HTTP method.
    pub method: &'a str,
    /// The path as it was asked for, without the query.
    pub path: &'a str,
    /// The key.
    pub key: &'a str,
    /// The raw body.
    pub body: &'a [u8],
}

/// Result of a reservation.
#[derive(Clone, Debug)]
pub enum Reserved {
    /// The caller must execute the request, then record the response: [`Engine::keep_answer`], [`Engine::free`] or
    /// [`Engine::forget_key`].
    Yours(Reservation),
    /// It was executed before; this is its response.
    Answered(KeptAnswer),
    /// The same request is being executed.
    InFlight,
    /// The key belongs to a request with another body.
    OtherBody,
}

/// The right to execute a request, and the source of the ids of its starts.
#[derive(Clone, Debug)]
pub struct Reservation {
    namespace: String,
    scope: [u8; 32],
    at: Time,
}

/// An answer that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The header `Content-Type`.
    pub content_type: Option<String>,
    /// The header `Location`.
    pub location: Option<String>,
    /// The body; `None` when it was too large to be kept, or is erased.
    pub body: Option<Vec<u8>>,
    /// A run that the body named was erased, and the body with it.
    pub erased: bool,
}

impl Reservation {
    /// Returns the id of the run that start number `index` of this request starts: the same in every repeat.
    #[must_use]
    pub fn run_id(&self, index: usize) -> RunId {
        let mut digest = Sha256::new();
        digest.update(self.namespace.as_bytes());
        digest.update(self.scope);
        digest.update((index as u64).to_be_bytes());
        let digest = digest.finalize();
        let mut random = [0; 10];
        random.copy_from_slice(&digest[..10]);
        let millis = u64::try_from(self.at.0).unwrap_or_default();
        RunId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    fn place(&self) -> (&str, &[u8]) {
        (&self.namespace, &self.scope)
    }
}

/// Returns the digest that identifies a request. Each part is included with its length, so that no two run
/// together.
fn scope_of(request: &IdempotentRequest<'_>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [request.actor, request.method, request.path, request.key] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.finalize().into()
}

impl Engine {
    /// Reserves the key of a request, or returns the state of an earlier reservation.
    ///
    /// # Errors
    /// [`Error::Store`]; then nothing may be done.
    pub async fn reserve(&self, request: IdempotentRequest<'_>) -> Result<Reserved, Error> {
        let node = self.node();
        let scope = scope_of(&request);
        let body: [u8; 32] = Sha256::digest(request.body).into();
        let now = node.clock.now();
        let dead_after =
            i64::try_from(node.options.tuning.dead_after.as_millis()).unwrap_or(i64::MAX);
        let place = (request.namespace, &scope[..]);
        if let Err(refused) = quotas::check(node, request.namespace, Counted::KeptAnswers, 1).await
        {
            return self.kept_before(place, &body).await?.ok_or(refused);
        }
        let mut connection = node.database.actor(request.namespace).await?;
        let until = now.after(LEASE.into());
        let reserved =
            table::reserve(&mut connection, place, &body, (now, until), node.id, dead_after);
        if let Some(at) = commit!("idempotency_reserve", reserved.await)? {
            let namespace = request.namespace.to_owned();
            return Ok(Reserved::Yours(Reservation { namespace, scope, at }));
        }
        Ok(match table::find(&mut connection, place).await? {
            Some((known, _)) if known != body => Reserved::OtherBody,
            Some((_, Some(answer))) => Reserved::Answered(answer),
            // Without a row it was given up just now; asked again it will be free.
            Some((_, None)) | None => Reserved::InFlight,
        })
    }

    /// Returns the response that is kept under a key: repeats are answered even if nothing more can
    /// be kept.
    async fn kept_before(
        &self,
        place: (&str, &[u8]),
        body: &[u8],
    ) -> Result<Option<Reserved>, Error> {
        let mut connection = self.node().database.actor(place.0).await?;
        Ok(match table::find(&mut connection, place).await? {
            Some((known, _)) if known != body => Some(Reserved::OtherBody),
            Some((_, Some(answer))) => Some(Reserved::Answered(answer)),
            Some((_, None)) => Some(Reserved::InFlight),
            None => None,
        })
    }

    /// Keeps the answer for repeats. The first that is kept stays.
    ///
    /// # Errors
    /// [`Error::Store`]; then a repeat executes the request again, which is safe.
    pub async fn keep_answer(&self, it: &Reservation, answer: &KeptAnswer) -> Result<(), Error> {
        let mut connection = self.node().database.actor(&it.namespace).await?;
        Ok(commit!("idempotency_keep", table::keep(&mut connection, it.place(), answer).await)?)
    }

    /// Frees a request with an unknown result: a repeat may execute it immediately, under the same
    /// ids.
    ///
    /// # Errors
    /// [`Error::Store`]; then a repeat has to wait until the lease is over.
    pub async fn free(&self, it: &Reservation) -> Result<(), Error> {
        let mut connection = self.node().database.actor(&it.namespace).await?;
        Ok(commit!(
            "idempotency_free",
            table::free(&mut connection, it.place(), self.node().id).await
        )?)
    }

    /// Forgets a key under which nothing was done, as if it had never been used.
    ///
    /// # Errors
    /// [`Error::Store`]; then a repeat has to wait until the lease is over.
    pub async fn forget_key(&self, it: &Reservation) -> Result<(), Error> {
        let mut connection = self.node().database.actor(&it.namespace).await?;
        Ok(commit!(
            "idempotency_drop_key",
            table::drop_key(&mut connection, it.place(), self.node().id).await
        )?)
    }

    /// Returns the time for which responses are kept at least.
    #[must_use]
    pub fn idempotency_retention(&self) -> Span {
        self.node().options.idempotency_retention.into()
    }
}

/// Deletes keys past retention. Returns their number.
pub(crate) async fn forget(node: &Node) -> Result<usize, Error> {
    let keep = Span::from(node.options.idempotency_retention).0;
    let before = Time(node.clock.now().0.saturating_sub_unsigned(keep));
    let mut connection = node.database.keepers.acquire().await?;
    let mut forgotten = 0;
    for _ in 0..LOOKS {
        let count =
            commit!("idempotency_forget", table::forget(&mut connection, before, FORGOTTEN).await)?;
        forgotten += usize::try_from(count).unwrap_or_default();
        if count < FORGOTTEN.unsigned_abs() {
            break;
        }
    }
    Ok(forgotten)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> IdempotentRequest<'static> {
        IdempotentRequest {
            namespace: "shop",
            actor: "till",
            method: "POST",
            path: "/v1/runs",
            key: "k",
            body: b"{}",
        }
    }

    #[test]
    fn a_scope_is_who_asks_what_under_which_key() {
        let scope = scope_of(&request());
        for other in [
            IdempotentRequest { actor: "desk", ..request() },
            IdempotentRequest { method: "PUT", ..request() },
            IdempotentRequest { path: "/v1/runs/batch", ..request() },
            IdempotentRequest { key: "l", ..request() },
            IdempotentRequest { actor: "til", method: "lPOST", ..request() },
        ] {
            assert_ne!(scope_of(&other), scope, "{other:?}");
        }
        assert_eq!(scope_of(&IdempotentRequest { body: b"[]", ..request() }), scope);
    }

    #[test]
    fn the_ids_of_a_reservation_are_always_the_same_and_of_its_time() {
        let at = Time(1_767_700_000_123);
        let of = |namespace: &str| Reservation {
            namespace: namespace.to_owned(),
            scope: scope_of(&request()),
            at,
        };
        let ids: Vec<RunId> = (0..3).map(|index| of("shop").run_id(index)).collect();
        assert_eq!(ids[1], of("shop").run_id(1));
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != of("toys").run_id(0));
        for RunId(id) in ids {
            assert_eq!(id.get_version(), Some(uuid::Version::SortRand));
            assert_eq!(id.as_u128() >> 80, 1_767_700_000_123);
        }
    }
}
