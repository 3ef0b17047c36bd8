//! The tour in `docs/api.md`: what it sends must be what the server reads.

use backstitch_saga::Graph;
use backstitch_saga::protocol::{
    AssignIncident, ClaimTasks, CompensateRun, CompleteTasks, NewJob, Overlap, Problem, Reason,
    RetryStep, ScheduleSpec, StartRun, StartRuns,
};
use serde_json::Value;

const SCHEDULES: &str = include_str!("../../docs/schedules.md");
const TOUR: &str = include_str!("../../docs/api.md");
const RUN: &str = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";

/// Returns the bodies that the tour sends with `-d '…'`, in order.
fn bodies() -> Vec<String> {
    TOUR.split("-d '")
        .skip(1)
        .map(|rest| rest.split_once('\'').expect("a closing quote").0.replace("RUN-ID", RUN))
        .collect()
}

#[test]
fn the_definition_is_valid() {
    let (_, rest) = TOUR.split_once("<<'JSON'\n").expect("the definition");
    let (definition, _) = rest.split_once("\nJSON\n").expect("its end");
    let graph = Graph::parse(definition).expect("a valid definition");
    assert_eq!(graph.nodes.len(), 2);
}

#[test]
fn the_requests_are_read() {
    let bodies = bodies();
    let [start, bounded, many, claim, complete, dry_run, compensate] = &bodies[..] else {
        panic!("the tour sends {} bodies; say here what they are", bodies.len())
    };
    serde_json::from_str::<StartRun>(start).expect("a start");
    let bounded: StartRun = serde_json::from_str(bounded).expect("a start with an end");
    assert!(bounded.end_by.is_some());
    assert_eq!(serde_json::from_str::<StartRuns>(many).expect("many starts").runs.len(), 2);
    serde_json::from_str::<ClaimTasks>(claim).expect("a claim");
    serde_json::from_str::<CompleteTasks>(complete).expect("a report");
    assert!(serde_json::from_str::<CompensateRun>(dry_run).expect("a dry run").dry_run);
    assert!(!serde_json::from_str::<CompensateRun>(compensate).expect("an undo").dry_run);
    serde_json::from_str::<Reason>(r#"{"reason": "…"}"#).expect("the acts of the table");
}

/// What `docs/incidents.md` sends, by the members that tell what it is.
#[test]
fn the_requests_of_a_night_are_read() {
    let page = include_str!("../../docs/incidents.md");
    let mut read = 0;
    for rest in page.split("-d '").skip(1) {
        let (body, _) = rest.split_once('\'').expect("a closing quote");
        let value: Value = serde_json::from_str(body).expect("JSON");
        match (value.get("verb"), value.get("assignee")) {
            (Some(_), _) => drop(serde_json::from_str::<NewJob>(body).expect("a job")),
            (_, Some(_)) => drop(serde_json::from_str::<AssignIncident>(body).expect("a gift")),
            _ => drop(serde_json::from_str::<RetryStep>(body).expect("an act")),
        }
        read += 1;
    }
    assert!(read >= 5, "{read}");
}

#[test]
fn the_schedule_is_read() {
    let (_, page) = SCHEDULES.split_once("/v1/schedules/").expect("a schedule is put");
    let (_, rest) = page.split_once("-d '").expect("a body");
    let (body, _) = rest.split_once('\'').expect("a closing quote");
    let spec: ScheduleSpec = serde_json::from_str(body).expect("a schedule");
    let without = r#"{"cron": "30 2 * * *", "workflow": "nightly-report"}"#;
    let without: ScheduleSpec = serde_json::from_str(without).expect("a schedule");
    assert_eq!(
        (without.time_zone.as_str(), without.catch_up.to_string()),
        ("UTC", "1h".to_owned())
    );
    assert_eq!((without.overlap, without.queue_limit), (Overlap::Skip, 1));
    assert_eq!(spec.overlap, Overlap::Queue);
}

#[test]
fn the_steps_that_wait_are_steps() {
    let (_, rest) = TOUR.split_once("```json\n").expect("the steps");
    let (steps, _) = rest.split_once("```").expect("their end");
    let steps: Vec<backstitch_saga::Step> = serde_json::from_str(steps).expect("steps");
    assert_eq!(steps.len(), 4);
}

#[test]
fn the_error_is_a_problem() {
    let (_, rest) = TOUR.rsplit_once("```json\n").expect("the error");
    let (error, _) = rest.split_once("```").expect("its end");
    let problem: Problem = serde_json::from_str(error).expect("a problem");
    let again = serde_json::to_value(&problem).expect("JSON");
    assert_eq!(again, serde_json::from_str::<Value>(error).expect("JSON"));
}

#[test]
fn every_route_of_the_tour_is_there() {
    let document = serde_json::to_value(backstitch_api::document()).expect("the document");
    let known: Vec<Vec<&str>> = document["paths"]
        .as_object()
        .expect("paths")
        .keys()
        .map(|path| path.split('/').collect())
        .collect();
    let routes = TOUR.split("$S/").skip(1).chain(TOUR.split(" /v1").skip(1));
    for route in routes {
        let route = route.split(['?', ' ', '"', '`', '\n']).next().unwrap_or_default();
        let route = format!("/v1/{}", route.trim_start_matches("v1").trim_start_matches('/'));
        let parts: Vec<&str> = route.split('/').collect();
        let fits = |path: &&Vec<&str>| {
            path.len() == parts.len()
                && path.iter().zip(&parts).all(|(a, b)| a == b || a.starts_with('{'))
        };
        assert!(known.iter().any(|path| fits(&path)), "{route}");
    }
}
