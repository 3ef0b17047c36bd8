//! The checks of a request, cheap ones first, each with its code.

use std::collections::BTreeMap;

use backstitch_saga::protocol::status_of;
use backstitch_saga::{ErrorKind, Payload, Time, Violation};
use sha2::{Digest, Sha256};

use super::batch::{LARGEST_BATCH, lines, list};
use super::headers::Headers;
use super::hints::Hints;
use super::read::{any, unreadable, unwrapped};
use super::sender::{Form, Media, Sender};
use super::source::{Location, Source, Subject, VersionFrom, VersionState};
use crate::contracts::{Schema, World};
use crate::document::Value;
use crate::events::{CloudEvent, Trust};

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
    /// Text that identifies the document among others of the source; `None` if nothing is a
    /// duplicate.
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
    /// Explanation of the mistake with what to do, for people.
    pub message: String,
    /// Everything that is wrong with the document.
    pub violations: Vec<Violation>,
    /// The sender was verified, so that the intake is kept; before that there is only a counter.
    pub kept: bool,
    /// Identity hints, as far as the document could be read: people search for refused documents.
    pub hints: Hints,
}

impl Rejected {
    pub(super) fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Rejected {
        let violations = Vec::new();
        Rejected {
            status: status_of(kind),
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

/// A record of a batch: its bytes, and what was read.
pub type ReadRecord<'b> = (&'b [u8], Result<Document, Box<Rejected>>);

/// A document that was read, and is not held to a contract yet.
#[derive(Clone, Debug)]
pub struct Document {
    payload: Payload,
    /// All of it, where places of the configuration lie.
    whole: Value,
    /// Of a CloudEvent, its data; else all of it.
    body: Option<Value>,
    event: Option<CloudEvent>,
    in_batch: bool,
    digest: [u8; 32],
    hints: Hints,
}

impl Document {
    /// Returns the part that follows the contract: the data of a CloudEvent, else the whole
    /// document.
    #[must_use]
    pub fn value(&self) -> &Value {
        self.body.as_ref().unwrap_or(&self.whole)
    }

    /// Returns the time of the occurrence, if a CloudEvent gives it.
    #[must_use]
    pub fn occurred_at(&self) -> Option<String> {
        self.event.as_ref()?.time.clone()
    }

    /// Returns a refusal of the document, which is kept with its hints.
    fn refused(&self, rejected: Rejected) -> Rejected {
        Rejected { kept: true, hints: self.hints.clone(), ..rejected }
    }
}

/// Contract that a document claims to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Subject.
    pub contract: String,
    /// Version.
    pub version: u32,
    /// The version is deprecated.
    pub deprecated: bool,
}

impl Source {
    /// Checks a request with one document, JSON or a CloudEvent. `subject` returns the versions of a contract.
    ///
    /// Of a CloudEvent, the data follows the contract and has the hints; places of the configuration lie in the whole.
    ///
    /// The order: `source_disabled`, `payload_too_large`, `content_type_not_supported`, `signature_missing`,
    /// `signature_invalid`, `timestamp_out_of_tolerance`, the codes of [`read`], `cloudevent_not_valid`,
    /// `unknown_type`, `version_missing`, `version_unknown`, `version_retired`, `schema_violation`,
    /// `dedupe_key_missing`.
    ///
    /// # Errors
    /// The first check that fails. It is boxed, since most requests are accepted.
    pub fn check<'s>(
        &self,
        request: &Request<'_>,
        subject: &dyn Fn(&str) -> Option<Subject<'s>>,
    ) -> Result<Accepted, Box<Rejected>> {
        let sender = self.admit(request)?;
        let document = self.read(request.body, &sender)?;
        self.follow(&request.headers, document, &sender, subject)
    }

    /// Checks a batch: a JSON list, lines of JSON (`application/x-ndjson`), or CloudEvents
    /// (`application/cloudevents-batch+json`). Each record has its own result, as by [`Source::check`]; a header does
    /// not describe a single record, so that it is no dedupe key.
    ///
    /// # Errors
    /// The mistakes of the request as a whole; `not_a_batch` and `batch_too_large` for its form.
    pub fn check_batch<'s>(
        &self,
        request: &Request<'_>,
        subject: &dyn Fn(&str) -> Option<Subject<'s>>,
    ) -> Result<Vec<Result<Accepted, Box<Rejected>>>, Box<Rejected>> {
        let sender = self.admit_batch(request)?;
        let records = self.read_batch(request.body, &sender)?;
        let checked = records
            .into_iter()
            .map(|(_, document)| self.follow(&request.headers, document?, &sender, subject));
        Ok(checked.collect())
    }

    /// Checks what needs no look into the body of a request with one document.
    ///
    /// # Errors
    /// The codes of [`Source::check`] up to `timestamp_out_of_tolerance`. Nothing of it is kept.
    pub fn admit(&self, request: &Request<'_>) -> Result<Sender, Box<Rejected>> {
        self.admit_as(request, self.document.max_bytes, &[Media::Json, Media::CloudEvent])
    }

    /// Returns the same for a batch.
    ///
    /// # Errors
    /// As [`Source::admit`].
    pub fn admit_batch(&self, request: &Request<'_>) -> Result<Sender, Box<Rejected>> {
        self.admit_as(request, LARGEST_BATCH, &[Media::Json, Media::Lines, Media::CloudEvents])
    }

    /// Returns the same for a file of which nothing was read yet: the sender authenticates by a header.
    ///
    /// # Errors
    /// As [`Source::admit`]; `file_not_verifiable` for a source whose requests are signed, or that is not verified.
    pub fn admit_file(&self, headers: Headers<'_>, now: Time) -> Result<Sender, Box<Rejected>> {
        let request = Request { headers, body: &[], now };
        if self.document.enabled && !self.verification.is_shown_by_a_header() {
            let message = "a file is read while it comes, so that who sends it is verified by a header before: by basic, bearer or \
                mutual_tls; make a source for files";
            return Err(Box::new(Rejected::new(
                ErrorKind::Forbidden,
                "file_not_verifiable",
                message,
            )));
        }
        self.admit_as(&request, LARGEST_BATCH, &[Media::Lines, Media::Csv])
    }

    /// Reads the document of a sender that was verified.
    ///
    /// # Errors
    /// The codes of [`read`].
    pub fn read(&self, bytes: &[u8], sender: &Sender) -> Result<Document, Box<Rejected>> {
        self.read_one(bytes, sender, false)
    }

    /// Reads the records of a batch, each with its bytes.
    ///
    /// # Errors
    /// `not_a_batch` and `batch_too_large`, and that the whole is no JSON.
    pub fn read_batch<'b>(
        &self,
        bytes: &'b [u8],
        sender: &Sender,
    ) -> Result<Vec<ReadRecord<'b>>, Box<Rejected>> {
        let records = if sender.media == Media::Lines { lines(bytes) } else { list(bytes) };
        let records = records.map_err(unreadable)?;
        let read = records.into_iter().map(|bytes| (bytes, self.read_one(bytes, sender, true)));
        Ok(read.collect())
    }

    /// Reads a record of a batch that was kept.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn read_record(&self, bytes: &[u8], sender: &Sender) -> Result<Document, Box<Rejected>> {
        self.read_one(bytes, sender, true)
    }

    fn read_one(
        &self,
        bytes: &[u8],
        sender: &Sender,
        in_batch: bool,
    ) -> Result<Document, Box<Rejected>> {
        let limit = self.document.max_bytes;
        let (payload, whole) = any(bytes, sender.form(), limit)?;
        let (event, body) = match sender.form() {
            Form::CloudEvent => unwrapped(&whole)?,
            Form::Json | Form::Csv => (None, None),
        };
        let hints = Hints::capture(&self.document.hints, body.as_ref().unwrap_or(&whole));
        let digest = Sha256::digest(bytes).into();
        Ok(Document { payload, whole, body, event, in_batch, digest, hints })
    }

    /// Holds a document to the contract that it claims.
    fn follow<'s>(
        &self,
        headers: &Headers<'_>,
        document: Document,
        sender: &Sender,
        subject: &dyn Fn(&str) -> Option<Subject<'s>>,
    ) -> Result<Accepted, Box<Rejected>> {
        let versions = |name: &str| {
            let versions = subject(name)?.versions.into_iter();
            Some(versions.map(|(version, (state, _))| (version, state)).collect())
        };
        let claim = self.claim(headers, &document, &versions)?;
        let subject = subject(&claim.contract);
        let schema =
            subject.as_ref().and_then(|one| Some((one.versions.get(&claim.version)?.1, one.world)));
        self.hold(headers, document, claim, sender, schema)
    }

    /// Holds a document to the schema of the contract that it claims, and finds its dedupe key. Without a schema
    /// everything follows it.
    ///
    /// # Errors
    /// `schema_violation`, `dedupe_key_missing`.
    pub fn hold(
        &self,
        headers: &Headers<'_>,
        document: Document,
        claim: Claim,
        sender: &Sender,
        schema: Option<(&Schema, World)>,
    ) -> Result<Accepted, Box<Rejected>> {
        let body = document.value();
        let violations =
            schema.map_or_else(Vec::new, |(schema, world)| schema.violations(body, world));
        if !violations.is_empty() {
            let message =
                format!("the document does not follow {}@{}", claim.contract, claim.version);
            let rejected = Rejected {
                violations,
                ..Rejected::new(ErrorKind::Invalid, "schema_violation", message)
            };
            return Err(Box::new(document.refused(rejected)));
        }
        let dedupe_key = match self.dedupe_key(headers, &document) {
            Ok(key) => key,
            Err(rejected) => return Err(Box::new(document.refused(*rejected))),
        };
        Ok(Accepted {
            payload: document.payload,
            value: document.body.unwrap_or(document.whole),
            event: document.event,
            contract: claim.contract,
            version: claim.version,
            deprecated: claim.deprecated,
            dedupe_key,
            digest: document.digest,
            trust: sender.trust,
            hints: document.hints,
        })
    }

    /// Checks what needs no look into the document.
    fn admit_as(
        &self,
        request: &Request<'_>,
        largest: usize,
        allowed: &[Media],
    ) -> Result<Sender, Box<Rejected>> {
        let refused = |kind, code, message: String| Box::new(Rejected::new(kind, code, message));
        if !self.document.enabled {
            let message = "the source is disabled; enable it first".to_owned();
            return Err(refused(ErrorKind::Forbidden, "source_disabled", message));
        }
        if request.body.len() > largest {
            let message =
                format!("the request has {} bytes; {largest} are allowed", request.body.len());
            return Err(refused(ErrorKind::TooLarge, "payload_too_large", message));
        }
        let content_type = request.headers.once("content-type").ok().flatten();
        let media = content_type.and_then(Media::of).filter(|media| allowed.contains(media));
        let Some(media) = media else {
            let names: Vec<&str> = allowed.iter().map(|media| media.name()).collect();
            let message = format!("send Content-Type: {}, in UTF-8", names.join(" or "));
            return Err(refused(ErrorKind::Unsupported, "content_type_not_supported", message));
        };
        let verified = self.verification.verify(&request.headers, request.body, request.now);
        let verified = verified
            .map_err(|wrong| refused(ErrorKind::Unauthenticated, wrong.code, wrong.message))?;
        let trust = verified.trust.min(self.document.trust_ceiling);
        Ok(Sender { trust, secret: verified.secret, media })
    }

    /// Finds the contract and the version that a document claims. `versions` returns the versions of a subject.
    ///
    /// # Errors
    /// `unknown_type`, `version_missing`, `version_unknown`, `version_retired`.
    pub fn claim(
        &self,
        headers: &Headers<'_>,
        document: &Document,
        versions: &dyn Fn(&str) -> Option<BTreeMap<u32, VersionState>>,
    ) -> Result<Claim, Box<Rejected>> {
        let refused = |code, message: String| {
            Err(Box::new(document.refused(Rejected::new(ErrorKind::Invalid, code, message))))
        };
        let accepted = self.document.accepts.iter().find(|accept| {
            let is = |when: &super::source::MatchDocument| {
                let text = when.location().and_then(|at| found(&at, headers, &document.whole));
                text.is_some_and(|text| text == when.is)
            };
            accept.when.as_ref().is_none_or(is)
        });
        let Some((name, versions)) =
            accepted.and_then(|accept| Some((&accept.contract, versions(&accept.contract)?)))
        else {
            let message =
                "the source accepts no contract for this document; see its 'accepts'".to_owned();
            return refused("unknown_type", message);
        };
        let version = match &self.document.version_from {
            VersionFrom::Fixed(version) => Some(version.to_string()),
            VersionFrom::Header(name) => {
                found(&Location::Header(name.clone()), headers, &document.whole)
            }
            VersionFrom::Pointer(at) => {
                found(&Location::Pointer(at.clone()), headers, &document.whole)
            }
        };
        let Some(version) = version else {
            let message = format!("the document does not say which version of {name} it follows");
            return refused("version_missing", message);
        };
        let digits = version.len() <= 9 && version.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { version.parse::<u32>().ok() } else { None };
        let known = number.and_then(|number| Some((number, *versions.get(&number)?)));
        let Some((version, state)) = known else {
            let shown: String = version.chars().take(40).collect();
            let all: Vec<String> = versions.keys().map(u32::to_string).collect();
            let message = format!("{name} has no version '{shown}'; it has {}", all.join(", "));
            return refused("version_unknown", message);
        };
        if state == VersionState::Retired {
            let message = format!("version {version} of {name} is retired; send a newer one");
            return refused("version_retired", message);
        }
        let deprecated = state == VersionState::Deprecated;
        Ok(Claim { contract: name.clone(), version, deprecated })
    }

    /// Returns the text that identifies a document among others, with the length of each part so that parts cannot be
    /// shifted.
    fn dedupe_key(
        &self,
        headers: &Headers<'_>,
        document: &Document,
    ) -> Result<Option<String>, Box<Rejected>> {
        if self.document.dedupe.is_empty() {
            return Ok(None);
        }
        let mut digest = Sha256::new();
        for location in &self.document.dedupe {
            let part = match location {
                Location::Header(_) if document.in_batch => None,
                location => found(location, headers, &document.whole),
            };
            let Some(part) = part else {
                let at = match location {
                    Location::Header(name) => format!("the header {name}"),
                    Location::Pointer(at) => format!("'{at}'"),
                };
                let message = format!(
                    "{at} is missing, so that a repeat could not be told from a new document"
                );
                return Err(Box::new(Rejected::new(
                    ErrorKind::Invalid,
                    "dedupe_key_missing",
                    message,
                )));
            };
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        Ok(Some(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
    }
}

/// Returns the text at a location: a header, or a string or a number of the document.
fn found(location: &Location, headers: &Headers<'_>, value: &Value) -> Option<String> {
    match location {
        Location::Header(name) => {
            let text = headers.once(name).ok().flatten()?;
            (!text.is_empty()).then(|| text.to_owned())
        }
        Location::Pointer(at) => match at.find(value)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.canonical()),
            _ => None,
        },
    }
}
