//! Loops that go on for as long as their node lives, whatever happens in them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::task::JoinHandle;

use crate::executor::decide::text_of;
use crate::node::Node;

/// Pause of a loop after its first panic; it doubles after each that follows soon.
const FIRST_REST: Duration = Duration::from_millis(200);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Begins a loop. If it panics it is begun again after a pause, with a line in the log and a count.
pub(crate) fn forever<F>(
    node: &Arc<Node>,
    name: &'static str,
    work: impl Fn(Arc<Node>) -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send,
{
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let mut rest = Duration::ZERO;
        loop {
            let began = Instant::now();
            let ended = AssertUnwindSafe(work(Arc::clone(&node))).catch_unwind().await;
            let Err(panic) = ended else { return };
            node.counters.loops_panicked.one();
            rest = rest_after(rest, began.elapsed());
            tracing::error!(
                task = name,
                panic = text_of(panic.as_ref()),
                ?rest,
                "a defect stopped a background task; it begins anew"
            );
            tokio::time::sleep(rest).await;
        }
    })
}

/// Returns the pause of a loop that ran for `worked`, after a pause of `before`.
fn rest_after(before: Duration, worked: Duration) -> Duration {
    match worked > LONGEST_REST {
        true => FIRST_REST,
        false => (before * 2).clamp(FIRST_REST, LONGEST_REST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_panics_again_and_again_rests_longer_each_time_up_to_a_minute() {
        assert_eq!(rest_after(Duration::ZERO, Duration::ZERO), FIRST_REST);
        let mut rest = FIRST_REST;
        for _ in 0..20 {
            let next = rest_after(rest, Duration::from_secs(1));
            assert!(next > rest || next == LONGEST_REST, "{rest:?} {next:?}");
            rest = next;
        }
        assert_eq!(rest, LONGEST_REST);
        assert_eq!(rest_after(rest, LONGEST_REST * 2), FIRST_REST);
    }
}
