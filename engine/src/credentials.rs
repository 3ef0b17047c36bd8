//! Who may ask: credentials, found by the digest of their secret.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backstitch_saga::Violation;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgPool;

use crate::crash::commit;
use crate::definitions::hex;
use crate::store::credentials as table;
use crate::{Credential, Error, Role};

/// For how long a credential is answered from memory, and so may outlive its withdrawal at another node.
const REMEMBER: Duration = Duration::from_secs(5);
/// How many are remembered.
const MOST: usize = 10_000;

/// Credentials seen lately, by the digest of their secret. Never the secret.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    known: Mutex<HashMap<[u8; 32], (Instant, Credential)>>,
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], (Instant, Credential)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the credential with this secret.
    pub(crate) async fn find(
        &self,
        pool: &PgPool,
        secret: &str,
    ) -> Result<Option<Credential>, Error> {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        if let Some((since, found)) = self.lock().get(&digest)
            && since.elapsed() < REMEMBER
        {
            return Ok(Some(found.clone()));
        }
        let mut connection = pool.acquire().await?;
        let Some((namespace, name, role)) = table::find(&mut connection, &digest).await? else {
            self.lock().remove(&digest);
            return Ok(None);
        };
        let role = Role::from_word(&role).ok_or_else(|| {
            Error::Store(format!("table credentials, name {name}: '{role}' is no role"))
        })?;
        let found = Credential { name, role, namespace };
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(digest, (Instant::now(), found.clone()));
        Ok(Some(found))
    }

    /// Makes a credential; answers its secret.
    pub(crate) async fn create(
        &self,
        pool: &PgPool,
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
        let digest: [u8; 32] = Sha256::digest(&secret).into();
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

    /// Withdraws a credential.
    pub(crate) async fn revoke(
        &self,
        pool: &PgPool,
        namespace: &str,
        name: &str,
    ) -> Result<(), Error> {
        self.lock().retain(|_, (_, one)| one.name != name || one.namespace != namespace);
        let mut connection = pool.acquire().await?;
        if !name.contains('\0')
            && commit!("credentials_revoke", table::revoke(&mut connection, namespace, name).await)?
        {
            return Ok(());
        }
        Err(Error::NotFound {
            code: "unknown_credential",
            message: format!("there is no valid credential '{name}' in this namespace"),
        })
    }
}
