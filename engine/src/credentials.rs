//! Who may ask: credentials, found by the digest of their secret.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backstitch_saga::Violation;
use sha2::{Digest, Sha256};

use tokio::sync::watch;

use crate::crash::commit;
use crate::definitions::hex;
use crate::store::credentials as table;
use crate::store::pool::Pool;
use crate::{Credential, Engine, Error, Role};

/// For how long a credential is answered from memory. A node that does not hear of a withdrawal at another node lets
/// it pass for as long.
const REMEMBER: Duration = Duration::from_secs(5);
/// How many are remembered.
const MOST: usize = 10_000;

/// Digest of a secret, under which its credential is stored.
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

    /// Forgets all credentials, and has requests that wait look up theirs again. To be called after a withdrawal, and
    /// when one may have gone unheard.
    pub(crate) fn forget(&self) {
        let mut known = self.lock();
        known.by_digest.clear();
        known.generation += 1;
        drop(known);
        self.withdrawals.send_modify(|count| *count += 1);
    }

    /// Finds the credential whose secret has this digest.
    pub(crate) async fn find(
        &self,
        pool: &Pool,
        digest: [u8; 32],
    ) -> Result<Option<Credential>, Error> {
        let generation = {
            let known = self.lock();
            if let Some((since, found)) = known.by_digest.get(&digest)
                && since.elapsed() < REMEMBER
            {
                return Ok(Some(found.clone()));
            }
            known.generation
        };
        let mut connection = pool.acquire().await?;
        let Some((namespace, name, role)) = table::find(&mut connection, &digest).await? else {
            self.lock().by_digest.remove(&digest);
            return Ok(None);
        };
        let role = Role::from_word(&role).ok_or_else(|| {
            Error::Store(format!("table credentials, name {name}: '{role}' is no role"))
        })?;
        let found = Credential { name, role, namespace, digest };
        let mut known = self.lock();
        if known.generation == generation {
            if known.by_digest.len() >= MOST {
                known.by_digest.clear();
            }
            known.by_digest.insert(digest, (Instant::now(), found.clone()));
        }
        Ok(Some(found))
    }

    /// Makes a credential; answers its secret.
    pub(crate) async fn create(
        &self,
        pool: &Pool,
        namespace: &str,
        name: &str,
        role: Role,
    ) -> Result<String, Error> {
        for (pointer, text) in [("/name", name), ("/namespace", namespace)] {
            if text.is_empty() || text.len() > 200 || text.contains('\0') {
                let message = "a name of 1 to 200 bytes without U+0000 is needed";
                return Err(Error::invalid(
                    "invalid_request",
                    Violation::new(pointer, "invalid_name", message),
                ));
            }
        }
        let secret = format!("bsk_{}", hex(&rand::random::<[u8; 32]>()));
        let digest = digest_of(&secret);
        let mut connection = pool.acquire().await?;
        if commit!(
            "credentials_create",
            table::create(&mut connection, namespace, name, role.as_str(), &digest).await
        )? {
            return Ok(secret);
        }
        Err(Error::Conflict {
            code: "credential_conflict",
            message: format!(
                "there is a credential '{name}' already; withdraw it first, or choose another name"
            ),
        })
    }

    /// Withdraws a credential, at once on every node that hears of it.
    pub(crate) async fn revoke(
        &self,
        pool: &Pool,
        namespace: &str,
        name: &str,
    ) -> Result<(), Error> {
        let mut connection = pool.acquire().await?;
        if !name.contains('\0') {
            let revoked = commit!(
                "credentials_revoke",
                table::revoke(&mut connection, namespace, name, CHANNEL).await
            );
            // Also when the answer was lost: it may be withdrawn.
            self.forget();
            if revoked? {
                return Ok(());
            }
        }
        Err(Error::NotFound {
            code: "unknown_credential",
            message: format!("there is no valid credential '{name}' in this namespace"),
        })
    }
}

impl Engine {
    /// Makes a credential; the secret is returned once and stored only as its SHA-256.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name is taken.
    pub async fn create_credential(
        &self,
        namespace: &str,
        name: &str,
        role: Role,
    ) -> Result<String, Error> {
        self.node().credentials.create(self.gate(), namespace, name, role).await
    }

    /// Withdraws a credential. This node and all that hear NOTIFY know it at once, others within seconds.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn revoke_credential(&self, namespace: &str, name: &str) -> Result<(), Error> {
        self.node().credentials.revoke(self.gate(), namespace, name).await
    }

    /// Finds the credential with this secret; `None` when there is none or it was revoked. Cached for a few seconds.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn credential(&self, secret: &str) -> Result<Option<Credential>, Error> {
        self.node().credentials.find(self.gate(), digest_of(secret)).await
    }

    /// Ends when the credential whose secret has this digest is withdrawn.
    pub async fn credential_withdrawn(&self, digest: [u8; 32]) {
        let cache = &self.node().credentials;
        let mut withdrawals = cache.withdrawals();
        // An error says that the node is gone: nothing is withdrawn any more.
        while withdrawals.changed().await.is_ok() {
            if matches!(cache.find(self.gate(), digest).await, Ok(None)) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    fn gate(&self) -> &Pool {
        &self.node().database.gate
    }
}
