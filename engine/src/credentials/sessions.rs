//! Sessions of the web console: what a credential is exchanged for, so that no browser keeps its secret.

use backstitch_saga::{Span, Timestamp};
use data_encoding::HEXLOWER;

use super::{CHANNEL, digest_of};
use crate::bounds::{Bound, bound, number};
use crate::crash::commit;
use crate::store::console_sessions::{self as table, NewRow};
use crate::{Engine, Error};

/// Time for which a session is valid.
pub(crate) const LIFE: Span = Span::secs(12 * 3_600);
/// Largest number of sessions of a credential.
const MOST: i64 = 100;

/// Returns the bounds of sessions.
pub(crate) fn bounds() -> Vec<Bound> {
    vec![
        bound(
            "sessions of the console of a credential",
            number(MOST.unsigned_abs()),
            "the oldest ends",
        ),
        bound("how long a session of the console is good", LIFE.to_string(), "the page to sign in"),
    ]
}

/// A session of the console. Its secret is answered once.
#[derive(Clone, Debug)]
pub struct ConsoleSession {
    /// The secret, good wherever that of the credential is.
    pub secret: String,
    /// Time from which it is refused; the credential may end before.
    pub expires_at: Timestamp,
}

impl Engine {
    /// Begins a session of the credential whose secret has the digest `made_with`; `None` when no credential has, as
    /// when it is that of a session. It ends with the credential, and when that secret does.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn begin_console_session(
        &self,
        made_with: [u8; 32],
    ) -> Result<Option<ConsoleSession>, Error> {
        let secret = format!("bss_{}", HEXLOWER.encode(&rand::random::<[u8; 32]>()));
        let at = self.node().clock.now();
        let expires_at = at.after(LIFE);
        let row = NewRow { digest: &digest_of(&secret), made_with: &made_with, at, expires_at };
        let mut connection = self.gate().acquire().await?;
        let made =
            commit!("console_sessions_create", table::create(&mut connection, &row, MOST).await)?;
        Ok(made.then_some(ConsoleSession { secret, expires_at: Timestamp(expires_at) }))
    }

    /// Ends the session with this secret, if there is one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn end_console_session(&self, secret: &str) -> Result<(), Error> {
        let mut connection = self.gate().acquire().await?;
        let digest = digest_of(secret);
        let ended =
            commit!("console_sessions_end", table::end(&mut connection, &digest, CHANNEL).await);
        // Also when the answer was lost: it may have ended.
        self.node().credentials.forget();
        ended?;
        Ok(())
    }
}
