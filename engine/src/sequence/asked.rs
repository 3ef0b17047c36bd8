//! What people and other systems ask about keys and facts, and do to them.

use backstitch_saga::protocol::{KeyPlace, Requirement, SubjectFacts, WaitKind, WaitsFor, Why};
use backstitch_saga::{By, Command, HoldKind, RunId, Timestamp};
use sqlx::postgres::PgConnection;

use super::{ON, check_fact, check_texts};
use crate::reads::read;
use crate::store::{facts, sequence as table};
use crate::{Engine, Error};

/// How many are told at most.
const MANY: i64 = 1_000;

impl Engine {
    /// The line of a serial key, at most 1,000 places: who holds it and who waits.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn key_line(&self, namespace: &str, key: &str) -> Result<Vec<KeyPlace>, Error> {
        let mut connection = self.pool().acquire().await?;
        let line = table::line(&mut connection, namespace, key, MANY).await?;
        let place = |one: table::Place| KeyPlace {
            run: one.run,
            state: if one.holding { "holding" } else { "waiting" }.to_owned(),
            since: Timestamp(one.since),
            replaced_by: one.replaced_by,
        };
        Ok(line.into_iter().map(place).collect())
    }

    /// What is established about a subject, and who waits for what.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn facts_about(&self, namespace: &str, subject: &str) -> Result<SubjectFacts, Error> {
        let mut connection = self.pool().acquire().await?;
        Ok(SubjectFacts {
            facts: facts::facts_of(&mut connection, namespace, subject, MANY).await?,
            waiting: facts::waiting_on(&mut connection, namespace, subject, MANY).await?,
        })
    }

    /// Establishes a fact, and releases who waits for it. Establishing what stands changes nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it cannot be the name of a fact, or the subject is too long.
    pub async fn establish(
        &self,
        namespace: &str,
        fact: Requirement,
        by: &str,
    ) -> Result<(), Error> {
        check_texts(&[("/subject", &fact.on)])?;
        check_fact(&fact.fact, "/fact")?;
        let node = self.node();
        let mut connection = self.pool().acquire().await?;
        let one = std::slice::from_ref(&fact);
        facts::establish(&mut connection, namespace, one, by, node.clock.now()).await?;
        node.sequence.release(namespace, fact);
        Ok(())
    }

    /// Withdraws a fact: nobody is released by it any more. Runs that have begun go on.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not established.
    pub async fn withdraw(
        &self,
        namespace: &str,
        fact: &Requirement,
        by: &str,
    ) -> Result<(), Error> {
        let now = self.node().clock.now();
        let mut connection = self.pool().acquire().await?;
        if facts::withdraw(&mut connection, namespace, fact, by, now).await? {
            return Ok(());
        }
        let message = format!("{} is not established for '{}'", fact.fact, fact.on);
        Err(Error::NotFound { code: "unknown_fact", message })
    }

    /// Lets a run begin although facts that it requires are not established.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the run; [`Error::Refused`] without a reason; [`Error::Conflict`] when it waits for none.
    pub async fn skip_requirements(
        &self,
        namespace: &str,
        run: RunId,
        by: &By,
    ) -> Result<(), Error> {
        let unmet = |run: &backstitch_saga::Run| {
            run.holds().any(|hold| hold.kind == HoldKind::DependencyUnmet)
        };
        if !read(self.node(), namespace, run, unmet).await? {
            let message = "the run waits for no fact".to_owned();
            return Err(Error::Conflict { code: "nothing_required", message });
        }
        self.command(namespace, run, Command::SkipRequirements { by: by.clone() }).await.map(drop)
    }
}

/// Says of a run that waits for its turn which run it waits for, and until when.
pub(crate) async fn name_others(
    connection: &mut PgConnection,
    namespace: &str,
    why: &mut Why,
) -> Result<(), Error> {
    let unmet = |wait: &WaitsFor| wait.kind == WaitKind::DependencyUnmet;
    let awaited = if why.waits_for.iter().any(unmet) {
        facts::awaited(connection, &[why.run.0]).await?
    } else {
        Vec::new()
    };
    for wait in &mut why.waits_for {
        let Some(named) = wait.named.clone() else { continue };
        if wait.kind == WaitKind::KeyBlocked {
            name_holder(connection, namespace, why.run, &named, wait).await?;
            continue;
        }
        let is_it = |one: &Requirement| named == format!("{}{ON}{}", one.fact, one.on);
        let Some(awaited) = awaited.iter().find(|awaited| is_it(&awaited.one)) else { continue };
        let until = awaited.until;
        let by = facts::promisers(connection, namespace, &awaited.one, 1).await?;
        let (fact, on) = (&awaited.one.fact, &awaited.one.on);
        wait.until = (!awaited.overdue).then_some(Timestamp(until));
        wait.other = by.first().copied().filter(|other| *other != why.run);
        wait.message = match (awaited.overdue, wait.other) {
            (true, _) => format!("the fact {fact} on '{on}', which did not come until {until}"),
            (false, Some(other)) => format!(
                "the fact {fact} on '{on}', which run {other} establishes when it succeeds; at most until {until}"
            ),
            (false, None) => format!(
                "the fact {fact} on '{on}', which no run is about to establish; at most until {until}"
            ),
        };
    }
    Ok(())
}

async fn name_holder(
    connection: &mut PgConnection,
    namespace: &str,
    run: RunId,
    key: &str,
    wait: &mut WaitsFor,
) -> Result<(), Error> {
    let before = table::before(connection, namespace, key, run).await?;
    let holder = before.iter().find(|place| place.holding).map(|place| place.run);
    wait.other = holder;
    let others = match before.iter().filter(|place| !place.holding).count() {
        0 => String::new(),
        1 => "; one run is before it in line".to_owned(),
        more => format!("; {more} runs are before it in line"),
    };
    wait.message = match holder {
        Some(holder) => format!("the serial key '{key}', which run {holder} holds{others}"),
        None => format!("the serial key '{key}', which nobody holds{others}"),
    };
    Ok(())
}
