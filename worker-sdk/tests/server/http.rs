//! As much of an HTTP/1.1 server as a worker needs to speak to: JSON bodies with a length, connections kept alive.

use std::future::Future;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The answer: a status and a JSON body. `None` breaks the connection off.
pub(crate) type Answer = Option<(u16, String)>;

/// Serves `answer(path, body, idempotency key)` on a free port until the returned tasks are dropped; the server's URL.
pub(crate) async fn serve<F, Work>(answer: F) -> (String, JoinSet<()>)
where
    F: Fn(String, String, Option<String>) -> Work + Send + Sync + 'static,
    Work: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            connections.spawn(async move {
                let _ = speak(stream, &*answer).await;
            });
        }
    });
    (url, tasks)
}

async fn speak<F, Work>(stream: TcpStream, answer: &F) -> std::io::Result<()>
where
    F: Fn(String, String, Option<String>) -> Work,
    Work: Future<Output = Answer>,
{
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let (mut length, mut key) = (0, None);
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await?;
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("idempotency-key:") {
                key = Some(value.trim().to_owned());
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let answered = tokio::select! {
            answered = answer(path, body, key) => answered,
            // Nothing is sent before the answer, so this is the other side hanging up.
            _ = stream.fill_buf() => None,
        };
        let Some((status, json)) = answered else { return Ok(()) };
        let head = format!(
            "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            json.len()
        );
        stream.get_mut().write_all(format!("{head}{json}").as_bytes()).await?;
    }
}
