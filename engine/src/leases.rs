//! Tokens of leases. The worker that claims a task gets one, and must send it with every message about the
//! task.
//!
//! A token is made from the task and the session by a key that all nodes share, and is stored nowhere: the session and
//! half of an HMAC-SHA-256, as hexadecimal digits. `backstitch.complete_task` checks the same in SQL.

use backstitch_saga::{Action, RunId, StepPath, TaskKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::Error;
use crate::store::leases as table;

/// Bytes of the code in a token.
const CODE: usize = 16;
/// Bytes of a token, as text.
const TOKEN: usize = 2 * (CODE + 16);

/// Message for a lost key.
const LOST: &str = "the table lease_keys has lost its row, by which tokens of leases are made and checked: restore it from a \
    backup, or have the owner run `backstitch migrate`, which writes another, and restart all servers";
/// Message for another key.
const OTHER: &str = "the table lease_keys has another key than this server: restart it, so that all make the same tokens";

/// The reason for which a report is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unproven {
    /// It has no token, and must have one.
    Missing,
    /// Its token is not that of the lease.
    Wrong,
    /// Its token is that of another session than the one that says it.
    Foreign,
}

/// Makes and checks the tokens of leases.
pub(crate) struct Leases(Hmac<Sha256>);

impl Leases {
    /// Reads the key that all nodes share.
    pub(crate) async fn load(connection: &mut PgConnection) -> Result<Leases, Error> {
        let key = table::key(connection).await?.ok_or_else(|| Error::Store(LOST.to_owned()))?;
        Leases::new(&key)
    }

    /// Returns what is wrong with the key that is stored, if this one differs from it.
    pub(crate) async fn check(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Option<&'static str>, Error> {
        let Some(key) = table::key(connection).await? else { return Ok(Some(LOST)) };
        let (run, session) = (RunId(Uuid::nil()), Uuid::nil());
        let task = TaskKey { step: StepPath::step("a"), action: Action::Forward, attempt: 1 };
        let same = Leases::new(&key)?.token(run, &task, session) == self.token(run, &task, session);
        Ok((!same).then_some(OTHER))
    }

    fn new(key: &[u8]) -> Result<Leases, Error> {
        let keyed = Hmac::new_from_slice(key);
        keyed.map(Leases).map_err(|_| Error::Bug("the key of leases is none".to_owned()))
    }

    fn code(&self, run: RunId, task: &TaskKey, session: Uuid) -> Hmac<Sha256> {
        let mut code = self.0.clone();
        code.update(session.as_bytes());
        code.update(run.0.as_bytes());
        code.update(&task.attempt.to_be_bytes());
        code.update(task.action.as_str().as_bytes());
        code.update(b"/");
        match task.step.item {
            None => code.update(task.step.step.as_bytes()),
            Some(_) => code.update(task.step.to_string().as_bytes()),
        }
        code
    }

    /// Returns the token of a task that a session holds.
    pub(crate) fn token(&self, run: RunId, task: &TaskKey, session: Uuid) -> String {
        let code = self.code(run, task, session).finalize().into_bytes();
        let mut half = [0; CODE];
        half.copy_from_slice(&code[..CODE]);
        let mut token = String::with_capacity(TOKEN);
        let mut digits = Uuid::encode_buffer();
        for bytes in [session, Uuid::from_bytes(half)] {
            token.push_str(bytes.simple().encode_lower(&mut digits));
        }
        token
    }

    /// Returns the session that a token was made for; `None` without a token where none is demanded.
    pub(crate) fn session(
        &self,
        run: RunId,
        task: &TaskKey,
        token: Option<&str>,
        demanded: bool,
    ) -> Result<Option<Uuid>, Unproven> {
        let Some(token) = token else {
            return if demanded { Err(Unproven::Missing) } else { Ok(None) };
        };
        let (session, code) = halves(token).ok_or(Unproven::Wrong)?;
        let checked = self.code(run, task, session).verify_truncated_left(code.as_bytes());
        checked.map(|()| Some(session)).map_err(|_| Unproven::Wrong)
    }
}

/// Returns the session and the code of a token, both of as many bytes as a UUID and written like one without dashes.
fn halves(token: &str) -> Option<(Uuid, Uuid)> {
    if token.len() != TOKEN || token.bytes().any(|digit| digit.is_ascii_uppercase()) {
        return None;
    }
    let (session, code) = token.split_at_checked(TOKEN / 2)?;
    Some((Uuid::try_parse(session).ok()?, Uuid::try_parse(code).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(step: &str, attempt: u32) -> TaskKey {
        TaskKey { step: StepPath::step(step), action: Action::Forward, attempt }
    }

    #[test]
    fn a_token_is_good_for_its_task_and_tells_its_session() {
        let leases = Leases::new(&[7; 32]).unwrap();
        let (run, session) = (RunId(Uuid::from_u128(1)), Uuid::from_u128(2));
        let one = task("a", 1);
        let token = leases.token(run, &one, session);
        assert_eq!(token.len(), TOKEN);
        assert_eq!(leases.session(run, &one, Some(&token), true), Ok(Some(session)));
        let other = RunId(Uuid::from_u128(3));
        let undone = TaskKey { action: Action::Compensate, ..task("a", 1) };
        let twice = format!("{token}0");
        let upper = token.to_uppercase();
        let moved = format!("{}{}", Uuid::from_u128(4).simple(), &token[32..]);
        for (run, task, token) in [
            (other, &one, token.as_str()),
            (run, &task("b", 1), &token),
            (run, &task("a", 2), &token),
            (run, &undone, &token),
            (run, &one, &twice),
            (run, &one, &upper),
            (run, &one, &moved),
            (run, &one, ""),
        ] {
            assert_eq!(leases.session(run, task, Some(token), false), Err(Unproven::Wrong));
        }
        let stranger = Leases::new(&[8; 32]).unwrap();
        assert_eq!(stranger.session(run, &one, Some(&token), true), Err(Unproven::Wrong));
    }

    #[test]
    fn a_missing_token_counts_where_one_is_demanded() {
        let leases = Leases::new(&[7; 32]).unwrap();
        let ask =
            |demanded| leases.session(RunId(Uuid::from_u128(1)), &task("a", 1), None, demanded);
        assert_eq!(ask(true), Err(Unproven::Missing));
        assert_eq!(ask(false), Ok(None));
    }
}
