//! The heads of logs whose readers wait at this node: looked up together, however many wait.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::node::Node;
use crate::store::log as table;

/// Interval at which heads are read that other nodes may have moved.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Number of heads in one read; the others follow immediately.
const LOOKED_UP: usize = 1_000;

/// Namespaces with waiting readers: the head that was seen last, and the number of readers.
type Waiting = BTreeMap<Arc<str>, (watch::Sender<i64>, usize)>;

/// The heads of logs whose readers wait at this node.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    waiting: Mutex<Waiting>,
}

/// A reader that waits. Forgotten when dropped.
pub(crate) struct Waiter<'a> {
    heads: &'a Heads,
    namespace: Arc<str>,
    seen: watch::Receiver<i64>,
}

impl Heads {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of the head of a namespace from now on.
    pub(crate) fn wait(&self, namespace: &str) -> Waiter<'_> {
        let namespace: Arc<str> = namespace.into();
        let mut waiting = self.lock();
        let (head, count) =
            waiting.entry(Arc::clone(&namespace)).or_insert_with(|| (watch::Sender::new(0), 0));
        *count += 1;
        Waiter { heads: self, seen: head.subscribe(), namespace }
    }

    /// Returns the first namespaces after one whose readers wait.
    fn after(&self, last: Option<&Arc<str>>) -> Vec<String> {
        let from = last.map_or(Bound::Unbounded, |last| Bound::Excluded(Arc::clone(last)));
        let waiting = self.lock();
        let names = waiting.range::<Arc<str>, _>((from, Bound::Unbounded));
        names.take(LOOKED_UP).map(|(name, _)| name.to_string()).collect()
    }

    /// Tells readers where heads are.
    fn tell(&self, found: Vec<(String, i64)>) {
        let waiting = self.lock();
        for (namespace, position) in found {
            if let Some((head, _)) = waiting.get(namespace.as_str()) {
                head.send_if_modified(|seen| std::mem::replace(seen, position) < position);
            }
        }
    }
}

impl Waiter<'_> {
    /// Waits until the head is seen beyond a position.
    pub(crate) async fn beyond(&mut self, position: i64) {
        // An error means that the heads are not looked at any more.
        if self.seen.wait_for(|head| *head > position).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.heads.lock();
        if let Some((_, count)) = waiting.get_mut(&self.namespace) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.namespace);
            }
        }
    }
}

/// Looks up the heads that readers wait for when positions were given here, and now and then.
pub(crate) async fn serve(node: Arc<Node>) {
    let mut numbered = node.log.subscribe();
    loop {
        // Changed or not, the heads are read.
        let _ = tokio::time::timeout(LOOK_EVERY, numbered.changed()).await;
        if let Err(error) = look(&node).await {
            tracing::warn!(%error, "looking for what readers of the log wait for failed and is tried again");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn look(node: &Node) -> Result<(), crate::Error> {
    let mut last = None;
    loop {
        let wanted = node.log.heads.after(last.as_ref());
        let Some(end) = wanted.last() else { return Ok(()) };
        last = Some(Arc::from(end.as_str()));
        let mut connection = node.database.keepers.acquire().await?;
        let found = table::heads_of(&mut connection, &wanted).await?;
        drop(connection);
        node.log.heads.tell(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_head_is_looked_up_once_however_many_wait_and_no_more_when_nobody_does() {
        let heads = Heads::default();
        let mut first = heads.wait("a");
        let others = [heads.wait("a"), heads.wait("b")];
        assert_eq!(heads.after(None), ["a", "b"]);
        assert_eq!(heads.after(Some(&"a".into())), ["b"]);
        heads.tell(vec![("a".to_owned(), 5), ("gone".to_owned(), 9)]);
        first.beyond(4).await;
        let beyond = tokio::time::timeout(Duration::from_millis(20), first.beyond(5)).await;
        assert!(beyond.is_err(), "it is not beyond where it is");
        drop((first, others));
        assert!(heads.lock().is_empty());
    }
}
