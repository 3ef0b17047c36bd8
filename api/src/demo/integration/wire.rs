//! Asks the server of the demo, as any system does that sends documents or operates it.

use anyhow::{Context, ensure};
use reqwest::{Method, Response};
use serde_json::{Value, json};

/// The secret of the demo's sources.
const TOKEN: &str = "a-token-of-the-demo";

/// An answer of the server.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

/// The server of the demo.
pub(super) struct Wire {
    http: reqwest::Client,
    url: String,
}

impl Wire {
    pub(super) fn new(url: &str) -> Wire {
        Wire { http: reqwest::Client::new(), url: url.to_owned() }
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = read(self.http.get(format!("{}{path}", self.url)).send().await?).await?;
        ensure!(answer.status == 200, "GET {path} is answered {}: {}", answer.status, answer.body);
        Ok(answer.body)
    }

    /// Asks for something that must be done.
    pub(super) async fn act(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let request = self.http.request(method.clone(), format!("{}{path}", self.url)).json(body);
        let answer = read(request.send().await?).await?;
        let done = (200..300).contains(&answer.status);
        ensure!(done, "{method} {path} is answered {}: {}", answer.status, answer.body);
        Ok(answer.body)
    }

    /// Makes or changes a source.
    pub(super) async fn source(&self, name: &str, spec: &Value) -> anyhow::Result<()> {
        let body = json!({"spec": spec, "secret": TOKEN, "reason": "the demo"});
        self.act(Method::PUT, &format!("/v1/sources/{name}"), &body).await.map(drop)
    }

    /// Sends a document to the door of a source.
    pub(super) async fn send(&self, source: &str, document: &Value) -> anyhow::Result<Answer> {
        let url = format!("{}/v1/in/default/{source}", self.url);
        read(self.http.post(url).bearer_auth(TOKEN).json(document).send().await?).await
    }

    /// Sends lines of JSON to it. Returns with one element for each.
    pub(super) async fn send_lines(
        &self,
        source: &str,
        documents: &[Value],
    ) -> anyhow::Result<Vec<Value>> {
        let lines: String = documents.iter().map(|document| format!("{document}\n")).collect();
        let url = format!("{}/v1/in/default/{source}/batch", self.url);
        let request = self.http.post(url).bearer_auth(TOKEN).body(lines);
        let request = request.header("content-type", "application/x-ndjson");
        let answer = read(request.send().await?).await?;
        let records = answer.body["records"].as_array().cloned();
        records.with_context(|| format!("{source} is answered {}", answer.body))
    }
}

async fn read(response: Response) -> anyhow::Result<Answer> {
    let status = response.status().as_u16();
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status, body })
}
