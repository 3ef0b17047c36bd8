//! The checks of a request, cheap ones first, each with its code.

use backstitch_saga::{Payload, Time, Violation};
use sha2::{Digest, Sha256};

use super::headers::Headers;
use super::hints::Hints;
use super::source::{Location, Source, Subject, VersionFrom, VersionState};
use crate::document::{Value, read};
use crate::events::Trust;

/// A request, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its headers.
    pub headers: Headers<'a>,
    /// Its bytes.
    pub body: &'a [u8],
    /// The time of its arrival.
    pub now: Time,
}

/// A document that was accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The document, byte for byte.
    pub payload: Payload,
    /// The same as a value.
    pub value: Value,
    /// Subject of the contract.
    pub contract: String,
    /// Version that the document claims.
    pub version: u32,
    /// The version is deprecated, which the answer says.
    pub deprecated: bool,
    /// Text that tells the document from others of the source; `None` when nothing is a duplicate.
    pub dedupe_key: Option<String>,
    /// SHA-256 of the bytes.
    pub digest: [u8; 32],
    /// Trust: the least of the ceiling and of what verification achieved.
    pub trust: Trust,
    /// Identity hints.
    pub hints: Hints,
}

/// A request that was refused.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Status of HTTP.
    pub status: u16,
    /// Code of the first check that failed.
    pub code: &'static str,
    /// What is wrong and what to do, for people.
    pub message: String,
    /// Everything that is wrong with the document.
    pub violations: Vec<Violation>,
    /// The sender was verified, so that the intake is kept; before that there is only a counter.
    pub kept: bool,
    /// Identity hints, as far as the document could be read: that is when somebody looks for it.
    pub hints: Hints,
}

impl Rejected {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Rejected {
        let violations = Vec::new();
        Rejected {
            status,
            code,
            message: message.into(),
            violations,
            kept: false,
            hints: Hints::default(),
        }
    }
}

/// Answer to a document whose dedupe key is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicate {
    /// The same bytes: answered with the first event.
    Same,
    /// Other bytes under the same key: `409 dedupe_key_reused`.
    Conflict,
}

/// Compares a document with the digest of the first that had its dedupe key.
#[must_use]
pub fn duplicate(first: &[u8; 32], digest: &[u8; 32]) -> Duplicate {
    if first == digest { Duplicate::Same } else { Duplicate::Conflict }
}

impl Source {
    /// Checks a request. `subject` returns the versions of a contract.
    ///
    /// The order: `source_disabled`, `payload_too_large`, `content_type_not_supported`, `signature_missing`,
    /// `signature_invalid`, `timestamp_out_of_tolerance`, the codes of [`read`], `unknown_type`, `version_missing`,
    /// `version_unknown`, `version_retired`, `schema_violation`, `dedupe_key_missing`.
    ///
    /// # Errors
    /// The first check that fails. It is boxed, since most requests are accepted.
    pub fn check<'s>(
        &self,
        request: &Request<'_>,
        subject: &dyn Fn(&str) -> Option<Subject<'s>>,
    ) -> Result<Accepted, Box<Rejected>> {
        let trust = self.admit(request)?;
        let (payload, value) = read(request.body, self.document.max_bytes).map_err(|wrong| {
            let code =
                READ_CODES.into_iter().find(|code| *code == wrong.code).unwrap_or("invalid_json");
            let message = wrong.message.clone();
            Box::new(Rejected {
                violations: vec![wrong],
                kept: true,
                ..Rejected::new(400, code, message)
            })
        })?;
        let hints = Hints::capture(&self.document.hints, &value);
        let checked =
            self.contract(request, &value, subject).and_then(|(contract, version, deprecated)| {
                Ok((contract, version, deprecated, self.dedupe_key(request, &value)?))
            });
        match checked {
            Ok((contract, version, deprecated, dedupe_key)) => {
                let digest = Sha256::digest(request.body).into();
                Ok(Accepted {
                    payload,
                    value,
                    contract,
                    version,
                    deprecated,
                    dedupe_key,
                    digest,
                    trust,
                    hints,
                })
            }
            Err(rejected) => Err(Box::new(Rejected { kept: true, hints, ..*rejected })),
        }
    }

    /// Checks what needs no look into the document, and returns the trust.
    fn admit(&self, request: &Request<'_>) -> Result<Trust, Box<Rejected>> {
        let document = &self.document;
        if !document.enabled {
            return Err(Box::new(Rejected::new(
                403,
                "source_disabled",
                "the source is disabled; enable it first",
            )));
        }
        if request.body.len() > document.max_bytes {
            let message = format!(
                "the request has {} bytes; {} are allowed",
                request.body.len(),
                document.max_bytes
            );
            return Err(Box::new(Rejected::new(413, "payload_too_large", message)));
        }
        let content_type = request.headers.once("content-type").ok().flatten();
        if !content_type.is_some_and(is_json) {
            let message =
                "send Content-Type: application/json, or application/cloudevents+json, in UTF-8";
            return Err(Box::new(Rejected::new(415, "content_type_not_supported", message)));
        }
        let verified = self.verification.verify(&request.headers, request.body, request.now);
        let verified = verified
            .map_err(|refused| Box::new(Rejected::new(401, refused.code, refused.message)))?;
        Ok(verified.trust.min(document.trust_ceiling))
    }

    /// Finds the contract and the version that a document claims, and holds it to that version.
    fn contract<'s>(
        &self,
        request: &Request<'_>,
        value: &Value,
        subject: &dyn Fn(&str) -> Option<Subject<'s>>,
    ) -> Result<(String, u32, bool), Box<Rejected>> {
        let refused = |code, message: String| Box::new(Rejected::new(422, code, message));
        let accepted = self.document.accepts.iter().find(|accept| {
            let is = |when: &super::source::MatchDocument| {
                let text = when.location().and_then(|at| found(&at, request, value));
                text.is_some_and(|text| text == when.is)
            };
            accept.when.as_ref().is_none_or(is)
        });
        let Some((name, subject)) =
            accepted.and_then(|accept| Some((&accept.contract, subject(&accept.contract)?)))
        else {
            let message =
                "the source accepts no contract for this document; see its 'accepts'".to_owned();
            return Err(refused("unknown_type", message));
        };
        let version = match &self.document.version_from {
            VersionFrom::Fixed(version) => Some(version.to_string()),
            VersionFrom::Header(name) => found(&Location::Header(name.clone()), request, value),
            VersionFrom::Pointer(at) => found(&Location::Pointer(at.clone()), request, value),
        };
        let Some(version) = version else {
            return Err(refused(
                "version_missing",
                format!("the document does not say which version of {name} it follows"),
            ));
        };
        let digits = version.len() <= 9 && version.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { version.parse::<u32>().ok() } else { None };
        let known = number.and_then(|number| Some((number, subject.versions.get(&number)?)));
        let Some((number, (state, schema))) = known else {
            let shown: String = version.chars().take(40).collect();
            let all: Vec<String> = subject.versions.keys().map(u32::to_string).collect();
            let message = format!("{name} has no version '{shown}'; it has {}", all.join(", "));
            return Err(refused("version_unknown", message));
        };
        if *state == VersionState::Retired {
            return Err(refused(
                "version_retired",
                format!("version {number} of {name} is retired; send a newer one"),
            ));
        }
        let violations = schema.violations(value, subject.world);
        if !violations.is_empty() {
            let message = format!("the document does not follow {name}@{number}");
            let rejected =
                Rejected { violations, ..Rejected::new(422, "schema_violation", message) };
            return Err(Box::new(rejected));
        }
        Ok((name.clone(), number, *state == VersionState::Deprecated))
    }

    /// Returns the text that tells a document from others, with the length of each part so that parts cannot be shifted.
    fn dedupe_key(
        &self,
        request: &Request<'_>,
        value: &Value,
    ) -> Result<Option<String>, Box<Rejected>> {
        if self.document.dedupe.is_empty() {
            return Ok(None);
        }
        let mut digest = Sha256::new();
        for location in &self.document.dedupe {
            let Some(part) = found(location, request, value) else {
                let at = match location {
                    Location::Header(name) => format!("the header {name}"),
                    Location::Pointer(at) => format!("'{at}'"),
                };
                let message = format!(
                    "{at} is missing, so that a repeat could not be told from a new document"
                );
                return Err(Box::new(Rejected::new(422, "dedupe_key_missing", message)));
            };
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        Ok(Some(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
    }
}

/// Codes of documents that cannot be read.
const READ_CODES: [&str; 6] = [
    "invalid_json",
    "duplicate_key",
    "nesting_too_deep",
    "nul_character",
    "lone_surrogate",
    "number_out_of_range",
];

/// Returns the text at a location: a header, or a string or a number of the document.
fn found(location: &Location, request: &Request<'_>, value: &Value) -> Option<String> {
    match location {
        Location::Header(name) => {
            let text = request.headers.once(name).ok().flatten()?;
            (!text.is_empty()).then(|| text.to_owned())
        }
        Location::Pointer(at) => match at.find(value)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.canonical()),
            _ => None,
        },
    }
}

/// Returns whether a content type is JSON in UTF-8.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let subtype = media.strip_prefix("application/");
    let is_json = subtype.is_some_and(|subtype| {
        subtype == "json" || (subtype.ends_with("+json") && subtype.len() > 5)
    });
    is_json
        && parts.all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim_matches('"');
            !name.eq_ignore_ascii_case("charset")
                || value.eq_ignore_ascii_case("utf-8")
                || value.eq_ignore_ascii_case("utf8")
        })
}
