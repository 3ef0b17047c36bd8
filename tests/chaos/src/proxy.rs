//! A TCP proxy between any two, that can delay, cut, fall silent, and lose answers.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, watch};

/// Target of a proxy.
#[derive(Clone, Debug)]
pub enum Target {
    /// A unix socket, such as PostgreSQL's.
    Unix(PathBuf),
    /// An address, `HOST:PORT`.
    Tcp(String),
}

/// State of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Open.
    Open,
    /// Everything takes so much longer.
    Slow(Duration),
    /// Half-open: connections stand, and nothing comes through either way.
    Silent,
    /// Requests come through, answers do not; their connections break when the way is open again.
    Mute,
    /// Connections break, and new ones do at once.
    Cut,
}

/// A proxy. Dropped, it takes no new connections.
pub struct Proxy {
    port: u16,
    target: Arc<Mutex<Target>>,
    way: watch::Sender<Way>,
    needle: Arc<Mutex<Option<Vec<u8>>>>,
    lost: Arc<Notify>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// Returns a proxy to `target` on a port of its own.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(target: Target) -> anyhow::Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (way, seen) = watch::channel(Way::Open);
        let needle: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
        let lost = Arc::new(Notify::new());
        let loss = Loss { needle: Arc::clone(&needle), lost: Arc::clone(&lost) };
        let target = Arc::new(Mutex::new(target));
        let leads = Arc::clone(&target);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let _ = client.set_nodelay(true);
                let target = leads.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tokio::spawn(connect(client, target, seen.clone(), loss.clone()));
            }
        });
        Ok(Proxy { port, target, way, needle, lost, accepting })
    }

    /// Returns its address: `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Leads new connections there from now on.
    pub fn lead_to(&self, target: Target) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Makes the way so from now on.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Loses the answer to the next request that contains `needle`, which comes through.
    pub fn lose_answer_to(&self, needle: &str) {
        *self.needle.lock().unwrap_or_else(PoisonError::into_inner) = Some(needle.into());
    }

    /// Waits until that has happened.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }
}

#[derive(Clone)]
struct Loss {
    needle: Arc<Mutex<Option<Vec<u8>>>>,
    lost: Arc<Notify>,
}

impl Loss {
    fn hits(&self, chunk: &[u8]) -> bool {
        let mut needle = self.needle.lock().unwrap_or_else(PoisonError::into_inner);
        let hit = needle.as_ref().is_some_and(|needle| {
            !needle.is_empty() && chunk.windows(needle.len()).any(|window| window == needle)
        });
        if hit {
            *needle = None;
        }
        hit
    }
}

async fn connect(client: TcpStream, target: Target, way: watch::Receiver<Way>, loss: Loss) {
    if *way.borrow() == Way::Cut {
        return;
    }
    let (from_client, to_client) = client.into_split();
    // Set once the answer to come is to be lost.
    let doomed = Arc::new(Mutex::new(false));
    match target {
        Target::Unix(path) => {
            let Ok(server) = UnixStream::connect(path).await else { return };
            let (from_server, to_server) = server.into_split();
            both(from_client, to_client, from_server, to_server, way, loss, doomed).await;
        }
        Target::Tcp(address) => {
            let Ok(server) = TcpStream::connect(address).await else { return };
            let _ = server.set_nodelay(true);
            let (from_server, to_server) = server.into_split();
            both(from_client, to_client, from_server, to_server, way, loss, doomed).await;
        }
    }
}

async fn both<A, B, C, D>(
    from_client: A,
    to_client: B,
    from_server: C,
    to_server: D,
    way: watch::Receiver<Way>,
    loss: Loss,
    doomed: Arc<Mutex<bool>>,
) where
    A: AsyncRead + Unpin,
    B: AsyncWrite + Unpin,
    C: AsyncRead + Unpin,
    D: AsyncWrite + Unpin,
{
    let up = async {
        let mark = |chunk: &[u8]| {
            if loss.hits(chunk) {
                *doomed.lock().unwrap_or_else(PoisonError::into_inner) = true;
            }
            false
        };
        relay(from_client, to_server, way.clone(), false, mark).await;
    };
    let down = async {
        let mark = |_: &[u8]| {
            let hit = *doomed.lock().unwrap_or_else(PoisonError::into_inner);
            if hit {
                loss.lost.notify_one();
            }
            hit
        };
        relay(from_server, to_client, way.clone(), true, mark).await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// Carries one direction until it breaks. `stop` looks at what comes and says whether the connection ends there.
async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut way: watch::Receiver<Way>,
    answers: bool,
    stop: impl Fn(&[u8]) -> bool,
) {
    let mut buffer = vec![0; 65_536];
    let mut muted = false;
    loop {
        let count = tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(count @ 1..) => count,
                _ => return,
            },
            changed = way.changed() => {
                let now = *way.borrow();
                if changed.is_err() || now == Way::Cut || (muted && now != Way::Mute) {
                    return;
                }
                continue;
            }
        };
        let chunk = &buffer[..count];
        if stop(chunk) {
            return;
        }
        loop {
            let now = *way.borrow();
            match now {
                Way::Open => break,
                Way::Slow(delay) => {
                    tokio::time::sleep(delay).await;
                    break;
                }
                Way::Cut => return,
                Way::Mute if answers => {
                    muted = true;
                    break;
                }
                Way::Mute => break,
                Way::Silent => {
                    if way.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
        if !muted && to.write_all(chunk).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn say(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
        stream.write_all(text.as_bytes()).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    #[tokio::test]
    async fn each_way_is_as_it_says() {
        let proxy = Proxy::start(Target::Tcp(echo().await)).await.unwrap();
        let connect = || TcpStream::connect(proxy.address());
        let mut stream = connect().await.unwrap();
        assert_eq!(say(&mut stream, "one").await.unwrap(), "one");

        proxy.set(Way::Silent);
        let silent =
            tokio::time::timeout(Duration::from_millis(100), say(&mut stream, "two")).await;
        assert!(silent.is_err(), "nothing comes through");
        proxy.set(Way::Open);
        let mut late = [0; 3];
        stream.read_exact(&mut late).await.unwrap();
        assert_eq!(&late, b"two", "it comes when the way is open again");

        proxy.set(Way::Mute);
        let mute = tokio::time::timeout(Duration::from_millis(100), say(&mut stream, "abc")).await;
        assert!(mute.is_err(), "the answer does not come");
        proxy.set(Way::Open);
        assert!(stream.read_exact(&mut late).await.is_err(), "and the connection breaks");

        let mut stream = connect().await.unwrap();
        proxy.lose_answer_to("needle");
        assert_eq!(say(&mut stream, "hay").await.unwrap(), "hay");
        assert!(say(&mut stream, "a needle").await.is_err());
        proxy.lost().await;

        let mut stream = connect().await.unwrap();
        proxy.set(Way::Cut);
        assert!(say(&mut stream, "cut").await.is_err());
        assert!(say(&mut connect().await.unwrap(), "cut").await.is_err());
    }
}
