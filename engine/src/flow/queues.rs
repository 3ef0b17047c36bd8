//! Requests of people about governed queues: policies, views, pausing, resuming, opening and closing.

use backstitch_saga::protocol::{Page, Paused, QueuePolicy, QueueView};
use backstitch_saga::{By, Time, Timestamp};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::limiter::Limiter;
use super::{Damaged, Queue};
use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::store::acts::{self, Act, Thing};
use crate::store::listed;
use crate::store::queues::{self as table, QueueRow};
use crate::{Engine, Error};

/// Waiting tasks are counted up to this.
const COUNTED: u32 = 1_000;

/// An action of a person on a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueAct {
    /// Hand nothing out until it is resumed. Makes the queue governed.
    Pause,
    /// Hand out again.
    Resume,
    /// Open the breaker as if enough calls had failed.
    Open,
    /// Close the breaker, and forget what failed.
    Close,
}

impl QueueAct {
    fn as_str(self) -> &'static str {
        match self {
            QueueAct::Pause => "pause",
            QueueAct::Resume => "resume",
            QueueAct::Open => "open",
            QueueAct::Close => "close",
        }
    }
}

impl Engine {
    /// Lists governed queues by name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn queues(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<QueueView>, Error> {
        let after = after.map(Cursor::queue).transpose()?.unwrap_or_default();
        let limit = limit.clamp(1, 1_000) as usize;
        let most = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut connection = self.node().database.lister(namespace).await?;
        let mut rows = listed(table::list(&mut connection, namespace, &after, most).await)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|last| Cursor::of_queue(&last.queue));
        let items = views(&mut connection, namespace, rows, self.node().clock.now()).await?;
        Ok(Page { items, next })
    }

    /// Returns one governed queue.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] (`queue_damaged`) when its row cannot be read.
    pub async fn queue(&self, namespace: &str, queue: &str) -> Result<QueueView, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        let row = table::one(&mut connection, namespace, queue).await?;
        let rows = row.into_iter().collect();
        let view = views(&mut connection, namespace, rows, self.node().clock.now()).await?.pop();
        let view = view.ok_or_else(|| unknown(queue))?;
        match &view.damaged {
            Some(why) => Err(damaged(queue, why)),
            None => Ok(view),
        }
    }

    /// Sets the whole policy of a queue. A pause stays. Unreadable parts of its row are reset. Returns whether it was
    /// not governed before.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn set_queue(
        &self,
        namespace: &str,
        queue: &str,
        policy: &QueuePolicy,
        by: &By,
    ) -> Result<bool, Error> {
        let text = serde_json::to_string(policy).map_err(|error| Error::Bug(error.to_string()))?;
        let put = Act { detail: Some(text.clone()), ..act(namespace, queue, "put", by) };
        self.change(put, (true, true), |row, limiter, old, now| {
            *limiter = std::mem::take(limiter).under(old, policy, now);
            row.policy = text;
            Ok(())
        })
        .await
    }

    /// Lets a queue be governed no more: its tasks are handed out like any others.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove_queue(&self, namespace: &str, queue: &str, by: &By) -> Result<(), Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        let mut transaction = connection.begin().await?;
        // No permits are given in the meantime.
        table::lock(&mut transaction, namespace, queue).await?.ok_or_else(|| unknown(queue))?;
        table::remove(&mut transaction, namespace, queue).await?;
        let at = self.node().clock.now();
        acts::add(&mut transaction, &Act { at, ..act(namespace, queue, "delete", by) }).await?;
        commit!("queues_remove", transaction.commit().await)?;
        super::upkeep::learn(self.node(), &mut connection).await?;
        self.node().hungry.notify_one();
        Ok(())
    }

    /// Does what a person asks of a queue. The same again changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] (`no_breaker`, `queue_damaged`); [`Error::Refused`] without a reason.
    pub async fn act_on_queue(
        &self,
        namespace: &str,
        queue: &str,
        asked: QueueAct,
        by: &By,
    ) -> Result<(), Error> {
        must_have_reason(by)?;
        let found = asked == QueueAct::Pause;
        self.change(
            act(namespace, queue, asked.as_str(), by),
            (found, false),
            |row, limiter, policy, now| {
                let breaker = policy.breaker.as_ref().ok_or_else(|| no_breaker(queue));
                match asked {
                    QueueAct::Pause if row.paused.is_some() => {}
                    QueueAct::Pause => {
                        row.paused = Some((now, by.actor.to_string(), by.reason.clone()));
                    }
                    QueueAct::Resume => row.paused = None,
                    QueueAct::Open => limiter.breaker.open(breaker?, now),
                    QueueAct::Close => {
                        breaker?;
                        limiter.close();
                    }
                }
                Ok(())
            },
        )
        .await?;
        Ok(())
    }

    /// Changes the row of a queue under its lock, and records the act; with `found`, creates one if there is none. A
    /// row that cannot be read is changed only if it is `replaced`. Returns whether it created one. A change without
    /// effect is no act.
    async fn change(
        &self,
        act: Act<'_>,
        (found, replaced): (bool, bool),
        change: impl FnOnce(&mut QueueRow, &mut Limiter, &QueuePolicy, Time) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let Act { namespace, name: queue, by, .. } = act;
        let mut connection = self.pool().acquire().await?;
        let mut transaction = connection.begin().await?;
        let new = found && table::found(&mut transaction, namespace, queue, &by.actor).await?;
        let old = table::lock(&mut transaction, namespace, queue).await?;
        let old = old.ok_or_else(|| unknown(queue))?;
        let known = Queue::read(old.clone());
        if let Some(Damaged { why, .. }) = known.damaged.as_ref().filter(|_| !replaced) {
            return Err(damaged(queue, why));
        }
        let Queue { policy, mut limiter, .. } = known;
        let (mut row, at) = (old.clone(), self.node().clock.now());
        change(&mut row, &mut limiter, &policy, at)?;
        row.limiter =
            serde_json::to_string(&limiter).map_err(|error| Error::Bug(error.to_string()))?;
        if new || row != old {
            (row.changed_at, row.changed_by) = (at, by.actor.to_string());
            table::change(&mut transaction, &row).await?;
            // By another limit they may have a token sooner.
            table::free_keys(&mut transaction, namespace, queue, at).await?;
            acts::add(&mut transaction, &Act { at, ..act }).await?;
        }
        commit!("queues_change", transaction.commit().await)?;
        super::upkeep::learn(self.node(), &mut connection).await?;
        self.node().flow.ring();
        Ok(new)
    }
}

/// Returns an act on a queue, at an instant to come.
fn act<'a>(namespace: &'a str, queue: &'a str, verb: &'static str, by: &'a By) -> Act<'a> {
    Act { namespace, thing: Thing::Queue, name: queue, at: Time(0), verb, by, detail: None }
}

async fn views(
    connection: &mut PgConnection,
    namespace: &str,
    rows: Vec<QueueRow>,
    now: Time,
) -> Result<Vec<QueueView>, Error> {
    let names: Vec<String> = rows.iter().map(|row| row.queue.clone()).collect();
    let most = i64::from(COUNTED) + 1;
    let counts = table::counts(connection, namespace, &names, most).await?;
    let views = rows.into_iter().zip(counts).map(|(row, (held, waiting))| {
        let (changed_at, changed_by) = (Timestamp(row.changed_at), row.changed_by.clone());
        let Queue { name, policy, limiter, paused, damaged, .. } = Queue::read(row);
        QueueView {
            queue: name.1.to_string(),
            changed_at,
            changed_by,
            paused: paused.map(|(since, actor, reason)| Paused {
                since: Timestamp(since),
                actor,
                reason,
            }),
            held,
            waiting: waiting.min(COUNTED),
            waiting_more: waiting > COUNTED,
            tokens: limiter.tokens(&policy, now),
            breaker: limiter.breaker_view(&policy, now),
            retry_budget: limiter.budget_view(&policy, now),
            damaged: damaged.map(|damaged| damaged.why),
            policy,
        }
    });
    Ok(views.collect())
}

fn unknown(queue: &str) -> Error {
    Error::NotFound {
        code: "unknown_queue",
        message: format!("no policy was set for a queue '{queue}' in this namespace"),
    }
}

fn damaged(queue: &str, why: &str) -> Error {
    let message = format!(
        "the queue '{queue}' cannot be read, so that nothing of it is handed out: {why}; set its policy anew, or delete it"
    );
    Error::Conflict { code: "queue_damaged", message }
}

/// Finds the queues that cannot be read, each with why.
pub(crate) async fn damaged_rows(connection: &mut PgConnection) -> Result<Vec<String>, Error> {
    let queues = table::all(connection).await?.into_iter().map(Queue::read);
    let told = |queue: Queue| {
        let (namespace, name) = &queue.name;
        let why = queue.damaged?.why;
        Some(format!("the queue {namespace}/{name} cannot be read: {why}"))
    };
    Ok(queues.filter_map(told).collect())
}

fn no_breaker(queue: &str) -> Error {
    Error::Conflict {
        code: "no_breaker",
        message: format!(
            "the policy of queue '{queue}' has no breaker; pause it instead, or set one"
        ),
    }
}
