//! Making, rotating, revoking and listing credentials. Each is an act and a line in the log, without a secret.

use backstitch_saga::protocol::{
    CredentialScope, CredentialSecret, CredentialView, NewCredential, Page, RotateCredential,
};
use backstitch_saga::{By, RunId, Span, Time, Timestamp, Violation};
use data_encoding::HEXLOWER;
use sqlx::Connection;

use super::{CHANNEL, digest_of};
use crate::bounds::{Bound, bound, bytes, number};
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::page::page;
use crate::store::acts::{self, Act, Thing};
use crate::store::credentials::{self as table, NewRow, Rotation, Taken};
use crate::store::runs;
use crate::{Engine, Error, Role};

/// Largest number of credentials of a namespace, revoked ones included.
const MOST: i64 = 10_000;
/// Longest time for which a secret is valid beside the next one.
const LONGEST_OVERLAP: Span = Span::secs(30 * 86_400);
/// Longest time for which a credential is created.
const LONGEST_LIFE: Span = Span::secs(100 * 365 * 86_400);
/// Largest number of patterns of a kind in a credential.
const MOST_PATTERNS: usize = 100;
/// Longest pattern, in bytes.
const LONGEST_PATTERN: usize = 200;
/// Actor if nobody is named: the program on the machine of the database.
const PROGRAM: &str = "backstitch key";

/// Returns the bounds of credentials.
pub(crate) fn bounds() -> Vec<Bound> {
    vec![
        bound(
            "credentials of a namespace, revoked ones too",
            number(MOST.unsigned_abs()),
            "409 `too_many_credentials`",
        ),
        bound("how long a credential is good, if it is to end", LONGEST_LIFE.to_string(), "422"),
        bound("how long a secret is good beside the next one", LONGEST_OVERLAP.to_string(), "422"),
        bound("patterns of queues, and as many of workflows", number(MOST_PATTERNS), "422"),
        bound("one pattern", bytes(LONGEST_PATTERN), "422"),
    ]
}

/// Returns a new secret with its digest.
fn secret() -> (String, [u8; 32]) {
    let secret = format!("bsk_{}", HEXLOWER.encode(&rand::random::<[u8; 32]>()));
    let digest = digest_of(&secret);
    (secret, digest)
}

/// Returns everything that is wrong with a credential to be made.
fn check(namespace: &str, name: &str, asked: &NewCredential) -> Result<(), Error> {
    let mut wrong = Vec::new();
    for (pointer, text) in [("/name", name), ("/namespace", namespace)] {
        if text.is_empty() || text.len() > 200 || text.contains('\0') {
            let message = "a name of 1 to 200 bytes without U+0000 is needed";
            wrong.push(Violation::new(pointer, "invalid_name", message));
        }
    }
    for (pointer, patterns) in [("/queues", &asked.queues), ("/workflows", &asked.workflows)] {
        let Some(patterns) = patterns else { continue };
        if patterns.len() > MOST_PATTERNS {
            let message = format!("at most {MOST_PATTERNS} patterns");
            wrong.push(Violation::new(pointer, "too_many", message));
        }
        let bad = |text: &String| {
            text.is_empty() || text.len() > LONGEST_PATTERN || text.chars().any(char::is_control)
        };
        if let Some(place) = patterns.iter().position(bad) {
            let message = format!(
                "a pattern has 1 to {LONGEST_PATTERN} bytes and no control characters; * stands for any text"
            );
            let pointer = format!("{pointer}/{place}");
            wrong.push(Violation::new(pointer, "invalid_pattern", message));
        }
    }
    wrong.extend(life(asked.expires_in));
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid { code: "invalid_request", violations: wrong })
    }
}

fn life(expires_in: Option<Span>) -> Option<Violation> {
    let span = expires_in?;
    (span == Span::ZERO || span > LONGEST_LIFE).then(|| {
        let message = "a credential is good for more than no time and at most a hundred years";
        Violation::new("/expires_in", "out_of_range", message)
    })
}

fn act<'a>(namespace: &'a str, name: &'a str, at: Time, verb: &'static str, by: &'a By) -> Act<'a> {
    Act { namespace, thing: Thing::Credential, name, at, verb, by, detail: None }
}

fn unknown(name: &str) -> Error {
    Error::NotFound {
        code: "unknown_credential",
        message: format!("there is no valid credential '{name}' in this namespace"),
    }
}

fn taken(name: &str, why: Taken) -> Error {
    let (code, message) = match why {
        Taken::Now => (
            "credential_conflict",
            format!(
                "there is a credential '{name}' already; rotate it for another secret, or choose another name"
            ),
        ),
        Taken::Before => (
            "credential_name_used",
            format!(
                "'{name}' was the name of a credential that is revoked; what it did stands under this name, so choose another"
            ),
        ),
        Taken::TooMany => (
            "too_many_credentials",
            format!("a namespace has at most {MOST} credentials, revoked ones as well"),
        ),
    };
    Error::Conflict { code, message }
}

impl Engine {
    /// Makes a credential; the secret is returned once and stored only as its SHA-256.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name is taken, or was.
    pub async fn make_credential(
        &self,
        namespace: &str,
        name: &str,
        asked: &NewCredential,
        by: &By,
    ) -> Result<CredentialSecret, Error> {
        check(namespace, name, asked)?;
        let (secret, digest) = secret();
        let at = self.node().clock.now();
        let role = Role::from(asked.role);
        let expires_at = asked.expires_in.map(|span| at.after(span));
        let scope =
            CredentialScope { queues: asked.queues.clone(), workflows: asked.workflows.clone() };
        let row = NewRow {
            namespace,
            name,
            role: role.as_str(),
            digest: &digest,
            by: &by.actor,
            at,
            expires_at,
            scope: &scope,
        };
        let detail = serde_json::to_string(asked).map_err(|error| Error::Bug(error.to_string()))?;
        let mut connection = self.gate().acquire().await?;
        let mut transaction = connection.begin().await?;
        table::create(&mut transaction, &row, MOST).await?.map_err(|why| taken(name, why))?;
        let act = Act { detail: Some(detail), ..act(namespace, name, at, "create", by) };
        acts::add(&mut transaction, &act).await?;
        commit!("credentials_create", transaction.commit().await)?;
        tracing::info!(namespace, name, role = role.as_str(), actor = %by.actor, "a credential was made");
        Ok(CredentialSecret {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            role: asked.role,
            secret,
            expires_at: expires_at.map(Timestamp),
            previous_until: None,
            queues: asked.queues.clone(),
            workflows: asked.workflows.clone(),
        })
    }

    /// Gives a credential another secret; that of before is good for `asked.overlap` more, on every node.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`].
    pub async fn rotate_credential(
        &self,
        namespace: &str,
        name: &str,
        asked: &RotateCredential,
        by: &By,
    ) -> Result<CredentialSecret, Error> {
        let mut wrong: Vec<Violation> = life(asked.expires_in).into_iter().collect();
        if asked.overlap > LONGEST_OVERLAP {
            let message = "a secret is good for at most 30 days beside the next one";
            wrong.push(Violation::new("/overlap", "out_of_range", message));
        }
        if !wrong.is_empty() {
            return Err(Error::Invalid { code: "invalid_request", violations: wrong });
        }
        let (secret, digest) = secret();
        let at = self.node().clock.now();
        let rotation = Rotation {
            namespace,
            name,
            digest: &digest,
            at,
            previous_until: at.after(asked.overlap),
            expires_at: asked.expires_in.map(|span| at.after(span)),
        };
        let mut connection = self.gate().acquire().await?;
        let mut transaction = connection.begin().await?;
        if name.contains('\0') {
            return Err(unknown(name));
        }
        let view = table::rotate(&mut transaction, &rotation, CHANNEL).await?;
        let view = view.ok_or_else(|| unknown(name))?;
        let detail = serde_json::to_string(asked).map_err(|error| Error::Bug(error.to_string()))?;
        let act = Act { detail: Some(detail), ..act(namespace, name, at, "rotate", by) };
        acts::add(&mut transaction, &act).await?;
        let rotated = commit!("credentials_rotate", transaction.commit().await);
        // Also when the answer was lost: it may be rotated.
        self.node().credentials.forget();
        rotated?;
        tracing::info!(namespace, name, actor = %by.actor, overlap = %asked.overlap, "a credential was rotated");
        Ok(CredentialSecret {
            name: view.name,
            namespace: namespace.to_owned(),
            role: view.role,
            secret,
            expires_at: view.expires_at,
            previous_until: view.previous_until,
            queues: view.queues,
            workflows: view.workflows,
        })
    }

    /// Revokes a credential. This node and all that receive NOTIFY know it immediately, others within
    /// seconds.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn withdraw_credential(
        &self,
        namespace: &str,
        name: &str,
        by: &By,
    ) -> Result<(), Error> {
        if name.contains('\0') {
            return Err(unknown(name));
        }
        let at = self.node().clock.now();
        let mut connection = self.gate().acquire().await?;
        let mut transaction = connection.begin().await?;
        let key = (namespace, name);
        if !table::revoke(&mut transaction, key, (at, &by.actor), CHANNEL).await? {
            return Err(unknown(name));
        }
        acts::add(&mut transaction, &act(namespace, name, at, "revoke", by)).await?;
        let revoked = commit!("credentials_revoke", transaction.commit().await);
        // Also when the answer was lost: it may be withdrawn.
        self.node().credentials.forget();
        revoked?;
        tracing::info!(namespace, name, actor = %by.actor, "a credential was revoked");
        Ok(())
    }

    /// Lists credentials of a namespace by name, without secrets; `after` is the cursor of the page before.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn credentials(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<CredentialView>, Error> {
        let after = after.map(|text| Cursor::place('c', text, |place| Some(place.to_owned())));
        let after = after.transpose()?.unwrap_or_default();
        let limit = limit.clamp(1, 1_000);
        let (now, beyond) = (self.node().clock.now(), i64::from(limit) + 1);
        let mut connection = self.pool().acquire().await?;
        let found = table::list(&mut connection, namespace, &after, beyond, now).await?;
        Ok(page(found, limit as usize, |view| Cursor::of('c', &view.name)))
    }

    /// Does [`Engine::make_credential`] for a role for all queues and workflows and for ever, by the program
    /// itself.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name is taken, or was.
    pub async fn create_credential(
        &self,
        namespace: &str,
        name: &str,
        role: Role,
    ) -> Result<String, Error> {
        let asked =
            NewCredential { role: role.into(), expires_in: None, queues: None, workflows: None };
        Ok(self.make_credential(namespace, name, &asked, &by_program()).await?.secret)
    }

    /// Does [`Engine::withdraw_credential`] by the program itself.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn revoke_credential(&self, namespace: &str, name: &str) -> Result<(), Error> {
        self.withdraw_credential(namespace, name, &by_program()).await
    }
}

impl Engine {
    /// Returns the workflow of a run, by the index alone; `None` when there is no such run.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn workflow_of_run(
        &self,
        namespace: &str,
        run: RunId,
    ) -> Result<Option<String>, Error> {
        let mut connection = self.pool().acquire().await?;
        Ok(runs::workflow_of(&mut connection, namespace, run).await?)
    }
}

fn by_program() -> By {
    By { actor: PROGRAM.into(), reason: String::new() }
}
