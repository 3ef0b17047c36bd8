//! Governed queues, with what their limits do; and who works.

use askama::Template;
use backstitch_saga::protocol::{BreakerState, Page, QueueView, WorkerView};
use serde_json::json;

use crate::ask::{Ask, Problem, encoded};
use crate::form::Deed;
use crate::page::{Frame, Shown, ok};
use crate::show::{Badge, Tone, instant, moment, number};

struct Line {
    view: QueueView,
    /// The limits of the policy, a sentence each.
    rules: Vec<String>,
    breaker: Option<Badge>,
    deeds: Vec<Deed>,
}

#[derive(Template)]
#[template(path = "queues.html")]
struct QueuesPage {
    frame: Frame,
    mark: u64,
    lines: Vec<Line>,
    deeds: Vec<Deed>,
}

pub(crate) async fn list(ask: Ask) -> Shown {
    match list_page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

/// Describes a policy.
fn rules(view: &QueueView) -> Vec<String> {
    let policy = &view.policy;
    let mut rules = Vec::new();
    if let Some(most) = policy.concurrency {
        rules.push(format!("At most {} tasks are in workers' hands at once.", number(most.into())));
    }
    if let Some(most) = policy.concurrency_per_key {
        rules.push(format!("Of one key at most {}.", number(most.into())));
    }
    if let Some(rate) = &policy.rate {
        rules.push(format!("At most {} begin in {}.", number(rate.limit.into()), rate.per));
    }
    if let Some(rate) = &policy.rate_per_key {
        rules.push(format!("Of one key at most {} in {}.", number(rate.limit.into()), rate.per));
    }
    if let Some(label) = &policy.fair_by {
        rules.push(format!("Runs with different '{label}' take turns."));
    }
    if let Some(label) = &policy.priority_by {
        rules.push(format!("Those with a higher '{label}' come first."));
    }
    if let Some(breaker) = &policy.breaker {
        rules.push(format!(
            "It stops for {} when {} % of at least {} calls within {} fail.",
            breaker.open_for,
            (breaker.failure_ratio * 100.0).round(),
            breaker.min_calls,
            breaker.window
        ));
    }
    if let Some(budget) = &policy.retry_budget {
        rules.push(format!(
            "At most {} % of first attempts, and {} a second, are retries.",
            (budget.ratio * 100.0).round(),
            budget.min_per_s
        ));
    }
    rules
}

async fn list_page(ask: &Ask) -> Result<QueuesPage, Problem> {
    let who = ask.who().await?;
    let (page, mark): (Page<QueueView>, u64) = ask.get_live("/v1/queues").await?;
    let line = |view: QueueView| {
        let path = format!("/v1/queues/{}", encoded(&view.queue));
        let of = |word: &'static str, label, about| {
            Deed::new(word, label, format!("{path}/{word}")).about(about)
        };
        let mut deeds = vec![match view.paused {
            Some(_) => of("resume", "Resume", "Hands its tasks out again."),
            None => of("pause", "Pause", "Hands none of its tasks out until it is resumed."),
        }];
        let breaker = view.breaker.as_ref().map(|breaker| breaker.state);
        match breaker {
            Some(BreakerState::Closed) => {
                let about = "Stops calls as if the destination failed.";
                deeds.push(of("open", "Open the breaker", about));
            }
            Some(_) => {
                deeds.push(of("close", "Close the breaker", "Lets calls through again at once."));
            }
            None => {}
        }
        deeds.push(
            Deed::put("set-queue", "Change the policy", path.clone(), &view.policy)
                .about("What the queue is bound to from now on."),
        );
        deeds.push(
            Deed::delete("remove-queue", "Remove the policy", path.clone())
                .about("Nothing bounds the queue then."),
        );
        Line {
            rules: rules(&view),
            breaker: breaker.map(|state| match state {
                BreakerState::Closed => Badge::new(Tone::Good, "closed"),
                BreakerState::Open => Badge::new(Tone::Bad, "open"),
                BreakerState::HalfOpen => Badge::new(Tone::Doubt, "half open"),
            }),
            deeds,
            view,
        }
    };
    Ok(QueuesPage {
        frame: Frame::new(ask, who, "queues", "Queues"),
        mark,
        lines: page.items.into_iter().map(line).collect(),
        deeds: vec![
            Deed::make(
                "set-queue",
                "Govern a queue",
                "/v1/queues/{name}",
                &json!({ "concurrency": 20, "breaker": {} }),
            )
            .about("Bounds what a destination is asked at once, and stops while it fails."),
        ],
    })
}

struct Worker {
    view: WorkerView,
    since: (String, String),
    gone: Option<(String, String)>,
}

#[derive(Template)]
#[template(path = "workers.html")]
struct WorkersPage {
    frame: Frame,
    mark: u64,
    workers: Vec<Worker>,
    next: Option<String>,
    gone: bool,
}

pub(crate) async fn workers(ask: Ask) -> Shown {
    match workers_page(&ask).await {
        Ok(page) => ok(&page),
        Err(problem) => Err(ask.failed(problem).await),
    }
}

async fn workers_page(ask: &Ask) -> Result<WorkersPage, Problem> {
    let who = ask.who().await?;
    let gone = ask.param("gone") == Some("true");
    let mut path = "/v1/workers".to_owned();
    if gone || ask.param("after").is_some() {
        path += &format!("?gone={gone}");
    }
    if let Some(after) = ask.param("after") {
        path += &format!("&after={}", encoded(after));
    }
    let (page, mark): (Page<WorkerView>, u64) = ask.get_live(&path).await?;
    let at = |at| (instant(at), moment(at));
    let worker =
        |view: WorkerView| Worker { since: at(view.since), gone: view.gone_at.map(at), view };
    Ok(WorkersPage {
        frame: Frame::new(ask, who, "workers", "Workers"),
        mark: if gone { 0 } else { mark },
        workers: page.items.into_iter().map(worker).collect(),
        next: page
            .next
            .map(|next| format!("/console/workers?gone={gone}&after={}", encoded(&next))),
        gone,
    })
}
