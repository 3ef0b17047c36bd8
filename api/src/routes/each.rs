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

use super::amend::{self, NO_NUMBER};
use super::repair;
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

    /// `true` if its elements report what has happened, which counts whatever their texts are. Otherwise they are not
    /// amended.
    const TELLS_WHAT_HAPPENED: bool;

    /// The elements.
    fn all(self) -> Vec<Self::One>;

    /// Reads an element that is not of the right form, if what matters of it is clear, and says what was amended.
    fn amended(_: &str) -> Option<(Self::One, Vec<String>)> {
        None
    }

    /// Leaves out the documents of an element in which numbers were none, and says so.
    fn without_documents(one: Self::One, _: &mut Vec<String>) -> Self::One {
        one
    }
}

impl Many for CompleteTasks {
    type One = TaskReport;
    const MEMBER: &'static str = "results";
    const TELLS_WHAT_HAPPENED: bool = true;

    fn all(self) -> Vec<TaskReport> {
        self.results
    }

    fn amended(text: &str) -> Option<(TaskReport, Vec<String>)> {
        amend::report(text)
    }

    fn without_documents(report: TaskReport, notes: &mut Vec<String>) -> TaskReport {
        amend::without_documents(report, notes)
    }
}

impl Many for HeartbeatTasks {
    type One = Heartbeat;
    const MEMBER: &'static str = "beats";
    const TELLS_WHAT_HAPPENED: bool = true;

    fn all(self) -> Vec<Heartbeat> {
        self.beats
    }

    fn amended(text: &str) -> Option<(Heartbeat, Vec<String>)> {
        amend::heartbeat(text)
    }

    fn without_documents(beat: Heartbeat, notes: &mut Vec<String>) -> Heartbeat {
        notes.push(format!("its details are left out: {NO_NUMBER}"));
        Heartbeat { details: None, ..beat }
    }
}

impl Many for StartRuns {
    type One = StartRun;
    const MEMBER: &'static str = "runs";
    const TELLS_WHAT_HAPPENED: bool = false;

    fn all(self) -> Vec<StartRun> {
        self.runs
    }
}

/// The elements of such a request that could be read, with the refusals and amendments of others. A request of which no
/// element can be read is refused as a whole.
pub(super) struct EachBody<T: Many>(pub(super) Vec<T::One>, pub(super) Said);

/// Refusals and amendments of elements of a request.
#[derive(Default)]
pub(super) struct Said {
    /// The answers to those that cannot be read, with their places.
    pub(super) bad: Vec<(usize, TaskAnswer)>,
    /// The amended parts of others, with their places.
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
    let repaired = match T::TELLS_WHAT_HAPPENED {
        true => repair::json(bytes),
        false => repair::unchanged(bytes)?,
    };
    let (elements, notes) = elements::<T>(&repaired.text)?;
    let (mut good, mut said) = (Vec::new(), Said::default());
    for (index, element) in elements.into_iter().enumerate() {
        let text = element.get();
        let begin = text.as_ptr().addr() - repaired.text.as_ptr().addr();
        let place = begin..begin + text.len();
        let mut notes = notes.clone();
        if repaired.lost_characters(&place) {
            notes.push("characters that are no text are replaced by U+FFFD".to_owned());
        }
        let read = serde_json::from_str(text).or_else(|error| {
            let (one, more) = T::amended(text).ok_or(error)?;
            notes.extend(more);
            Ok::<_, serde_json::Error>(one)
        });
        match read {
            Ok(one) if repaired.lost_numbers(&place) => {
                good.push(T::without_documents(one, &mut notes));
            }
            Ok(one) => good.push(one),
            Err(error) => {
                let Misread { pointer, message, .. } = body::misread::<T::One>(text, &error);
                let message = format!("/{}/{index}{pointer}: {message}", T::MEMBER);
                said.bad.push((index, invalid(message)));
                continue;
            }
        }
        said.amended.push((index, notes));
    }
    (!good.is_empty()).then_some(EachBody(good, said))
}

/// The elements of a request, and what is to be said of all of them. Of a list that stands twice nobody can tell which counts.
fn elements<T: Many>(text: &str) -> Option<(Vec<&RawValue>, Vec<String>)> {
    let WrittenMembers::<&RawValue>(members) = serde_json::from_str(text).ok()?;
    let (lists, others): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|(name, _)| name == T::MEMBER);
    let [(_, list)] = lists.as_slice() else { return None };
    let elements: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
    let left_out = amend::unknown(others.len(), "", others.first().map(|(name, _)| name.as_str()));
    let taken = elements.len() <= MAX_LIST && (left_out.is_none() || T::TELLS_WHAT_HAPPENED);
    taken.then(|| (elements, left_out.into_iter().collect()))
}

fn invalid(message: String) -> TaskAnswer {
    TaskAnswer { status: 422, code: Some("invalid_request".to_owned()), message: Some(message) }
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
            Some(violation) => bad.push((index, invalid(violation.to_string()))),
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
    use backstitch_saga::protocol::TaskOutcome;

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
            report(1, "[").replace("forward", "sideways").replace("[}", "1}"),
            report(2, &good("ok")),
            report(3, &good(r"half \ud800 of \\ud800 \ud83d\ude00")),
            report(4, r#"{"kind":"permanent","code":"x"}"#),
            report(5, &good("\u{1b}[31m")),
        ];
        let body = format!(r#"{{"results":[{}],"more":[1]}}"#, all.join(","));
        let EachBody(good, said) = one_by_one::<CompleteTasks>(body.as_bytes()).unwrap();
        assert_eq!(good.iter().map(|r| r.attempt).collect::<Vec<_>>(), [2, 3, 4, 5]);
        let message = |report: &TaskReport| match &report.outcome {
            TaskOutcome::Failed(failure) => failure.message.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(message(&good[1]), "half \u{fffd} of \\ud800 😀");
        assert_eq!(message(&good[3]), "\u{fffd}[31m");
        let answers = [200, 409, 200, 200].map(answer_of).to_vec();
        let merged = merge_said(answers, said);
        let told: Vec<_> = merged.iter().map(|a| (a.status, a.code.as_deref())).collect();
        let amended = (200, Some("amended"));
        let refused = (422, Some("invalid_request"));
        assert_eq!(told, [refused, amended, (409, None), amended, amended]);
        assert!(!merged[1].message.as_deref().unwrap().contains("U+FFFD"), "{merged:?}");
        assert!(merged[4].message.as_deref().unwrap().contains("U+FFFD"), "{merged:?}");
        for refused in [
            r#"{"results":[{}]}"#,
            r#"{"results":[],"more":1}"#,
            "[]",
            r#"{"results":1}"#,
            r#"{"results":[],"results":[]}"#,
        ] {
            assert!(one_by_one::<CompleteTasks>(refused.as_bytes()).is_none(), "{refused}");
        }
    }

    #[test]
    fn the_inputs_of_starts_are_not_changed() {
        let start = r#"{"workflow":"w","input":"\ud800"}"#;
        let body = format!(r#"{{"runs":[{start},{{"workflow":1}}]}}"#);
        let EachBody(good, _) = one_by_one::<StartRuns>(body.as_bytes()).unwrap();
        assert_eq!(good[0].input.text(), r#""\ud800""#);
        for refused in [&b"{\"runs\":[{\"workflow\":\"\xff\"}]}"[..], b"{\"runs\":[],\"more\":1}"] {
            assert!(one_by_one::<StartRuns>(refused).is_none());
        }
    }

    #[test]
    fn an_output_with_a_number_that_is_none_is_done_without_one() {
        let report = |action: &str| {
            format!(
                r#"{{"run":"0198c0de-0000-7000-8000-000000000000","step":"a","action":"{action}","attempt":1,
                "outcome":{{"succeeded":{{"output":[NaN,1]}}}}}}"#
            )
        };
        let body = format!(r#"{{"results":[{},{}]}}"#, report("forward"), report("compensate"));
        let EachBody(good, said) = one_by_one::<CompleteTasks>(body.as_bytes()).unwrap();
        let TaskOutcome::DoneWithoutOutput { code, .. } = &good[0].outcome else {
            panic!("{good:?}")
        };
        assert_eq!(code, "invalid_output");
        assert!(matches!(good[1].outcome, TaskOutcome::Succeeded { .. }), "{good:?}");
        assert!(said.amended.iter().all(|(_, notes)| !notes.is_empty()));
    }
}
