//! Subscriptions of which something was heard: a run that one of their events started has ended, needs a person, or does so no longer.
//! What is not heard, because another node saw it, is found by looking.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backstitch_saga::{Effect, Run};
use tokio::sync::Notify;

/// Subscriptions of which something may be heard at once; of the others it is found by looking.
const MOST: usize = 10_000;
/// For how long nothing is heard of a subscription that had nothing to do.
const IGNORED_FOR: Duration = Duration::from_secs(1);

/// Delay until a subscription is heard of again that another node works on.
const BUSY_FOR: Duration = Duration::from_millis(20);

/// A namespace, and the name of a subscription in it.
type Name = (String, String);

/// Names of subscriptions of which something was heard.
#[derive(Default)]
pub(crate) struct Heard {
    bell: Notify,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    heard: BTreeSet<Name>,
    ignored: HashMap<Name, Instant>,
}

impl Heard {
    fn change<T>(&self, change: impl FnOnce(&mut Names) -> T) -> T {
        change(&mut self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ring(&self, namespace: &str, name: &str) {
        let name = (namespace.to_owned(), name.to_owned());
        let is_new = self.change(|names| {
            let ignored = names.ignored.get(&name).is_some_and(|until| Instant::now() < *until);
            !ignored && names.heard.len() < MOST && names.heard.insert(name)
        });
        if is_new {
            self.bell.notify_one();
        }
    }

    /// Waits until something is heard.
    pub(super) async fn wait(&self) {
        self.bell.notified().await;
    }

    /// Takes what was heard.
    pub(super) fn take(&self) -> BTreeSet<Name> {
        self.change(|names| std::mem::take(&mut names.heard))
    }

    /// Leaves what nothing could be done about now: those that are `busy` are in the hands of another node and heard of again soon,
    /// of the others nothing is heard for a moment.
    pub(super) fn leave(self: &Arc<Self>, mut names: BTreeSet<Name>, busy: &[Name]) {
        if names.is_empty() {
            return;
        }
        let now = Instant::now();
        let again: Vec<Name> = busy.iter().filter_map(|name| names.take(name)).collect();
        if !again.is_empty() {
            let heard = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(BUSY_FOR).await;
                again.iter().for_each(|(namespace, name)| heard.ring(namespace, name));
            });
        }
        self.change(|known| {
            known.ignored.retain(|_, until| *until > now);
            let room = MOST.saturating_sub(known.ignored.len());
            known
                .ignored
                .extend(names.into_iter().take(room).map(|name| (name, now + IGNORED_FOR)));
        });
    }

    /// Hears of a subscription again.
    pub(super) fn heed(&self, namespace: &str, name: &str) {
        let name = (namespace.to_owned(), name.to_owned());
        self.change(|names| names.ignored.remove(&name));
    }
}

/// A record of a run is committed. Most runs were started by no subscription.
pub(crate) fn after(heard: &Heard, run: &Run, effects: &[Effect]) {
    let Some(name) = run.key().and_then(subscription_of) else { return };
    let matters = |effect: &Effect| {
        matches!(effect, Effect::Ended(_) | Effect::IncidentOpened(_) | Effect::IncidentResolved(_))
    };
    if effects.iter().any(matters) {
        heard.ring(run.namespace(), name);
    }
}

/// The subscription that a key of the form `name/generation/position` names.
fn subscription_of(key: &str) -> Option<&str> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (rest, _) = key.rsplit_once('/').filter(|(_, position)| is_number(position))?;
    let (name, generation) = rest.rsplit_once('/')?;
    (is_number(generation) && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_run_says_which_subscription_started_it() {
        for (key, expected) in [
            ("welcome/1/20", Some("welcome")),
            ("a/b/1/2", Some("a/b")),
            ("welcome/1/", None),
            ("welcome/x/1", None),
            ("/1/1", None),
            ("1/1", None),
            ("order-7", None),
        ] {
            assert_eq!(subscription_of(key), expected, "{key}");
        }
    }

    #[tokio::test]
    async fn a_subscription_without_anything_to_do_is_not_heard_of_for_a_moment() {
        let heard = Arc::new(Heard::default());
        let one = || BTreeSet::from([("n".to_owned(), "one".to_owned())]);
        heard.ring("n", "one");
        heard.ring("n", "one");
        assert_eq!(heard.take(), one());
        heard.leave(one(), &[]);
        heard.ring("n", "one");
        assert_eq!(heard.take(), BTreeSet::new());
        heard.heed("n", "one");
        heard.ring("n", "one");
        assert_eq!(heard.take(), one());
        heard.leave(one(), &[("n".to_owned(), "one".to_owned())]);
        let mut found = heard.take();
        while found.is_empty() {
            heard.wait().await;
            found = heard.take();
        }
        assert_eq!(found, one());
    }
}
