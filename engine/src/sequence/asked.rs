//! Requests of people and other systems about keys and facts.

use backstitch_saga::protocol::{
    FactView, KeyPlace, Requirement, SubjectFacts, WaitKind, WaitsFor, Why,
};
use backstitch_saga::{By, Command, HoldKind, RunId, Timestamp};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::{ON, check_fact, check_texts};
use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::reads::read;
use crate::store::acts::{self, Act, Thing};
use crate::store::{facts, required, sequence as table};
use crate::{Engine, Error};

/// Largest number of entries in a view.
const MANY: i64 = 1_000;

/// An action on a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactAct {
    /// Establish it, and release who waits for it.
    Establish,
    /// Withdraw it: it releases no run any more. Runs that have begun are notified, and follow their policies.
    Withdraw,
}

impl FactAct {
    fn as_str(self) -> &'static str {
        match self {
            FactAct::Establish => "establish",
            FactAct::Withdraw => "withdraw",
        }
    }
}

impl Engine {
    /// Returns the line of a serial key, at most 1,000 places: who holds it and who waits.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn key_line(&self, namespace: &str, key: &str) -> Result<Vec<KeyPlace>, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        let line = table::line(&mut connection, namespace, key, MANY).await?;
        let place = |one: table::Place| KeyPlace {
            run: one.run,
            state: if one.holding { "holding" } else { "waiting" }.to_owned(),
            since: Timestamp(one.since),
            replaced_by: one.replaced_by,
        };
        Ok(line.into_iter().map(place).collect())
    }

    /// Returns the facts about a subject, and the runs that wait for others.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn facts_about(&self, namespace: &str, subject: &str) -> Result<SubjectFacts, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        Ok(SubjectFacts {
            facts: facts::facts_of(&mut connection, namespace, subject, MANY).await?,
            waiting: facts::waiting_on(&mut connection, namespace, subject, MANY).await?,
            dependents: required::dependents(&mut connection, namespace, subject, MANY).await?,
        })
    }

    /// Returns whom the withdrawal of a fact would touch, at most 1,000. Withdraws nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the fact is not established.
    pub async fn would_touch(
        &self,
        namespace: &str,
        fact: &Requirement,
    ) -> Result<SubjectFacts, Error> {
        let mut about = self.facts_about(namespace, &fact.on).await?;
        let stands = |known: &FactView| known.fact == fact.fact && known.withdrawn_at.is_none();
        if !about.facts.iter().any(stands) {
            let message = format!("{} is not established for '{}'", fact.fact, fact.on);
            return Err(Error::NotFound { code: "unknown_fact", message });
        }
        about.dependents.retain(|one| one.fact == fact.fact);
        Ok(about)
    }

    /// Executes an act of a person, or of another system, on a fact. Establishing an established fact changes nothing,
    /// and is no act; runs that wait for it are released in any case.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it cannot be the name of a fact, or the subject is too long; [`Error::NotFound`] when it
    /// is to be withdrawn and not established; [`Error::Refused`] without a reason.
    pub async fn act_on_fact(
        &self,
        namespace: &str,
        fact: &Requirement,
        asked: FactAct,
        by: &By,
    ) -> Result<(), Error> {
        check_texts(&[("/subject", &fact.on)])?;
        check_fact(&fact.fact, "/fact")?;
        must_have_reason(by)?;
        let (node, actor) = (self.node(), &*by.actor);
        let at = node.clock.now();
        let mut connection = self.node().database.reader(namespace).await?;
        let mut transaction = connection.begin().await?;
        let one = std::slice::from_ref(fact);
        let changed = match asked {
            FactAct::Establish => {
                facts::establish(&mut transaction, namespace, one, actor, at).await?
            }
            FactAct::Withdraw => {
                facts::withdraw(&mut transaction, namespace, fact, actor, at).await?
            }
        };
        if changed {
            let (thing, verb) = (Thing::Subject, asked.as_str());
            // Its name has no characters that JSON would escape.
            let detail = Some(format!(r#"{{"fact":"{}"}}"#, fact.fact));
            let act = Act { namespace, thing, name: &fact.on, at, verb, by, detail };
            acts::add(&mut transaction, &act).await?;
        } else if asked == FactAct::Withdraw {
            let message = format!("{} is not established for '{}'", fact.fact, fact.on);
            return Err(Error::NotFound { code: "unknown_fact", message });
        }
        commit!("facts_act", transaction.commit().await)?;
        node.sequence.changed(namespace, fact.clone());
        Ok(())
    }

    /// Lets a run begin although facts that it requires are not established.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the run; [`Error::Refused`] without a reason; [`Error::Conflict`] when it waits for
    /// none.
    pub async fn skip_requirements(
        &self,
        namespace: &str,
        run: RunId,
        by: &By,
    ) -> Result<(), Error> {
        let unmet = |run: &backstitch_saga::Run| {
            run.holds().any(|hold| hold.kind == HoldKind::DependencyUnmet) || run.has_withdrawn()
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
