//! Starts runs over one HTTP/1.1 connection, with as little ceremony as a caller in a hurry would make.

use std::time::Duration;

use anyhow::{Context, bail};
use axum::body::Bytes;
use backstitch_saga::RunId;
use backstitch_saga::protocol::RunStarted;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;

/// After a busy answer the next attempt waits this long.
const BUSY: Duration = Duration::from_millis(20);

/// One connection to a server.
pub(super) struct Starter {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    body: Bytes,
    /// How often the server was too busy.
    pub(super) busy: u64,
}

impl Starter {
    /// Connects to `server` (`http://HOST:PORT`), to start runs of `workflow` with `input`.
    pub(super) async fn connect<T: Serialize>(
        server: &str,
        workflow: &str,
        input: &T,
    ) -> anyhow::Result<Starter> {
        let host = server.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let stream =
            TcpStream::connect(&host).await.with_context(|| format!("no way to {host}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let body = serde_json::json!({ "workflow": workflow, "input": input });
        Ok(Starter { sender, host, body: Bytes::from(body.to_string()), busy: 0 })
    }

    /// Starts one run; waits out a busy server.
    pub(super) async fn start(&mut self) -> anyhow::Result<RunId> {
        loop {
            let request = Request::post("/v1/runs")
                .header(header::HOST, &self.host)
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(self.body.clone()))?;
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            match status {
                StatusCode::CREATED => {
                    return Ok(serde_json::from_slice::<RunStarted>(&body)?.id);
                }
                StatusCode::SERVICE_UNAVAILABLE => {
                    self.busy += 1;
                    tokio::time::sleep(BUSY).await;
                }
                _ => bail!("a start was answered {status}: {}", String::from_utf8_lossy(&body)),
            }
        }
    }
}
