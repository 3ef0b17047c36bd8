//! Requests that carry many things, each of which is answered for itself.

use axum::http::{StatusCode, header};
use backstitch_saga::protocol::TaskAnswer;
use serde::Serialize;

use crate::body::json;
use crate::check::{Check, Findings};
use crate::problem::Answer;

/// Splits off what cannot be taken, with its place and its answer: one bad report must not hold up the others.
pub(super) fn sort_out<T: Check>(asked: Vec<T>) -> (Vec<T>, Vec<(usize, TaskAnswer)>) {
    let mut bad = Vec::new();
    let mut good = Vec::with_capacity(asked.len());
    for (index, one) in asked.into_iter().enumerate() {
        let mut findings = Findings::default();
        one.check(&mut findings);
        match findings.first() {
            None => good.push(one),
            Some(violation) => {
                let answer = TaskAnswer {
                    status: 422,
                    code: Some("invalid_request".to_owned()),
                    message: Some(violation.to_string()),
                };
                bad.push((index, answer));
            }
        }
    }
    (good, bad)
}

/// Puts the answers back into the order of the request.
pub(super) fn merge<A: From<TaskAnswer>>(
    mut answers: Vec<A>,
    bad: Vec<(usize, TaskAnswer)>,
) -> Vec<A> {
    for (index, answer) in bad {
        answers.insert(index.min(answers.len()), answer.into());
    }
    answers
}

/// The answer to the whole request.
pub(super) fn answer<T: Serialize>(status: StatusCode, results: &T) -> Answer {
    let mut response = json(status, results)?;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let second = header::HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, second);
    }
    Ok(response)
}

/// The status of all answers when they agree, else 207.
pub(super) fn common_status(statuses: impl IntoIterator<Item = u16>) -> StatusCode {
    let mut statuses = statuses.into_iter();
    let first = statuses.next().unwrap_or(200);
    if statuses.any(|status| status != first) {
        return StatusCode::MULTI_STATUS;
    }
    StatusCode::from_u16(first).unwrap_or(StatusCode::MULTI_STATUS)
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::TaskReport;

    use super::*;

    fn answer_of(status: u16) -> TaskAnswer {
        TaskAnswer { status, code: None, message: None }
    }

    #[test]
    fn the_status_is_that_of_all_answers_or_207() {
        let of = |statuses: &[u16]| common_status(statuses.iter().copied()).as_u16();
        assert_eq!(of(&[200, 200]), 200);
        assert_eq!(of(&[409]), 409);
        assert_eq!(of(&[200, 409]), 207);
        assert_eq!(of(&[503, 503, 503]), 503);
    }

    #[test]
    fn a_bad_report_is_answered_in_its_place_and_the_others_go_on() {
        let report = |attempt: u32, message: &str| -> TaskReport {
            serde_json::from_value(serde_json::json!({
                "run": "0198c0de-0000-7000-8000-000000000000", "step": "a", "action": "forward",
                "attempt": attempt,
                "outcome": { "failed": { "kind": "retryable", "code": "x", "message": message } }
            }))
            .unwrap()
        };
        let asked =
            vec![report(1, "\u{0}"), report(2, "ok"), report(3, "a\nb"), report(4, "\u{7}")];
        let (good, bad) = sort_out(asked);
        assert_eq!(good.iter().map(|r| r.attempt).collect::<Vec<_>>(), [2, 3]);
        let merged = merge(vec![answer_of(200), answer_of(409)], bad);
        assert_eq!(merged.iter().map(|a| a.status).collect::<Vec<_>>(), [422, 200, 409, 422]);
    }
}
