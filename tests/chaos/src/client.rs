//! Clients: they ask over REST, note what they saw of each call, and ask again where that is safe.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::program::Program;
use crate::timeline::now_ms;

/// Result of a call, as a client saw it.
#[derive(Clone, Debug, PartialEq)]
pub enum Saw {
    /// It was done.
    Ok(Value),
    /// It was not done, and never will be.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The problem's code.
        code: String,
    },
    /// No answer, or one that says that it is not known.
    Unknown(String),
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// A run.
    Start {
        /// The workflow.
        workflow: String,
        /// The key.
        key: String,
    },
    /// That the end of an attempt be taken.
    Report {
        /// The run.
        run: Uuid,
        /// The step or item.
        step: String,
        /// The action.
        action: String,
        /// The attempt.
        attempt: u32,
    },
    /// That a signal be taken.
    Signal {
        /// The run.
        run: Uuid,
        /// The signal.
        signal: String,
    },
    /// That a fact stand.
    Establish {
        /// The fact.
        fact: String,
        /// The object of the call.
        subject: String,
    },
    /// An act on a run: the verb.
    Act {
        /// The run.
        run: Uuid,
        /// The verb.
        verb: String,
    },
}

/// A call and what was seen of it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Time of the call, in milliseconds since 1970.
    pub at: i64,
    /// Time of its result.
    pub until: i64,
    /// The request.
    pub asked: Asked,
    /// The result.
    pub saw: Saw,
}

/// Everything that clients saw. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<Call>>>);

impl Log {
    /// Notes a call.
    pub fn note(&self, at: i64, asked: Asked, saw: Saw) {
        let call = Call { at, until: now_ms(), asked, saw };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    /// Returns all calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A client of one or more engines on the same database.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    urls: Vec<String>,
    namespace: Option<String>,
    /// The calls.
    pub log: Log,
}

impl Api {
    /// Returns a client of the engines at `urls`; asks the first, then the next when that does not answer.
    #[must_use]
    pub fn new(urls: &[String], log: &Log) -> Api {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(8)).build();
        Api {
            http: http.unwrap_or_default(),
            urls: urls.to_vec(),
            namespace: None,
            log: log.clone(),
        }
    }

    /// Returns the same in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Api {
        Api { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// Returns the same with another engine first.
    #[must_use]
    pub fn at(&self, engine: usize) -> Api {
        let mut urls = self.urls.clone();
        let count = urls.len().max(1);
        urls.rotate_left(engine % count);
        Api { urls, ..self.clone() }
    }

    /// Returns a client of the first engine only.
    #[must_use]
    pub fn alone(&self) -> Api {
        Api { urls: self.urls.iter().take(1).cloned().collect(), ..self.clone() }
    }

    /// Asks once; the engine is the first.
    pub async fn once(&self, method: Method, path: &str, body: Option<&Value>, key: &str) -> Saw {
        let url = format!("{}{path}", self.urls.first().map_or("", String::as_str));
        let mut request = self.http.request(method, url);
        if let Some(namespace) = &self.namespace {
            request = request.header("backstitch-namespace", namespace);
        }
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Saw::Unknown(error.to_string()),
        };
        let status = response.status().as_u16();
        let text = match response.text().await {
            Ok(text) => text,
            Err(error) => return Saw::Unknown(error.to_string()),
        };
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        match status {
            200..=299 => Saw::Ok(body),
            503 => Saw::Unknown(body["code"].as_str().unwrap_or("503").to_owned()),
            _ => {
                let code = body["code"].as_str().unwrap_or("none").to_owned();
                Saw::Refused { status, code }
            }
        }
    }

    /// Asks until it is known what came of it, at one engine after the other. `key` makes that safe.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: &str,
        within: Duration,
    ) -> Saw {
        let until = Instant::now() + within;
        let mut client = self.clone();
        loop {
            let saw = client.once(method.clone(), path, body, key).await;
            // A key whose first request is under way is asked for again.
            let in_flight = matches!(&saw, Saw::Refused { status: 409, code } if code == "idempotency_in_flight");
            if !(matches!(saw, Saw::Unknown(_)) || in_flight) || Instant::now() > until {
                return saw;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            client = client.at(1);
        }
    }

    /// Sends a text of some type to the door of a source, with its token, until it is known what came of it. The same
    /// text is the same document.
    ///
    /// # Errors
    /// When it is refused, or not answered in time.
    pub async fn send(
        &self,
        path: &str,
        token: &str,
        (kind, text): (&str, &str),
        within: Duration,
    ) -> anyhow::Result<(u16, Value)> {
        let until = Instant::now() + within;
        let url = format!("{}{path}", self.urls.first().map_or("", String::as_str));
        loop {
            let request = self.http.post(&url).bearer_auth(token);
            let request = request.header("content-type", kind).body(text.to_owned());
            let answer = match request.send().await {
                Ok(answer) => Ok((answer.status().as_u16(), answer.text().await)),
                Err(error) => Err(error),
            };
            if let Ok((status, Ok(text))) = answer
                && status != 503
            {
                return Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)));
            }
            anyhow::ensure!(Instant::now() < until, "POST {path} is not answered");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Reads a document; asks for half a minute.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        match self.ask(Method::GET, path, None, "", Duration::from_secs(30)).await {
            Saw::Ok(value) => Ok(value),
            other => bail!("GET {path}: {other:?}"),
        }
    }

    /// Registers a program and all that are steps of it.
    ///
    /// # Errors
    /// When the engine refuses it, or is gone for long.
    pub async fn register(&self, program: &Program) -> anyhow::Result<()> {
        for program in program.all() {
            let path = format!("/v1/workflows/{}/versions/1", program.name);
            let definition = program.definition();
            let wait = Duration::from_secs(30);
            match self.ask(Method::PUT, &path, Some(&definition), "", wait).await {
                Saw::Ok(_) => {}
                other => bail!("PUT {path}: {other:?}"),
            }
        }
        Ok(())
    }

    /// Starts a run under `key`, and asks until it is known. What is seen of each call is noted.
    ///
    /// # Errors
    /// When that could not be found out.
    pub async fn start(&self, workflow: &str, key: &str) -> anyhow::Result<Uuid> {
        self.start_in_line(workflow, key, None).await
    }

    /// Returns the same under a serial key, where there is one: it waits for its turn.
    ///
    /// # Errors
    /// When that could not be found out.
    pub async fn start_in_line(
        &self,
        workflow: &str,
        key: &str,
        serial_key: Option<&str>,
    ) -> anyhow::Result<Uuid> {
        let mut body = json!({ "workflow": workflow, "key": key, "input": null });
        if let Some(serial_key) = serial_key {
            body["sequence"] = json!({ "serial_key": serial_key });
        }
        let until = Instant::now() + Duration::from_secs(60);
        let mut client = self.clone();
        loop {
            let at = now_ms();
            let saw = client.once(Method::POST, "/v1/runs", Some(&body), "").await;
            let asked = Asked::Start { workflow: workflow.to_owned(), key: key.to_owned() };
            self.log.note(at, asked, saw.clone());
            match saw {
                Saw::Ok(started) => return id_of(&started),
                Saw::Unknown(_) if Instant::now() < until => {}
                other => {
                    bail!("a run of {workflow} with the key {key} could not be started: {other:?}")
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            client = client.at(1);
        }
    }

    /// Starts a run, once.
    pub async fn start_once(&self, workflow: &str, key: &str) -> Saw {
        let body = json!({ "workflow": workflow, "key": key, "input": null });
        let at = now_ms();
        let saw = self.once(Method::POST, "/v1/runs", Some(&body), "").await;
        let asked = Asked::Start { workflow: workflow.to_owned(), key: key.to_owned() };
        self.log.note(at, asked, saw.clone());
        saw
    }

    /// Sends a signal to a run until it has come.
    ///
    /// # Errors
    /// When that could not be found out.
    pub async fn signal(&self, run: Uuid, signal: &str, adds: i64) -> anyhow::Result<()> {
        let path = format!("/v1/runs/{run}/signals/{signal}");
        let body = json!({ "data": { "v": adds } });
        let (at, key) = (now_ms(), Uuid::new_v4().to_string());
        let saw = self.ask(Method::POST, &path, Some(&body), &key, Duration::from_secs(60)).await;
        let asked = Asked::Signal { run, signal: signal.to_owned() };
        self.log.note(at, asked, saw.clone());
        match saw {
            Saw::Unknown(error) => bail!("the signal {signal} to {run}: {error}"),
            _ => Ok(()),
        }
    }

    /// Establishes a fact, until that is known.
    ///
    /// # Errors
    /// When that could not be found out.
    pub async fn establish(&self, fact: &str, subject: &str) -> anyhow::Result<()> {
        let path = format!("/v1/facts/{subject}/{fact}/establish");
        let body = json!({ "reason": "chaos" });
        let (at, key) = (now_ms(), Uuid::new_v4().to_string());
        let saw = self.ask(Method::POST, &path, Some(&body), &key, Duration::from_secs(60)).await;
        let asked = Asked::Establish { fact: fact.to_owned(), subject: subject.to_owned() };
        self.log.note(at, asked, saw.clone());
        match saw {
            Saw::Ok(_) => Ok(()),
            other => bail!("POST {path}: {other:?}"),
        }
    }

    /// Does something to a run, such as `cancel`, until the result is known.
    pub async fn act(&self, run: Uuid, verb: &str) -> Saw {
        let path = format!("/v1/runs/{run}/{verb}");
        let body = json!({ "reason": "chaos" });
        let (at, key) = (now_ms(), Uuid::new_v4().to_string());
        let saw = self.ask(Method::POST, &path, Some(&body), &key, Duration::from_secs(60)).await;
        self.log.note(at, Asked::Act { run, verb: verb.to_owned() }, saw.clone());
        saw
    }

    /// Claims tasks by hand.
    pub async fn claim(&self, session: Uuid, max: u32, wait: &str) -> Vec<Value> {
        let body = json!({
            "worker": "hand", "session": session, "max": max, "wait": wait,
            "queues": { "default": ["do", "undo", "look"] },
        });
        match self.once(Method::POST, "/v1/tasks/claim", Some(&body), "").await {
            Saw::Ok(claimed) => claimed["tasks"].as_array().cloned().unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// Claims one task by hand, within ten seconds.
    ///
    /// # Errors
    /// When none comes.
    pub async fn claim_one(&self, session: Uuid) -> anyhow::Result<Value> {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if let Some(task) = self.claim(session, 1, "2s").await.pop() {
                return Ok(task);
            }
        }
        bail!("no task came within ten seconds")
    }

    /// Reports tasks as done, all in one request and with the same output; what is seen of each is noted and answered.
    pub async fn report(&self, tasks: &[&Value], output: &Value) -> Vec<Saw> {
        let tasks: Vec<(&Value, &Value)> = tasks.iter().map(|task| (*task, output)).collect();
        self.report_each(&tasks).await
    }

    /// Returns the same with an output for each.
    pub async fn report_each(&self, tasks: &[(&Value, &Value)]) -> Vec<Saw> {
        let result = |(task, output): &(&Value, &Value)| {
            json!({
                "run": task["run"], "step": task["step"], "action": task["action"],
                "attempt": task["attempt"], "outcome": { "succeeded": { "output": output } },
            })
        };
        let results: Vec<Value> = tasks.iter().map(result).collect();
        let at = now_ms();
        let body = json!({ "results": results });
        let path = "/v1/tasks/complete";
        let answer = self.once_whatever(path, &body).await;
        let each = |index: usize| match &answer {
            Err(error) => Saw::Unknown(error.clone()),
            Ok(answer) => saw_of(&answer["results"][index]),
        };
        let mut all = Vec::new();
        for (index, (task, _)) in tasks.iter().enumerate() {
            let saw = each(index);
            self.log.note(at, asked_of(task), saw.clone());
            all.push(saw);
        }
        all
    }

    /// Posts, and returns the body whatever the status.
    async fn once_whatever(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.urls.first().map_or("", String::as_str));
        let mut request = self.http.post(url).json(body);
        if let Some(namespace) = &self.namespace {
            request = request.header("backstitch-namespace", namespace);
        }
        let response = request.send().await.map_err(|error| error.to_string())?;
        response.json().await.map_err(|error| error.to_string())
    }

    /// Returns all pages of a list.
    ///
    /// # Errors
    /// When a page is not there.
    pub async fn all(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let (mut items, mut after) = (Vec::new(), String::new());
        let joint = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = self.get(&format!("{path}{joint}limit=1000{after}")).await?;
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(items),
            }
        }
    }

    /// Returns the numbers of the first engine, by name.
    pub async fn metrics(&self) -> Vec<(String, f64)> {
        let url = format!("{}/metrics", self.urls.first().map_or("", String::as_str));
        let Ok(response) = self.http.get(url).send().await else { return Vec::new() };
        let text = response.text().await.unwrap_or_default();
        let number = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        text.lines().filter(|line| !line.starts_with('#')).filter_map(number).collect()
    }
}

fn saw_of(answer: &Value) -> Saw {
    let code = || answer["code"].as_str().unwrap_or("none").to_owned();
    match answer["status"].as_u64() {
        Some(200) => Saw::Ok(Value::Null),
        Some(status @ 400..=502) => {
            Saw::Refused { status: u16::try_from(status).unwrap_or(500), code: code() }
        }
        _ => Saw::Unknown(code()),
    }
}

fn asked_of(task: &Value) -> Asked {
    let text = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
    Asked::Report {
        run: text("run").parse().unwrap_or_default(),
        step: text("step"),
        action: text("action"),
        attempt: task["attempt"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
    }
}

/// Returns the run that an answer names.
///
/// # Errors
/// When it names none.
pub fn id_of(answer: &Value) -> anyhow::Result<Uuid> {
    let id = answer["id"].as_str().context("an answer without an id")?;
    Ok(id.parse()?)
}
