//! A proxy in front of PostgreSQL that can lose a statement, or the answer to one, or fall silent.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// The message to lose, once, when a client sends something that contains the needle.
#[derive(Clone, Debug)]
pub enum Loss {
    /// It never arrives.
    Statement(Vec<u8>),
    /// It is done, but its answer never arrives.
    Answer(Vec<u8>),
}

/// The proxy.
pub struct Proxy {
    port: u16,
    armed: Arc<Mutex<Option<Loss>>>,
    silent: watch::Sender<bool>,
}

impl Proxy {
    /// Returns a proxy to the server whose socket is in `dir`.
    ///
    /// # Panics
    /// When no port is to be had.
    pub async fn start(dir: PathBuf) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let armed: Arc<Mutex<Option<Loss>>> = Arc::default();
        let losses = Arc::clone(&armed);
        let silent = watch::Sender::new(false);
        let becomes_silent = silent.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let Ok(mut server) = UnixStream::connect(dir.join(".s.PGSQL.5432")).await else {
                    continue;
                };
                let (losses, mut silent) = (Arc::clone(&losses), becomes_silent.subscribe());
                tokio::spawn(async move {
                    let told = tokio::select! {
                        told = silent.changed() => told.is_ok(),
                        () = relay(&mut client, &mut server, losses) => false,
                    };
                    if told {
                        // Neither side is told of anything: nothing comes, and nothing is closed.
                        std::future::pending::<()>().await;
                    }
                    drop((client, server));
                });
            }
        });
        Proxy { port, armed, silent }
    }

    /// Lets all connections that are open fall silent, as when a machine vanishes. New ones are as before.
    pub fn silence(&self) {
        self.silent.send_replace(true);
    }

    /// Returns the URL of `database` through the proxy.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://backstitch@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Arms the proxy.
    pub fn lose(&self, loss: Loss) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some(loss);
    }

    /// Returns whether the loss is still to come.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}

async fn relay(client: &mut TcpStream, server: &mut UnixStream, armed: Arc<Mutex<Option<Loss>>>) {
    let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(count @ 1..) = read else { return };
                let chunk = &from_client[..count];
                let hit = {
                    let mut armed = armed.lock().unwrap_or_else(PoisonError::into_inner);
                    let needle = match &*armed {
                        Some(Loss::Statement(needle) | Loss::Answer(needle)) => needle.as_slice(),
                        None => &[],
                    };
                    if !needle.is_empty() && contains(chunk, needle) { armed.take() } else { None }
                };
                match hit {
                    Some(Loss::Statement(_)) => return,
                    Some(Loss::Answer(_)) => {
                        // Done once the server answers; the answer goes nowhere.
                        if server.write_all(chunk).await.is_ok() {
                            let _ = server.read(&mut from_server).await;
                        }
                        return;
                    }
                    None => if server.write_all(chunk).await.is_err() { return },
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&from_server[..count]).await.is_err() { return }
            }
        }
    }
}
