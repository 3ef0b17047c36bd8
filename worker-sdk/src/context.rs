//! The data of a task for its handler, and the handler's messages to the server while it works.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backstitch_saga::protocol::{Heartbeat, HeldTask, TaskOffer};
use backstitch_saga::{Action, Payload, RunId, Span, StepPath, Timestamp, effect_key};
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::CompleteInTransaction;
use crate::codec::{self, MaybeCodec};

/// One attempt at a task, as its handler sees it. Cheap to clone.
#[derive(Clone)]
pub struct TaskContext {
    task: Arc<InFlight>,
}

/// State of the forward attempt that is to be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward<Out> {
    /// It succeeded with this output.
    Succeeded(Out),
    /// It may or may not have happened, and may even arrive later: undo it if it exists, and make sure that it
    /// cannot come later if the target can promise that.
    Unknown,
}

impl<Out> Forward<Out> {
    /// Returns the output, if there is one.
    pub fn output(self) -> Option<Out> {
        match self {
            Forward::Succeeded(output) => Some(output),
            Forward::Unknown => None,
        }
    }
}

/// Input of a compensation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompensationContext<In, Out> {
    /// The input of the forward attempt.
    pub input: In,
    /// State of the forward attempt.
    pub forward: Forward<Out>,
    /// The effect key that the forward attempts carried; the target knows the effect by it.
    pub forward_key: Uuid,
}

/// Result of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<Out> {
    /// It happened; this is the output that the task would have given.
    Happened(Out),
    /// It did not happen and will not.
    NotHappened,
}

/// One task that the worker holds.
pub(crate) struct InFlight {
    pub(crate) offer: TaskOffer,
    pub(crate) codec: MaybeCodec,
    heart: Arc<Notify>,
    cancelled: AtomicBool,
    cancel: Notify,
    said: Mutex<Said>,
    stage: AtomicU8,
    safe_to_stop: AtomicBool,
    /// The time since when its handler has been running without yielding its thread, see
    /// [`InFlight::watched`].
    running: Mutex<Option<Instant>>,
}

/// It is not begun.
const WAITING: u8 = 0;
/// Its handler has been called.
const BEGUN: u8 = 1;
/// It goes back to the server.
const GIVEN_BACK: u8 = 2;

/// Messages of the handler while it worked.
#[derive(Default)]
struct Said {
    progress: Option<Payload>,
    unsent: bool,
    external_id: Option<String>,
}

impl InFlight {
    /// Makes a task; `heart` is notified when the handler has data for the next heartbeat.
    pub(crate) fn new(offer: TaskOffer, codec: MaybeCodec, heart: Arc<Notify>) -> Arc<InFlight> {
        Arc::new(InFlight {
            offer,
            codec,
            heart,
            cancelled: AtomicBool::new(false),
            cancel: Notify::new(),
            said: Mutex::default(),
            stage: AtomicU8::new(WAITING),
            safe_to_stop: AtomicBool::new(false),
            running: Mutex::new(None),
        })
    }

    /// Encodes what the handler says of its progress. Each time it is something else.
    fn encode_beat(&self, progress: &impl Serialize) -> Result<Payload, serde_json::Error> {
        let context = || format!("{}\nbeat {}", codec::of_task(&self.offer), Uuid::new_v4());
        let progress = Payload::of(progress)?;
        self.codec.encode(progress, context).map_err(serde_json::Error::custom)
    }

    /// Begins it, unless it goes back to the server. Returns whether it does begin.
    pub(crate) fn begin(&self) -> bool {
        self.turn(BEGUN)
    }

    /// Takes it back before it begins. Returns whether it had not begun.
    pub(crate) fn take_back(&self) -> bool {
        self.turn(GIVEN_BACK)
    }

    fn turn(&self, stage: u8) -> bool {
        self.stage.compare_exchange(WAITING, stage, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Returns whether its handler allows it to be stopped and given back.
    pub(crate) fn is_safe_to_stop(&self) -> bool {
        self.safe_to_stop.load(Ordering::Acquire)
    }

    /// Returns the time for which its handler has been running without yielding its thread.
    pub(crate) fn blocks_for(&self) -> Option<Duration> {
        let running = *self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.map(|since| since.elapsed())
    }

    /// Does `work`, and notes for each piece of it when it began to run.
    pub(crate) async fn watched<T>(&self, work: impl Future<Output = T>) -> T {
        let note = |since| *self.running.lock().unwrap_or_else(PoisonError::into_inner) = since;
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|context| {
            note(Some(Instant::now()));
            let polled = work.as_mut().poll(context);
            note(None);
            polled
        })
        .await
    }

    /// Returns the task in the form of a release.
    pub(crate) fn held(&self) -> HeldTask {
        HeldTask {
            run: self.offer.run,
            step: self.offer.step.clone(),
            action: self.offer.action,
            attempt: self.offer.attempt,
            lease: self.offer.lease.clone(),
        }
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.cancel.notify_waiters();
    }

    /// Returns whether the handler reported progress since the last heartbeat.
    pub(crate) fn has_news(&self) -> bool {
        self.said().unsent
    }

    /// Returns a heartbeat with the handler's progress since the last one.
    pub(crate) fn beat(&self) -> Heartbeat {
        let mut said = self.said();
        let news = std::mem::take(&mut said.unsent);
        Heartbeat {
            run: self.offer.run,
            step: self.offer.step.clone(),
            action: self.offer.action,
            attempt: self.offer.attempt,
            lease: self.offer.lease.clone(),
            details: said.progress.clone().filter(|_| news),
        }
    }

    /// Notes that the last heartbeat did not arrive: its content must be sent again.
    pub(crate) fn beat_was_lost(&self) {
        let mut said = self.said();
        said.unsent = said.progress.is_some();
    }

    pub(crate) fn external_id(&self) -> Option<String> {
        self.said().external_id.take()
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TaskContext {
    pub(crate) fn new(task: Arc<InFlight>) -> TaskContext {
        TaskContext { task }
    }

    /// Returns a context to call a handler with in a unit test, without any server: the first attempt of the step
    /// `test`.
    #[must_use]
    pub fn for_test() -> TaskContext {
        TaskContext::for_test_of(StepPath::step("test"), 1)
    }

    /// Returns the same for a given step and attempt.
    #[must_use]
    pub fn for_test_of(step: StepPath, attempt: u32) -> TaskContext {
        let run = RunId(Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0001));
        let offer = TaskOffer {
            run,
            action: Action::Forward,
            attempt,
            name: "test".to_owned(),
            queue: crate::handle::DEFAULT_QUEUE.to_owned(),
            workflow: "test".to_owned(),
            version: 1,
            input: Payload::null(),
            forward: None,
            item_key: None,
            effect_key: effect_key(run, &step, Action::Forward),
            forward_key: None,
            heartbeat: Span::secs(30),
            deadline: Timestamp(backstitch_saga::Time(0).after(Span::secs(300))),
            alone: false,
            correlation_id: run.to_string(),
            details: None,
            lease: None,
            step,
        };
        TaskContext::new(InFlight::new(offer, MaybeCodec::default(), Arc::new(Notify::new())))
    }

    /// Returns the run.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.task.offer.run
    }

    /// Returns the step, or the item of a map step.
    #[must_use]
    pub fn step(&self) -> &StepPath {
        &self.task.offer.step
    }

    /// Returns the key of the item, where its map gives keys.
    #[must_use]
    pub fn item_key(&self) -> Option<&str> {
        self.task.offer.item_key.as_deref()
    }

    /// Returns the number of the attempt of this action, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.task.offer.attempt
    }

    /// Returns the workflow's name and version.
    #[must_use]
    pub fn workflow(&self) -> (&str, u32) {
        (&self.task.offer.workflow, self.task.offer.version)
    }

    /// Returns the key of this effect, the same over all attempts and restarts: hand it to the target, so that it makes
    /// the effect once however often it is asked.
    #[must_use]
    pub fn effect_key(&self) -> Uuid {
        self.task.offer.effect_key
    }

    /// Returns the effect key of the forward attempts, which a probe asks about and a compensation undoes. For a
    /// forward task its own.
    #[must_use]
    pub fn forward_key(&self) -> Uuid {
        self.task.offer.forward_key.unwrap_or(self.task.offer.effect_key)
    }

    /// Returns the correlation id, constant along a chain of causes; hand it to the target for its
    /// logs.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        &self.task.offer.correlation_id
    }

    /// Returns the time at which the attempt is given up in spite of heartbeats, by the server's
    /// clock.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.task.offer.deadline
    }

    /// Reports the progress of the work. The next attempt gets it if this one is lost. Heartbeats are sent
    /// automatically; the progress goes with the next, at most about a second later. A value that cannot be written
    /// as JSON is not sent.
    pub fn heartbeat(&self, progress: &impl Serialize) {
        let encoded = self.task.encode_beat(progress);
        match encoded {
            Ok(progress) => {
                let mut said = self.task.said();
                said.progress = Some(progress);
                said.unsent = true;
                drop(said);
                self.task.heart.notify_one();
            }
            Err(error) => {
                tracing::error!(%error, "what the handler said of its progress cannot be sent");
            }
        }
    }

    /// Returns the progress in the last heartbeat of an earlier attempt, if it can be read as a
    /// `T`.
    #[must_use]
    pub fn progress<T: DeserializeOwned>(&self) -> Option<T> {
        self.task.codec.read(self.task.offer.details.as_ref()?).ok()
    }

    /// Names what the target calls the thing that was made; people see it beside the effect.
    pub fn external_id(&self, id: impl Into<String>) {
        self.task.said().external_id = Some(id.into());
    }

    /// Returns the completion of this attempt with this output, for a statement in the handler's own transaction. It
    /// carries what was named with [`TaskContext::external_id`] so far.
    ///
    /// # Errors
    /// When the output has no JSON form, or the codec of the worker cannot encode it.
    pub fn completion(
        &self,
        output: &impl Serialize,
    ) -> Result<CompleteInTransaction, serde_json::Error> {
        let output = Payload::of(output)?;
        let context = || codec::of_task(&self.task.offer);
        let output = self.task.codec.encode(output, context).map_err(serde_json::Error::custom)?;
        let completion = CompleteInTransaction::of(&self.task.offer, &output)?;
        Ok(completion.external_id(self.named_external_id()))
    }

    /// Returns whether the attempt was revoked: its report will not count any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.task.cancelled.load(Ordering::Acquire)
    }

    /// Waits until the attempt is revoked. Long work selects on it and stops early.
    pub async fn cancelled(&self) {
        loop {
            let told = self.task.cancel.notified();
            if self.is_cancelled() {
                return;
            }
            told.await;
        }
    }

    /// Says whether the handler may be stopped at its next `.await` and its task given back as if it had not been
    /// begun: because nothing has happened yet, or nothing that doing it again would repeat. A worker that shuts down
    /// does so when its time to drain is over. Without it, or after `safe_to_stop(false)`, such a task is reported as
    /// unknown.
    pub fn safe_to_stop(&self, safe: bool) {
        self.task.safe_to_stop.store(safe, Ordering::Release);
    }

    /// Revokes the attempt, as the server would; for unit tests of handlers that listen to it.
    pub fn cancel_for_test(&self) {
        self.task.cancel();
    }

    /// Returns the name that the handler set with [`TaskContext::external_id`]; for unit tests.
    #[must_use]
    pub fn named_external_id(&self) -> Option<String> {
        self.task.said().external_id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cancellation_is_seen_by_those_who_wait_and_those_who_come_later() {
        let context = TaskContext::for_test();
        let waiting = tokio::spawn({
            let context = context.clone();
            async move { context.cancelled().await }
        });
        assert!(!context.is_cancelled());
        context.cancel_for_test();
        waiting.await.unwrap();
        context.cancelled().await;
    }

    #[test]
    fn the_last_word_goes_with_the_next_heartbeat() {
        let context = TaskContext::for_test();
        assert!(!context.task.has_news());
        context.heartbeat(&1);
        context.heartbeat(&2);
        assert!(context.task.has_news());
        assert_eq!(context.task.beat().details.unwrap().text(), "2");
        assert!(!context.task.has_news());
        assert_eq!(context.task.beat().details, None);
        context.task.beat_was_lost();
        assert_eq!(context.task.beat().details.unwrap().text(), "2");
    }
}
