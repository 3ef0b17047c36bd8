//! Binds requests to the scope of a credential: one table of all operations that change something.
//!
//! A scope bounds what is done, and which tasks are handed out. Reading is bounded by the namespace alone.

use axum::RequestExt;
use axum::extract::{RawPathParams, Request};
use axum::http::{Method, StatusCode};
use backstitch_saga::protocol::{CredentialScope, IncidentId, NewJob};
use backstitch_saga::{Definition, RunId, Task};
use serde::de::DeserializeOwned;

use crate::access::{Caller, Right};
use crate::app::App;
use crate::problem::Rejection;

/// Place in which an operation names its queue or workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// In the path, by its own name.
    Path,
    /// In the path, by a run.
    Run,
    /// In the path, by an incident of a run.
    Incident,
    /// In the path, by a schedule.
    Schedule,
    /// In the path, by a compensation plan.
    Plan,
    /// In the path, by a job.
    Job,
    /// In the path, by a start request.
    StartRequest,
    /// In the path, by a subscription.
    Subscription,
    /// In the body, which its handler checks.
    Body,
    /// In the body, by the tokens of leases, which only who claimed the tasks has.
    Lease,
}

/// The resource that an operation is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Neither a queue nor a workflow.
    Neither,
    /// A queue.
    Queue(Named),
    /// A workflow.
    Workflow(Named),
    /// A workflow, by its name in the path, and the queues and children in the body.
    Both,
}

use Kind::{Both, Neither, Queue, Workflow};
use Named::{Body, Incident, Job, Lease, Path, Plan, Run, Schedule, StartRequest, Subscription};

/// Every operation that changes something with its kind. Reads are bound to neither.
pub(crate) const KINDS: &[(&str, &str, Kind)] = &[
    ("PUT", "/v1/workflows/{name}/versions/{version}", Both),
    ("POST", "/v1/facts/{subject}/{fact}/establish", Neither),
    ("POST", "/v1/facts/{subject}/{fact}/withdraw", Neither),
    ("POST", "/v1/runs/{id}/skip-requirements", Workflow(Run)),
    ("POST", "/v1/workflows/{name}/migrations", Workflow(Path)),
    ("POST", "/v1/workflows/{name}/migrations/{id}/stop", Workflow(Path)),
    ("POST", "/v1/runs", Workflow(Body)),
    ("POST", "/v1/runs/batch", Workflow(Body)),
    ("POST", "/v1/runs/{id}/steps/{step}/mark-compensated", Workflow(Run)),
    ("POST", "/v1/runs/{id}/compensate", Workflow(Run)),
    ("POST", "/v1/runs/{id}/plans", Workflow(Run)),
    ("PUT", "/v1/plans/{plan}", Workflow(Plan)),
    ("POST", "/v1/plans/{plan}/approve", Workflow(Plan)),
    ("POST", "/v1/plans/{plan}/apply", Workflow(Plan)),
    ("POST", "/v1/plans/{plan}/withdraw", Workflow(Plan)),
    ("POST", "/v1/runs/{id}/cancel", Workflow(Run)),
    ("POST", "/v1/runs/{id}/kill", Workflow(Run)),
    ("POST", "/v1/runs/{id}/retry", Workflow(Run)),
    ("POST", "/v1/runs/{id}/pause", Workflow(Run)),
    ("PATCH", "/v1/runs/{id}/labels", Workflow(Run)),
    ("POST", "/v1/runs/{id}/resume", Workflow(Run)),
    ("POST", "/v1/runs/{id}/rerun", Workflow(Run)),
    ("POST", "/v1/runs/{id}/steps/{step}/retry", Workflow(Run)),
    ("POST", "/v1/runs/{id}/steps/{step}/skip", Workflow(Run)),
    ("POST", "/v1/runs/{id}/steps/{step}/resolve", Workflow(Run)),
    ("POST", "/v1/runs/{id}/signals/{signal}", Workflow(Run)),
    ("POST", "/v1/signals", Workflow(Body)),
    ("POST", "/v1/incidents/{incident}/retry", Workflow(Incident)),
    ("POST", "/v1/incidents/{incident}/skip", Workflow(Incident)),
    ("POST", "/v1/incidents/{incident}/resolve", Workflow(Incident)),
    ("POST", "/v1/incidents/{incident}/mark-compensated", Workflow(Incident)),
    ("POST", "/v1/incidents/{incident}/compensate", Workflow(Incident)),
    ("POST", "/v1/incidents/{incident}/cancel", Workflow(Incident)),
    ("POST", "/v1/incidents/{incident}/abandon", Workflow(Incident)),
    ("POST", "/v1/incidents/{incident}/assign", Workflow(Incident)),
    ("POST", "/v1/incidents/{incident}/note", Workflow(Incident)),
    ("POST", "/v1/workflows/{name}/pause", Workflow(Path)),
    ("POST", "/v1/workflows/{name}/resume", Workflow(Path)),
    ("POST", "/v1/jobs", Workflow(Body)),
    ("POST", "/v1/jobs/{job}/pause", Workflow(Job)),
    ("POST", "/v1/jobs/{job}/resume", Workflow(Job)),
    ("POST", "/v1/jobs/{job}/stop", Workflow(Job)),
    ("POST", "/v1/start-requests/{id}/retry", Workflow(StartRequest)),
    ("POST", "/v1/start-requests/{id}/dismiss", Workflow(StartRequest)),
    // Its workflow before and after.
    ("PUT", "/v1/schedules/{name}", Workflow(Schedule)),
    ("DELETE", "/v1/schedules/{name}", Workflow(Schedule)),
    ("POST", "/v1/schedules/{name}/pause", Workflow(Schedule)),
    ("POST", "/v1/schedules/{name}/resume", Workflow(Schedule)),
    ("POST", "/v1/schedules/{name}/trigger", Workflow(Schedule)),
    ("POST", "/v1/schedules/{name}/backfill", Workflow(Schedule)),
    ("POST", "/v1/tasks/claim", Queue(Body)),
    ("POST", "/v1/tasks/complete", Queue(Lease)),
    ("POST", "/v1/tasks/heartbeat", Queue(Lease)),
    ("POST", "/v1/tasks/release", Queue(Lease)),
    ("POST", "/v1/workers/sign-off", Queue(Lease)),
    ("PUT", "/v1/queues/{name}", Queue(Path)),
    ("DELETE", "/v1/queues/{name}", Queue(Path)),
    ("POST", "/v1/queues/{name}/pause", Queue(Path)),
    ("POST", "/v1/queues/{name}/resume", Queue(Path)),
    ("POST", "/v1/queues/{name}/open", Queue(Path)),
    ("POST", "/v1/queues/{name}/close", Queue(Path)),
    ("PUT", "/v1/contracts/{subject}", Neither),
    ("POST", "/v1/contracts/{subject}/versions", Neither),
    ("PUT", "/v1/contracts/{subject}/versions/{version}/state", Neither),
    ("PUT", "/v1/contracts/{subject}/readers/{name}", Neither),
    ("DELETE", "/v1/contracts/{subject}/readers/{name}", Neither),
    ("PUT", "/v1/transforms/{from}/{from_version}/{to}/{to_version}", Neither),
    ("POST", "/v1/transforms/{from}/{from_version}/{to}/{to_version}/activate", Neither),
    ("POST", "/v1/in/{namespace}/{source}", Neither),
    ("POST", "/v1/in/{namespace}/{source}/batch", Neither),
    ("POST", "/v1/in/{namespace}/{source}/files", Neither),
    ("POST", "/v1/imports/{id}/cancel", Neither),
    ("PUT", "/v1/links/{system}/{external_id}", Neither),
    ("DELETE", "/v1/links/{system}/{external_id}", Neither),
    ("POST", "/v1/link-conflicts/{id}/resolve", Neither),
    ("POST", "/v1/reprocessings", Neither),
    ("POST", "/v1/reprocessings/{id}/stop", Neither),
    ("POST", "/v1/intakes/{id}/reprocess", Neither),
    ("POST", "/v1/events", Neither),
    ("PUT", "/v1/cursors/{name}", Neither),
    ("DELETE", "/v1/cursors/{name}", Neither),
    // Its workflow before and after.
    ("PUT", "/v1/subscriptions/{name}", Workflow(Subscription)),
    ("DELETE", "/v1/subscriptions/{name}", Workflow(Subscription)),
    ("POST", "/v1/subscriptions/{name}/pause", Workflow(Subscription)),
    ("POST", "/v1/subscriptions/{name}/resume", Workflow(Subscription)),
    ("POST", "/v1/subscriptions/{name}/reset", Workflow(Subscription)),
    ("POST", "/v1/subscriptions/{name}/skip", Workflow(Subscription)),
    // An admin has no bounds.
    ("POST", "/v1/runs/{id}/erase", Neither),
    ("POST", "/v1/erasures", Neither),
    ("PUT", "/v1/workflows/{name}/retention", Neither),
    ("PUT", "/v1/workflows/{name}/undo-approval", Neither),
    ("PUT", "/v1/sources/{name}", Neither),
    ("DELETE", "/v1/sources/{name}", Neither),
    ("POST", "/v1/sources/{name}/rotate", Neither),
    ("PUT", "/v1/credentials/{name}", Neither),
    ("POST", "/v1/credentials/{name}/rotate", Neither),
    ("DELETE", "/v1/credentials/{name}", Neither),
    ("PUT", "/v1/database-roles/{role}", Neither),
    ("DELETE", "/v1/database-roles/{role}", Neither),
    ("PUT", "/v1/quotas", Neither),
    ("DELETE", "/v1/quotas", Neither),
];

/// Returns the kind of an operation; `None` if it is missing: then no credential with bounds may
/// use it.
pub(crate) fn kind_of(method: &Method, path: &str, right: Option<Right>) -> Option<Kind> {
    let listed = KINDS.iter().find(|kind| (kind.0, kind.1) == (method.as_str(), path));
    match (listed, right) {
        (Some((_, _, kind)), _) => Some(*kind),
        (None, Some(Right::Public | Right::Read)) => Some(Neither),
        (None, Some(_)) if method == Method::GET => Some(Neither),
        (None, _) => None,
    }
}

/// Admits a request whose path names nothing outside the scope of its caller. A missing object is reported by its
/// handler.
///
/// # Errors
/// 403 `out_of_scope`.
pub(crate) async fn admit(
    app: &App,
    caller: &Caller,
    scope: &CredentialScope,
    kind: Option<Kind>,
    request: &mut Request,
) -> Result<(), Rejection> {
    let Some(kind) = kind else {
        return Err(out_of_scope("operation", "which says of no scope what it means for it"));
    };
    let named = match kind {
        Neither => return Ok(()),
        Queue(named) | Workflow(named) => named,
        Both => Path,
    };
    let parameter = match named {
        Path | Schedule | Subscription => "name",
        Run | StartRequest => "id",
        Incident => "incident",
        Job => "job",
        Plan => "plan",
        Body | Lease => return Ok(()),
    };
    let Some(value) = path_parameter(request, parameter).await else { return Ok(()) };
    if let Queue(_) = kind {
        return queue(scope, &value);
    }
    let namespace = &*caller.namespace;
    let workflow = match named {
        Run => match read::<RunId>(&value) {
            Some(run) => app.engine.workflow_of_run(namespace, run).await?,
            None => None,
        },
        Incident => match value.parse::<IncidentId>() {
            Ok(incident) => app.engine.workflow_of_run(namespace, incident.run).await?,
            Err(_) => None,
        },
        Schedule => {
            there(app.engine.schedule(namespace, &value).await)?.map(|view| view.spec.workflow)
        }
        Subscription => {
            let found = app.engine.subscription(namespace, &value).await;
            there(found)?.map(|view| view.spec.workflow)
        }
        StartRequest => match read(&value) {
            Some(id) => {
                there(app.engine.start_request(namespace, id).await)?.map(|view| view.workflow)
            }
            None => None,
        },
        Plan => match read(&value) {
            Some(id) => {
                let found = app.engine.compensation_plan(namespace, id, None, 1).await;
                there(found)?.map(|view| view.plan.workflow)
            }
            None => None,
        },
        Job => match read(&value) {
            Some(id) => match there(app.engine.job(namespace, id).await)? {
                Some(view) => return job(scope, &view.asked),
                None => None,
            },
            None => None,
        },
        Path | Body | Lease => Some(value),
    };
    workflow.map_or(Ok(()), |name| self::workflow(scope, &name))
}

/// Returns the value, `None` if it was not found.
fn there<T>(found: Result<T, backstitch_engine::Error>) -> Result<Option<T>, Rejection> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(backstitch_engine::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}

async fn path_parameter(request: &mut Request, name: &str) -> Option<String> {
    let parameters = request.extract_parts::<RawPathParams>().await.ok()?;
    parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
}

/// Lets through what is about a queue in scope.
///
/// # Errors
/// 403 `out_of_scope`.
pub(crate) fn queue(scope: &CredentialScope, queue: &str) -> Result<(), Rejection> {
    if scope.has_queue(queue) { Ok(()) } else { Err(out_of_scope("queue", queue)) }
}

/// Lets through what is about a workflow in scope.
///
/// # Errors
/// 403 `out_of_scope`.
pub(crate) fn workflow(scope: &CredentialScope, workflow: &str) -> Result<(), Rejection> {
    if scope.has_workflow(workflow) { Ok(()) } else { Err(out_of_scope("workflow", workflow)) }
}

/// Lets a job through that is about one workflow in scope.
///
/// # Errors
/// 403 `out_of_scope`.
pub(crate) fn job(scope: &CredentialScope, asked: &NewJob) -> Result<(), Rejection> {
    let all = |patterns: &Vec<String>| patterns.iter().any(|pattern| pattern == "*");
    if scope.workflows.as_ref().is_none_or(all) {
        return Ok(());
    }
    let of_incidents = asked.incidents.as_ref().map(|filter| filter.workflow.as_deref());
    let of_runs = asked.runs.as_ref().map(|filter| filter.workflow.as_deref());
    for named in of_incidents.into_iter().chain(of_runs) {
        match named {
            Some(name) => workflow(scope, name)?,
            None => return Err(out_of_scope("job", "which names no workflow")),
        }
    }
    Ok(())
}

/// Lets a definition through whose tasks and children are in scope. One that cannot be read is refused by others.
///
/// # Errors
/// 403 `out_of_scope`.
pub(crate) fn definition(scope: &CredentialScope, text: &str) -> Result<(), Rejection> {
    let Ok(definition) = serde_json::from_str::<Definition>(text) else { return Ok(()) };
    for step in &definition.steps {
        if let Some(child) = &step.child {
            workflow(scope, &child.workflow)?;
        }
        let of_map = step.map.as_ref().map(|map| &map.task);
        for task in step.task.as_ref().into_iter().chain(of_map) {
            queues_of(task).try_for_each(|name| queue(scope, name))?;
        }
    }
    Ok(())
}

fn queues_of(task: &Task) -> impl Iterator<Item = &str> {
    let verify = task.verify.as_ref().and_then(|verify| verify.queue.as_deref());
    let compensate = task.compensate.as_ref().and_then(|undo| undo.queue.as_deref());
    std::iter::once(task.queue.as_str()).chain(verify).chain(compensate)
}

fn out_of_scope(what: &str, name: &str) -> Rejection {
    let detail = format!(
        "The credential does not reach the {what} '{name}'; GET /v1/whoami tells what it reaches, an admin makes another."
    );
    Rejection::new(StatusCode::FORBIDDEN, "out_of_scope", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::RULES;

    #[test]
    fn every_operation_is_of_a_kind_and_every_kind_is_that_of_an_operation() {
        for (method, path, right) in RULES {
            let kind = kind_of(&method.parse().unwrap(), path, Some(*right));
            assert!(kind.is_some(), "say in KINDS what scopes mean for {method} {path}");
        }
        for (index, (method, path, _)) in KINDS.iter().enumerate() {
            assert!(
                RULES.iter().any(|rule| (rule.0, rule.1) == (*method, *path)),
                "{method} {path}"
            );
            let twice = KINDS[..index].iter().any(|kind| (kind.0, kind.1) == (*method, *path));
            assert!(!twice, "{method} {path}");
        }
    }

    #[test]
    fn a_definition_reaches_the_queues_of_its_tasks_and_its_children() {
        let scope = CredentialScope {
            queues: Some(vec!["mine-*".to_owned()]),
            workflows: Some(vec!["place-*".to_owned()]),
        };
        let with = |step: &str| format!(r#"{{"name":"w","version":1,"steps":[{step}]}}"#);
        let task = |queue: &str, more: &str| {
            format!(r#"{{"name":"h","queue":"{queue}","input":{{"path":"/input"}}{more}}}"#)
        };
        let undo = r#","compensate":{"name":"u","queue":"theirs"}"#;
        let good = [
            format!(r#"{{"id":"a","task":{}}}"#, task("mine-1", "")),
            r#"{"id":"a","child":{"workflow":"place-order","input":{"path":"/input"}}}"#.to_owned(),
        ];
        let bad = [
            format!(r#"{{"id":"a","task":{}}}"#, task("theirs", "")),
            format!(r#"{{"id":"a","task":{}}}"#, task("mine-1", undo)),
            format!(
                r#"{{"id":"a","map":{{"items":{{"path":"/input"}},"join":"all","task":{}}}}}"#,
                task("theirs", "")
            ),
            r#"{"id":"a","child":{"workflow":"billing","input":{"path":"/input"}}}"#.to_owned(),
        ];
        for step in good {
            assert!(definition(&scope, &with(&step)).is_ok(), "{step}");
        }
        for step in bad {
            let refused = definition(&scope, &with(&step)).unwrap_err();
            assert_eq!(refused.parts().1, "out_of_scope", "{step}");
        }
    }
}
