//! Credentials, found by the digest of their secret.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backstitch_saga::{Span, Time};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::crash::commit;
use crate::node::Node;
use crate::store::credentials as table;
use crate::store::pool::Pool;
use crate::{Credential, Engine, Error, Role};

pub(crate) mod change;
pub(crate) mod sessions;

/// Time for which a credential is answered from memory. A node that does not hear of a revocation at another node
/// accepts it for as long.
const REMEMBER: Duration = Duration::from_secs(5);
/// Number of credentials that are remembered.
const MOST: usize = 10_000;
/// Interval at which used credentials are noted.
pub(crate) const USED_EVERY: Duration = Duration::from_secs(60);

/// Returns the digest of a secret, under which its credential is stored.
pub(crate) fn digest_of(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// The channel on which nodes hear that a credential was withdrawn.
pub(crate) const CHANNEL: &str = "backstitch_credentials";

/// Credentials seen lately, by the digest of their secret. Never the secret.
#[derive(Debug)]
pub(crate) struct Cache {
    known: Mutex<Known>,
    /// Counts withdrawals, here and at other nodes.
    withdrawals: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    by_digest: HashMap<[u8; 32], (Instant, Credential)>,
    /// Those that were used and are not noted as such: namespace and name.
    used: HashSet<(String, String)>,
    /// Grows with each withdrawal: what was read before is not remembered after it.
    generation: u64,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache { known: Mutex::default(), withdrawals: watch::Sender::new(0) }
    }
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when a credential may have been withdrawn.
    pub(crate) fn withdrawals(&self) -> watch::Receiver<u64> {
        self.withdrawals.subscribe()
    }

    /// Forgets all credentials, and makes waiting requests look up theirs again. To be called after a revocation, and
    /// when one may have been missed.
    pub(crate) fn forget(&self) {
        let mut known = self.lock();
        known.by_digest.clear();
        known.generation += 1;
        drop(known);
        self.withdrawals.send_modify(|count| *count += 1);
    }

    /// Finds the credential whose secret has this digest and is good at `now`. One that is not answered from memory
    /// counts as used.
    pub(crate) async fn find(
        &self,
        pool: &Pool,
        digest: [u8; 32],
        now: Time,
    ) -> Result<Option<Credential>, Error> {
        let generation = {
            let known = self.lock();
            if let Some((since, found)) = known.by_digest.get(&digest)
                && since.elapsed() < REMEMBER
            {
                return Ok(found.is_good(now).then(|| found.clone()));
            }
            known.generation
        };
        let mut connection = pool.acquire().await?;
        let Some(row) = table::find(&mut connection, &digest).await? else {
            self.lock().by_digest.remove(&digest);
            return Ok(None);
        };
        drop(connection);
        let table::FoundRow { namespace, name, role, scope, until } = row;
        let role = Role::from_word(&role).ok_or_else(|| {
            Error::Store(format!("table credentials, name {name}: '{role}' is no role"))
        })?;
        let scope = scope.is_bounded().then(|| Arc::new(scope));
        let found = Credential { name, role, namespace, digest, scope, until };
        let good = found.is_good(now);
        let mut known = self.lock();
        if good && known.used.len() < MOST {
            known.used.insert((found.namespace.clone(), found.name.clone()));
        }
        if known.generation == generation {
            if known.by_digest.len() >= MOST {
                known.by_digest.clear();
            }
            known.by_digest.insert(digest, (Instant::now(), found.clone()));
        }
        drop(known);
        Ok(good.then_some(found))
    }

    /// Returns the credentials that were used since this was asked last.
    fn take_used(&self) -> Vec<(String, String)> {
        self.lock().used.drain().collect()
    }
}

/// Notes which credentials were used. Returns their number.
pub(crate) async fn note_used(node: &Node) -> Result<usize, Error> {
    let used = node.credentials.take_used();
    if used.is_empty() {
        return Ok(0);
    }
    let now = node.clock.now();
    let before = Time(now.0.saturating_sub_unsigned(Span::from(USED_EVERY).0 / 2));
    let mut connection = node.database.keepers.acquire().await?;
    commit!("credentials_used", table::used(&mut connection, &used, now, before).await)?;
    Ok(used.len())
}

impl Engine {
    /// Finds the credential with this secret; `None` when there is none, it was revoked or its time is over.
    /// Cached for a few seconds.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn credential(&self, secret: &str) -> Result<Option<Credential>, Error> {
        let now = self.node().clock.now();
        self.node().credentials.find(self.gate(), digest_of(secret), now).await
    }

    /// Ends when the credential whose secret has this digest is withdrawn, or the time of that secret is over.
    pub async fn credential_withdrawn(&self, digest: [u8; 32]) {
        let node = self.node();
        let mut withdrawals = node.credentials.withdrawals();
        loop {
            let now = node.clock.now();
            let wait = match node.credentials.find(self.gate(), digest, now).await {
                Ok(None) => return,
                Ok(Some(found)) => found.until.map_or(REMEMBER, |until| {
                    until.since(now).duration().clamp(Duration::from_millis(1), REMEMBER)
                }),
                Err(_) => REMEMBER,
            };
            // Changed or not, it is looked up again. An error means that the node has ended: there are no more
            // revocations.
            if let Ok(Err(_)) = tokio::time::timeout(wait, withdrawals.changed()).await {
                return std::future::pending().await;
            }
        }
    }

    fn gate(&self) -> &Pool {
        &self.node().database.gate
    }
}
