//! Relation of a process to its parent: it reports that it is ready, and ends when its parent does.

use std::io::{Read, Write};

use tokio::sync::oneshot;

/// Says that this process is up, in one line on standard output whose last word is a URL: where it listens, or whom
/// it works for. The parent waits for it.
pub fn announce(up: &str, url: &str) {
    let mut out = std::io::stdout().lock();
    // A parent that closed the pipe does not want to know.
    let _ = writeln!(out, "{up} {url}");
    let _ = out.flush();
}

/// Waits until the process is asked to stop (SIGTERM, ctrl-c), or, `with_parent`, until standard input ends, as
/// it does when the parent is gone, however it went.
pub async fn told_to_stop(with_parent: bool) {
    let parent_gone = async {
        if with_parent {
            input_ended().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = parent_gone => {}
        () = signalled() => {}
    }
}

async fn input_ended() {
    let (ended, wait) = oneshot::channel();
    std::thread::spawn(move || {
        let mut sink = [0; 64];
        while matches!(std::io::stdin().read(&mut sink), Ok(1..)) {}
        let _ = ended.send(());
    });
    let _ = wait.await;
}

#[cfg(unix)]
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

#[cfg(not(unix))]
async fn signalled() {
    let _ = tokio::signal::ctrl_c().await;
}
