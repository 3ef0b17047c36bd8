//! The checks of a request, cheap ones first, each with its code.

use backstitch_saga::{Payload, Time, Violation};
use sha2::{Digest, Sha256};

use super::batch::{LARGEST_BATCH, lines, list};
use super::headers::Headers;
use super::hints::Hints;
use super::source::{Location, Source, Subject, VersionFrom, VersionState};
use crate::document::{Value, read};
use crate::events::{CloudEvent, Data, Trust};

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
    /// The document as a value; of a CloudEvent, its data.
    pub value: Value,
    /// The CloudEvent that the document is, if it was sent as one.
    pub event: Option<CloudEvent>,
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
    /// Checks a request with one document, JSON or a CloudEvent. `subject` returns the versions of a contract.
    ///
    /// Of a CloudEvent, the data follows the contract and has the hints; places of the configuration lie in the whole.
    ///
    /// The order: `source_disabled`, `payload_too_large`, `content_type_not_supported`, `signature_missing`,
    /// `signature_invalid`, `timestamp_out_of_tolerance`, the codes of [`read`], `cloudevent_not_valid`, `unknown_type`, `version_missing`,
    /// `version_unknown`, `version_retired`, `schema_violation`, `dedupe_key_missing`.
    ///
    /// # Errors
    /// The first check that fails. It is boxed, since most requests are accepted.
    pub fn check<'s>(
        &self,
        request: &Request<'_>,
        subject: &dyn Fn(&str) -> Option<Subject<'s>>,
    ) -> Result<Accepted, Box<Rejected>> {
        let (trust, media) =
            self.admit(request, self.document.max_bytes, &[Media::Json, Media::CloudEvent])?;
        let record = Record {
            headers: request.headers,
            bytes: request.body,
            is_event: media == Media::CloudEvent,
            in_batch: false,
        };
        self.record(&record, trust, subject)
    }

    /// Checks a batch: a JSON list, lines of JSON (`application/x-ndjson`), or CloudEvents
    /// (`application/cloudevents-batch+json`). Each record is answered for itself, as by [`Source::check`]; a header says
    /// nothing of a single record, so that it is no dedupe key.
    ///
    /// # Errors
    /// What is wrong with the request as a whole; `not_a_batch` and `batch_too_large` for its form.
    pub fn check_batch<'s>(
        &self,
        request: &Request<'_>,
        subject: &dyn Fn(&str) -> Option<Subject<'s>>,
    ) -> Result<Vec<Result<Accepted, Box<Rejected>>>, Box<Rejected>> {
        let media = [Media::Json, Media::Lines, Media::CloudEvents];
        let (trust, media) = self.admit(request, LARGEST_BATCH, &media)?;
        let records = if media == Media::Lines { lines(request.body) } else { list(request.body) };
        let records = records.map_err(|wrong| unreadable(400, wrong))?;
        let checked = records.into_iter().map(|bytes| {
            let record = Record {
                headers: request.headers,
                bytes,
                is_event: media == Media::CloudEvents,
                in_batch: true,
            };
            self.record(&record, trust, subject)
        });
        Ok(checked.collect())
    }

    /// Checks one record of a sender that was verified.
    fn record<'s>(
        &self,
        record: &Record<'_>,
        trust: Trust,
        subject: &dyn Fn(&str) -> Option<Subject<'s>>,
    ) -> Result<Accepted, Box<Rejected>> {
        let (payload, value) =
            read(record.bytes, self.document.max_bytes).map_err(|wrong| unreadable(400, wrong))?;
        let (event, body) =
            if record.is_event { unwrapped(&value)? } else { (None, value.clone()) };
        let hints = Hints::capture(&self.document.hints, &body);
        let checked = self.contract(record, &value, &body, subject).and_then(
            |(contract, version, deprecated)| {
                Ok((contract, version, deprecated, self.dedupe_key(record, &value)?))
            },
        );
        match checked {
            Ok((contract, version, deprecated, dedupe_key)) => Ok(Accepted {
                payload,
                value: body,
                event,
                contract,
                version,
                deprecated,
                dedupe_key,
                digest: Sha256::digest(record.bytes).into(),
                trust,
                hints,
            }),
            Err(rejected) => Err(Box::new(Rejected { kept: true, hints, ..*rejected })),
        }
    }

    /// Checks what needs no look into the document, and returns the trust and the form of the body.
    fn admit(
        &self,
        request: &Request<'_>,
        largest: usize,
        allowed: &[Media],
    ) -> Result<(Trust, Media), Box<Rejected>> {
        let refused =
            |status, code, message: String| Box::new(Rejected::new(status, code, message));
        if !self.document.enabled {
            let message = "the source is disabled; enable it first".to_owned();
            return Err(refused(403, "source_disabled", message));
        }
        if request.body.len() > largest {
            let message =
                format!("the request has {} bytes; {largest} are allowed", request.body.len());
            return Err(refused(413, "payload_too_large", message));
        }
        let content_type = request.headers.once("content-type").ok().flatten();
        let media = content_type.and_then(Media::of).filter(|media| allowed.contains(media));
        let Some(media) = media else {
            let names: Vec<&str> = allowed.iter().map(|media| media.name()).collect();
            let message = format!("send Content-Type: {}, in UTF-8", names.join(" or "));
            return Err(refused(415, "content_type_not_supported", message));
        };
        let verified = self.verification.verify(&request.headers, request.body, request.now);
        let verified = verified.map_err(|wrong| refused(401, wrong.code, wrong.message))?;
        Ok((verified.trust.min(self.document.trust_ceiling), media))
    }

    /// Finds the contract and the version that a document claims, and holds it to that version.
    fn contract<'s>(
        &self,
        record: &Record<'_>,
        value: &Value,
        body: &Value,
        subject: &dyn Fn(&str) -> Option<Subject<'s>>,
    ) -> Result<(String, u32, bool), Box<Rejected>> {
        let refused = |code, message: String| Box::new(Rejected::new(422, code, message));
        let accepted = self.document.accepts.iter().find(|accept| {
            let is = |when: &super::source::MatchDocument| {
                let text = when.location().and_then(|at| found(&at, record, value));
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
            VersionFrom::Header(name) => found(&Location::Header(name.clone()), record, value),
            VersionFrom::Pointer(at) => found(&Location::Pointer(at.clone()), record, value),
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
        let violations = schema.violations(body, subject.world);
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
        record: &Record<'_>,
        value: &Value,
    ) -> Result<Option<String>, Box<Rejected>> {
        if self.document.dedupe.is_empty() {
            return Ok(None);
        }
        let mut digest = Sha256::new();
        for location in &self.document.dedupe {
            let part = match location {
                Location::Header(_) if record.in_batch => None,
                location => found(location, record, value),
            };
            let Some(part) = part else {
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
const READ_CODES: [&str; 9] = [
    "payload_too_large",
    "not_a_batch",
    "batch_too_large",
    "invalid_json",
    "duplicate_key",
    "nesting_too_deep",
    "nul_character",
    "lone_surrogate",
    "number_out_of_range",
];

/// Returns the text at a location: a header, or a string or a number of the document.
fn found(location: &Location, record: &Record<'_>, value: &Value) -> Option<String> {
    match location {
        Location::Header(name) => {
            let text = record.headers.once(name).ok().flatten()?;
            (!text.is_empty()).then(|| text.to_owned())
        }
        Location::Pointer(at) => match at.find(value)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.canonical()),
            _ => None,
        },
    }
}

/// Returns a refusal of a document that cannot be read.
fn unreadable(status: u16, wrong: Violation) -> Box<Rejected> {
    let code = READ_CODES.into_iter().find(|code| *code == wrong.code).unwrap_or("invalid_json");
    let message = wrong.message.clone();
    Box::new(Rejected {
        violations: vec![wrong],
        kept: true,
        ..Rejected::new(status, code, message)
    })
}

/// Returns the event that a document is, and its data.
fn unwrapped(value: &Value) -> Result<(Option<CloudEvent>, Value), Box<Rejected>> {
    let refused = |violations, message: &str| {
        Box::new(Rejected {
            violations,
            kept: true,
            ..Rejected::new(422, "cloudevent_not_valid", message)
        })
    };
    let event = CloudEvent::of_value(value)
        .map_err(|violations| refused(violations, "the document is no CloudEvent"))?;
    match &event.data {
        Some(Data::Json(data)) => {
            let data = data.clone();
            Ok((Some(event), data))
        }
        _ => Err(refused(
            Vec::new(),
            "the event has no JSON in 'data', which a contract could describe",
        )),
    }
}

/// One document of a request.
struct Record<'a> {
    headers: Headers<'a>,
    bytes: &'a [u8],
    /// The document is the envelope of a CloudEvent.
    is_event: bool,
    /// The headers are those of many records.
    in_batch: bool,
}

/// Form of a body, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    Json,
    Lines,
    CloudEvent,
    CloudEvents,
}

impl Media {
    /// Returns the form that a content type names; `None` for another encoding than UTF-8, too.
    fn of(content_type: &str) -> Option<Media> {
        let mut parts = content_type.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let found = match media.strip_prefix("application/")? {
            "cloudevents+json" => Media::CloudEvent,
            "cloudevents-batch+json" => Media::CloudEvents,
            "x-ndjson" | "ndjson" => Media::Lines,
            "json" => Media::Json,
            other if other.ends_with("+json") && other.len() > 5 => Media::Json,
            _ => return None,
        };
        let is_utf8 = parts.all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim_matches('"');
            let utf8 = ["utf-8", "utf8"].iter().any(|name| value.eq_ignore_ascii_case(name));
            !name.eq_ignore_ascii_case("charset") || utf8
        });
        is_utf8.then_some(found)
    }

    fn name(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Lines => "application/x-ndjson",
            Media::CloudEvent => "application/cloudevents+json",
            Media::CloudEvents => "application/cloudevents-batch+json",
        }
    }
}
