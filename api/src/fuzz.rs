//! The parsers of this crate, for fuzzing: each a function of bytes that panics when a law is broken. Only with the
//! feature `fuzz`; see the crate `backstitch-fuzz`.

use axum::http::{HeaderMap, HeaderValue};
use backstitch_saga::protocol::{
    BackfillSchedule, ClaimTasks, CompensateIncident, CompensateRun, CompleteTasks, HeartbeatTasks,
    NewCredential, NewJob, NewMigration, PauseRun, QueuePolicy, Reason, ReleaseTasks, RerunRun,
    ResolveStep, RetryStep, RotateCredential, ScheduleSpec, SendSignal, SendSignalByKey, SignOff,
    SkipStep, StartRun, StartRuns,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::check::Check;
use crate::{body, idempotency, query, routes};

/// Reads the header `Idempotency-Key`: a key in quotes is the key without them.
///
/// # Panics
/// When a law is broken.
pub fn idempotency_key(bytes: &[u8]) {
    let read = |bytes: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.append(idempotency::KEY, HeaderValue::from_bytes(bytes).ok()?);
        idempotency::key_of(&headers).ok()
    };
    let Some(key) = read(bytes) else { return };
    assert_eq!(read(key.as_bytes()), Some(key.clone()));
    assert_eq!(read(format!("\"{key}\"").as_bytes()), Some(key));
}

/// Reads the query of a list.
///
/// # Panics
/// When a law is broken.
pub fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    routes::read_queries(text);
    let _ = query::has_control_character(text);
}

/// Reads a request's body as everything that is sent: what is accepted is accepted when it is printed, and prints the
/// same.
///
/// # Panics
/// When a law is broken.
pub fn body(bytes: &[u8]) {
    same_again::<StartRun>(bytes);
    same_again::<StartRuns>(bytes);
    same_again::<ClaimTasks>(bytes);
    same_again::<CompleteTasks>(bytes);
    same_again::<HeartbeatTasks>(bytes);
    same_again::<ReleaseTasks>(bytes);
    same_again::<SignOff>(bytes);
    same_again::<CompensateRun>(bytes);
    same_again::<CompensateIncident>(bytes);
    same_again::<Reason>(bytes);
    same_again::<ScheduleSpec>(bytes);
    same_again::<BackfillSchedule>(bytes);
    same_again::<PauseRun>(bytes);
    same_again::<RetryStep>(bytes);
    same_again::<SkipStep>(bytes);
    same_again::<ResolveStep>(bytes);
    same_again::<RerunRun>(bytes);
    same_again::<SendSignal>(bytes);
    same_again::<SendSignalByKey>(bytes);
    same_again::<NewJob>(bytes);
    same_again::<NewMigration>(bytes);
    same_again::<NewCredential>(bytes);
    same_again::<RotateCredential>(bytes);
    same_again::<QueuePolicy>(bytes);
}

fn same_again<T: DeserializeOwned + Serialize + Check>(bytes: &[u8]) {
    let Ok(value) = body::parse::<T>(bytes) else { return };
    let printed = serde_json::to_vec(&value).expect("it has JSON");
    match body::parse::<T>(&printed) {
        Ok(again) => {
            let reprinted = serde_json::to_vec(&again).expect("it has JSON");
            assert_eq!(String::from_utf8_lossy(&reprinted), String::from_utf8_lossy(&printed));
        }
        Err(rejection) => {
            panic!("{} is refused: {:?}", String::from_utf8_lossy(&printed), rejection.parts());
        }
    }
}

/// Reads the file with profiles.
///
/// # Panics
/// When a law is broken.
pub fn profile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // No file is read on the way.
    let _ = crate::cli::parse_profile(text, "no such profile");
}
