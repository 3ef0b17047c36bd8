//! Bugs put in on purpose, for the chaos harness to find: what they need of the engine. Compiled only with the feature
//! `planted-bugs`; the bugs are listed in `backstitch_saga::planted`.

use std::sync::Arc;
use std::time::Duration;

use backstitch_saga::{Run, Time, planted};

use crate::executor::decide::Decided;
use crate::executor::request::{Answered, ShardCommand};
use crate::node::Node;
use crate::store::batch::Batch;
use crate::{StartedRun, store};

/// Chooses the bug that the environment names.
pub(crate) fn choose() {
    if let Ok(bug) = std::env::var("BACKSTITCH_BUG") {
        assert!(planted::BUGS.contains(&bug.as_str()), "no bug is called {bug}");
        planted::choose(&bug);
    }
}

/// Returns a run as it was loaded from its journal.
pub(crate) fn loaded(mut run: Run) -> Run {
    if planted!("attempts-reset") {
        run.forget_attempts();
    }
    run
}

/// Answers what was accepted, before it is written.
pub(crate) fn reply_early(decided: &mut [Decided]) {
    if !planted!("reply-before-commit") {
        return;
    }
    for one in decided {
        for (envelope, result) in &mut one.commands {
            let Ok(reply) = result else { continue };
            let answer = match &envelope.order {
                ShardCommand::Start(_) => {
                    Answered::Started(StartedRun { id: envelope.run, created: true })
                }
                _ => Answered::Reply(*reply),
            };
            envelope.answer(Ok(answer));
        }
    }
}

/// Writes the tasks that a batch put on offer, when it is committed already.
pub(crate) fn enqueue_later(node: &Arc<Node>, batch: Batch) {
    if !planted!("enqueue-outside") {
        return;
    }
    let node = Arc::clone(node);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Ok(mut connection) = node.database.keepers.acquire().await {
            let _ = store::planted::enqueue(&mut connection, &batch.offers).await;
        }
    });
}

/// Returns the time on a machine whose clock is wrong by `BACKSTITCH_CLOCK_LIE` milliseconds.
pub(crate) fn shown(shown: Time) -> Time {
    let lie = std::env::var("BACKSTITCH_CLOCK_LIE").ok().and_then(|lie| lie.parse::<i64>().ok());
    match lie {
        Some(lie) if planted!("local-clock") => Time(shown.0 + lie),
        _ => shown,
    }
}
