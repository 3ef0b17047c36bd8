//! Starts runs over one HTTP/1.1 connection, with as little ceremony as a caller in a hurry would make: several in one
//! request when there is room for several.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::body::Bytes;
use backstitch_saga::RunId;
use backstitch_saga::protocol::{RunStarted, StartAnswers};
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
    /// One start as JSON.
    start: String,
    /// Number of times that the server was too busy.
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
        let start = serde_json::json!({ "workflow": workflow, "input": input }).to_string();
        Ok(Starter { sender, host, start, busy: 0 })
    }

    /// Starts `count` runs with one request; waits out a busy server. Fewer, when it was busy for some of them.
    pub(super) async fn start(&mut self, count: usize) -> anyhow::Result<Vec<RunId>> {
        if count == 1 {
            let body = self.ask("/v1/runs", self.start.clone()).await?;
            return Ok(vec![serde_json::from_slice::<RunStarted>(&body)?.id]);
        }
        let runs = vec![self.start.as_str(); count].join(",");
        let body = self.ask("/v1/runs/batch", format!(r#"{{"runs":[{runs}]}}"#)).await?;
        let StartAnswers { results } = serde_json::from_slice(&body)?;
        let refused = results.iter().filter(|answer| answer.id.is_none());
        for answer in refused {
            ensure!(answer.status == 503, "one start of many was answered {answer:?}");
            self.busy += 1;
        }
        Ok(results.into_iter().filter_map(|answer| answer.id).collect())
    }

    async fn ask(&mut self, path: &str, body: String) -> anyhow::Result<Bytes> {
        let text = Bytes::from(body);
        loop {
            let request = Request::post(path)
                .header(header::HOST, &self.host)
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(text.clone()))?;
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            match status {
                StatusCode::CREATED | StatusCode::MULTI_STATUS => return Ok(body),
                StatusCode::SERVICE_UNAVAILABLE => {
                    self.busy += 1;
                    tokio::time::sleep(BUSY).await;
                }
                _ => bail!("a start was answered {status}: {}", String::from_utf8_lossy(&body)),
            }
        }
    }
}
