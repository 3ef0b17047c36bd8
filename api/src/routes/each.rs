//! Requests that carry many things, each of which is answered for itself.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use backstitch_saga::WrittenMembers;
use backstitch_saga::protocol::{
    CompleteTasks, Heartbeat, HeartbeatTasks, StartRun, StartRuns, TaskAnswer, TaskReport,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::amend;
use crate::access::Caller;
use crate::app::App;
use crate::body::{self, Misread, json};
use crate::check::{Check, Findings, MAX_LIST};
use crate::problem::{Answer, Rejection};

/// A request whose only member is a list.
pub(super) trait Many: DeserializeOwned + Check + Send + 'static {
    /// The type of its elements.
    type One: DeserializeOwned + Send + 'static;
    /// The name of the member.
    const MEMBER: &'static str;

    /// The elements.
    fn all(self) -> Vec<Self::One>;

    /// Reads an element that is not of the right form, if what matters of it is clear, and says what was amended.
    fn amended(_: &str) -> Option<(Self::One, Vec<String>)> {
        None
    }
}

impl Many for CompleteTasks {
    type One = TaskReport;
    const MEMBER: &'static str = "results";

    fn all(self) -> Vec<TaskReport> {
        self.results
    }

    fn amended(text: &str) -> Option<(TaskReport, Vec<String>)> {
        amend::report(text)
    }
}

impl Many for HeartbeatTasks {
    type One = Heartbeat;
    const MEMBER: &'static str = "beats";

    fn all(self) -> Vec<Heartbeat> {
        self.beats
    }
}

impl Many for StartRuns {
    type One = StartRun;
    const MEMBER: &'static str = "runs";

    fn all(self) -> Vec<StartRun> {
        self.runs
    }
}

/// The elements of such a request that could be read, and what is to be said of them. A request of which no element can be
/// read is refused as a whole.
pub(super) struct EachBody<T: Many>(pub(super) Vec<T::One>, pub(super) Said);

/// What is said of the elements of a request before they are looked at any further.
#[derive(Default)]
pub(super) struct Said {
    /// The answers to those that cannot be read, with their places.
    pub(super) bad: Vec<(usize, TaskAnswer)>,
    /// What was amended of others, with their places.
    amended: Vec<(usize, Vec<String>)>,
}

impl<T: Many> FromRequest<Arc<App>> for EachBody<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Rejection> {
        let caller = request.extensions().get::<Caller>().cloned();
        let bytes = body::read(request, app).await?;
        body::in_turn(app, caller.as_ref(), bytes, |bytes| match body::parse::<T>(bytes) {
            Ok(asked) => Ok(EachBody(asked.all(), Said::default())),
            Err(rejection) => one_by_one(bytes).ok_or(rejection),
        })
        .await
    }
}

/// Reads each element for itself: one that is wrong must not hold up the others.
fn one_by_one<T: Many>(bytes: &[u8]) -> Option<EachBody<T>> {
    let WrittenMembers(members) = serde_json::from_slice(bytes).ok()?;
    // A member that stands twice is refused with the whole.
    let [(name, list)] = members.as_slice() else { return None };
    let elements: Vec<Box<RawValue>> =
        (name == T::MEMBER).then(|| serde_json::from_str(list.get()).ok()).flatten()?;
    if elements.len() > MAX_LIST {
        return None;
    }
    let (mut good, mut said) = (Vec::new(), Said::default());
    for (index, element) in elements.iter().enumerate() {
        let text = whole_characters(element.get());
        let read = serde_json::from_str(&text).or_else(|error| {
            let (one, notes) = T::amended(&text).ok_or(error)?;
            said.amended.push((index, notes));
            Ok::<_, serde_json::Error>(one)
        });
        match read {
            Ok(one) => good.push(one),
            Err(error) => {
                let Misread { pointer, message, .. } = body::misread::<T::One>(&text, &error);
                said.bad.push((
                    index,
                    TaskAnswer {
                        status: 422,
                        code: Some("invalid_request".to_owned()),
                        message: Some(format!("/{}/{index}{pointer}: {message}", T::MEMBER)),
                    },
                ));
            }
        }
    }
    (!good.is_empty()).then_some(EachBody(good, said))
}

/// JSON in which halves of surrogate pairs, which are no characters, are U+FFFD.
fn whole_characters(text: &str) -> String {
    let unit = |at: usize| {
        let escape = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(escape, 16).ok()
    };
    let mut whole = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        let length = match (next, unit(at)) {
            ('\\', Some(0xd800..=0xdbff)) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            ('\\', Some(0xd800..=0xdfff)) => {
                whole.push_str("\\ufffd");
                at += 6;
                continue;
            }
            ('\\', None) => text[at..].chars().take(2).map(char::len_utf8).sum(),
            ('\\', Some(_)) => 6,
            _ => next.len_utf8(),
        };
        whole.push_str(&text[at..at + length]);
        at += length;
    }
    whole
}

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

/// Puts the answers into the order of the request, and says in them what was amended.
pub(super) fn merge_said(answers: Vec<TaskAnswer>, said: Said) -> Vec<TaskAnswer> {
    let mut answers = merge(answers, said.bad);
    for (index, notes) in said.amended.into_iter().filter(|(_, notes)| !notes.is_empty()) {
        if let Some(answer) = answers.get_mut(index).filter(|answer| answer.status == 200) {
            let notes = notes.join("; ");
            answer.message = Some(match answer.message.take() {
                Some(message) => format!("{message}; {notes}"),
                None => format!("it counts, but {notes}"),
            });
            answer.code = Some("amended".to_owned());
        }
    }
    answers
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
    fn a_report_that_cannot_be_read_is_answered_in_its_place_and_the_others_go_on() {
        let report = |attempt: u32, failure: &str| {
            format!(
                r#"{{"run":"0198c0de-0000-7000-8000-000000000000","step":"a","action":"forward","attempt":{attempt},
                "outcome":{{"failed":{failure}}}}}"#
            )
        };
        let good =
            |message: &str| format!(r#"{{"kind":"retryable","code":"x","message":"{message}"}}"#);
        let all = [
            report(1, r#"{"kind":"odd","code":"x","message":""}"#),
            report(2, &good("ok")),
            report(3, &good(r"half \ud800 of \\ud800 \ud83d\ude00")),
            report(4, r#"{"kind":"permanent","code":"x"}"#),
        ];
        let body = format!(r#"{{"results":[{}]}}"#, all.join(","));
        let EachBody(good, said) = one_by_one::<CompleteTasks>(body.as_bytes()).unwrap();
        assert_eq!(good.iter().map(|r| r.attempt).collect::<Vec<_>>(), [2, 3, 4]);
        let backstitch_saga::protocol::TaskOutcome::Failed(failure) = &good[1].outcome else {
            panic!()
        };
        assert_eq!(failure.message, "half \u{fffd} of \\ud800 😀");
        let merged = merge_said(vec![answer_of(200), answer_of(409), answer_of(200)], said);
        assert_eq!(merged.iter().map(|a| a.status).collect::<Vec<_>>(), [422, 200, 409, 200]);
        assert_eq!(merged[3].code.as_deref(), Some("amended"));
        for refused in
            [r#"{"results":[{}]}"#, r#"{"results":[],"more":1}"#, "[]", r#"{"results":1}"#]
        {
            assert!(one_by_one::<CompleteTasks>(refused.as_bytes()).is_none(), "{refused}");
        }
    }
}
