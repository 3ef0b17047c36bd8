//! How a process of the shop lives with the one that started it: it says where it listens, and ends when its
//! parent does.

use std::io::{Read, Write};
use std::net::SocketAddr;

use tokio::sync::oneshot;

/// What a service prints first, before the address: the parent reads it from there.
pub const LISTENING: &str = "listening on ";

/// Says where this process listens, as its first line on standard output.
pub fn announce(address: SocketAddr) {
    let mut out = std::io::stdout().lock();
    // A parent that closed the pipe does not want to know.
    let _ = writeln!(out, "{LISTENING}http://{address}");
    let _ = out.flush();
}

/// Ready when the process is asked to stop (SIGTERM, ctrl-c), or, `with_parent`, when standard input ends, as it
/// does when the parent is gone, however it went.
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
