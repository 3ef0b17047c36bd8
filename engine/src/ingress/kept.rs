//! Records that are kept of a request beside its event.

use std::collections::BTreeMap;

use backstitch_integration::ingress::{Hints, Rejected, Sender};
use backstitch_saga::Time;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::KEPT_HEADERS;
use super::arrival::Arrival;
use super::doors::OpenSource;
use crate::log::trust_number;
use crate::store::intake::{IntakeRow, NewIntake};

/// The most characters of a content type that are kept.
const LONGEST_TYPE: usize = 200;
/// Parts of the names of headers that carry secrets.
const SECRETS: [&str; 6] = ["authorization", "cookie", "secret", "token", "password", "api-key"];

/// Returns the headers of a request that are kept: none that carries a secret, and none without end.
pub(super) fn headers(all: &[(String, Vec<u8>)]) -> BTreeMap<String, String> {
    let (most, longest) = KEPT_HEADERS;
    let mut kept: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in all {
        let name = name.to_ascii_lowercase();
        if SECRETS.iter().any(|part| name.contains(part))
            || (kept.len() >= most && !kept.contains_key(&name))
        {
            continue;
        }
        let value = String::from_utf8_lossy(value);
        let known = kept.entry(name).or_default();
        let separator = if known.is_empty() { "" } else { ", " };
        let text = format!("{known}{separator}{value}");
        *known = text.chars().take(longest).collect();
    }
    kept
}

/// Returns a document as it came, before anything is decided about it.
pub(super) fn new(
    open: &OpenSource,
    arrival: &Arrival,
    id: Uuid,
    raw: Vec<u8>,
    door: &'static str,
    sender: &Sender,
) -> NewIntake {
    let content_type = arrival.header("content-type").unwrap_or_default();
    let headers = serde_json::to_string(&headers(&arrival.headers));
    NewIntake {
        id,
        namespace: open.namespace().to_string(),
        source: open.name().to_string(),
        source_version: i32::try_from(open.version).unwrap_or(i32::MAX),
        verdict: "accepted",
        code: None,
        message: None,
        errors: None,
        received_at: arrival.at,
        processed_at: None,
        door,
        form: sender.form().as_str(),
        trust: trust_number(sender.trust),
        contract: None,
        event: None,
        digest: Sha256::digest(&raw).to_vec(),
        bytes: i32::try_from(raw.len()).unwrap_or(i32::MAX),
        content_type: content_type.chars().take(LONGEST_TYPE).collect(),
        peer: arrival.peer.clone(),
        request_id: arrival.request_id.clone(),
        headers: headers.unwrap_or_default(),
        hints: None,
        mapped: None,
        reprocess: None,
        raw: Some(raw),
    }
}

/// Returns the same once it was refused.
pub(super) fn refused(intake: NewIntake, rejected: &Rejected) -> NewIntake {
    let errors = (!rejected.violations.is_empty())
        .then(|| serde_json::to_string(&rejected.violations).unwrap_or_default());
    NewIntake {
        verdict: "refused",
        code: Some(rejected.code.to_owned()),
        message: Some(rejected.message.clone()),
        errors,
        hints: hints(&rejected.hints).or(intake.hints),
        ..intake
    }
}

/// Returns identifiers as they are kept.
pub(super) fn hints(hints: &Hints) -> Option<String> {
    (!hints.captured.is_empty()).then(|| serde_json::to_string(&hints.captured).unwrap_or_default())
}

/// Returns an existing document that is processed again.
pub(super) fn again(
    open: &OpenSource,
    arrival: &Arrival,
    row: &IntakeRow,
    (sender, at): (&Sender, Time),
) -> NewIntake {
    let new = new(open, arrival, row.id, Vec::new(), "", sender);
    NewIntake { processed_at: Some(at), raw: None, ..new }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_carry_secrets_are_not_kept_and_others_are_cut() {
        let all: Vec<(String, Vec<u8>)> = [
            ("Authorization", "Bearer s"),
            ("X-Api-Key", "s"),
            ("Cookie", "s"),
            ("X-Shop-Token", "s"),
            ("X-Event", "contact"),
            ("X-Event", "again"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .chain((0..100).map(|at| (format!("x-{at:03}"), vec![b'a'; 10_000])))
        .collect();
        let kept = headers(&all);
        assert_eq!(kept.get("x-event").map(String::as_str), Some("contact, again"));
        assert!(kept.keys().all(|name| !SECRETS.iter().any(|part| name.contains(part))));
        assert_eq!((kept.len(), kept["x-000"].len()), KEPT_HEADERS);
    }
}
