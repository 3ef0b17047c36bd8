//! The hook through which documents go before they leave the process, and before what comes back is read: for
//! encryption.
//!
//! It is given to a [`Client`](crate::Client) and to the [`TestKit`](crate::testkit::TestKit). Handlers and callers see
//! documents as they are; the server sees what the codec made of them.

#[cfg(feature = "encryption")]
mod encryption;
#[cfg(feature = "encryption")]
mod keys;
#[cfg(feature = "encryption")]
mod walk;

use std::fmt;
use std::sync::Arc;

use backstitch_saga::protocol::{Failure, FailureKind, RunView, TaskOffer};
use backstitch_saga::{Payload, Span};
use serde::de::Error as _;

#[cfg(feature = "encryption")]
pub use encryption::Encryption;
#[cfg(feature = "encryption")]
pub use keys::EncryptionKey;

/// Encodes documents on their way out and decodes them on their way back. [`Encryption`] is one
/// codec; another may use a key service.
///
/// What the server cannot read stands in objects with the one member `$enc`: their place is all that it needs. It holds
/// them to no schema, hands them on as they are, and refuses to compare them.
pub trait Codec: Send + Sync + 'static {
    /// Encodes a document that leaves the process. For the same `context` the same document must become the same text:
    /// a start or a report that is repeated is recognized by it. The context names what the document belongs to.
    ///
    /// # Errors
    /// A [`CodecError`]; nothing is sent then.
    fn encode(&self, document: &Payload, context: &str) -> Result<Payload, CodecError>;

    /// Decodes a document that came back, wherever the server put what [`Codec::encode`] gave it.
    ///
    /// # Errors
    /// A [`CodecError`], such as for a key that is not known.
    fn decode(&self, document: &Payload) -> Result<Payload, CodecError>;

    /// Returns the results of [`Codec::encode`] for the same document before keys were changed: they identify a
    /// repeated start with its key. Empty by default.
    fn encoded_before(&self, document: &Payload, context: &str) -> Vec<Payload> {
        let _ = (document, context);
        Vec::new()
    }
}

/// The reason for which a document could not be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecError {
    code: &'static str,
    message: String,
}

impl CodecError {
    /// Returns an error with a code like `payload_key_unknown`.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>) -> CodecError {
        CodecError { code, message: message.into() }
    }

    /// Returns the code of the error, for programs: `payload_key_unknown`, `payload_corrupt` or that of
    /// another codec.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for CodecError {}

/// The codec of a client, a worker or a test kit, if it has one.
#[derive(Clone, Default)]
pub(crate) struct MaybeCodec(Option<Arc<dyn Codec>>);

impl fmt::Debug for MaybeCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a codec" } else { "no codec" })
    }
}

impl MaybeCodec {
    pub(crate) fn of(codec: impl Codec) -> MaybeCodec {
        MaybeCodec(Some(Arc::new(codec)))
    }

    pub(crate) fn encode(
        &self,
        document: Payload,
        context: impl FnOnce() -> String,
    ) -> Result<Payload, CodecError> {
        match &self.0 {
            Some(codec) => codec.encode(&document, &context()),
            None => Ok(document),
        }
    }

    pub(crate) fn decode(&self, document: &Payload) -> Result<Payload, CodecError> {
        self.0.as_ref().map_or_else(|| Ok(document.clone()), |codec| codec.decode(document))
    }

    pub(crate) fn encoded_before(&self, document: &Payload, context: &str) -> Vec<Payload> {
        self.0.as_ref().map_or_else(Vec::new, |codec| codec.encoded_before(document, context))
    }

    /// Reads a document that came back.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(
        &self,
        document: &Payload,
    ) -> Result<T, serde_json::Error> {
        self.decode(document).map_err(serde_json::Error::custom)?.to()
    }

    /// Decodes the documents of a view. Those that cannot be decoded stay as they are: the rest can be seen all the
    /// same.
    pub(crate) fn show(&self, mut view: RunView) -> RunView {
        if self.0.is_none() {
            return view;
        }
        let show = |document: &mut Payload| {
            if let Ok(decoded) = self.decode(document) {
                *document = decoded;
            }
        };
        show(&mut view.input);
        view.output.iter_mut().for_each(show);
        view.steps.iter_mut().filter_map(|step| step.output.as_mut()).for_each(show);
        view
    }
}

/// Returns the context of a start.
pub(crate) fn of_start(workflow: &str, key: Option<&str>) -> String {
    match key {
        Some(key) => format!("start\n{workflow}\n{key}"),
        None => format!("start\n{workflow}\n\n{}", uuid::Uuid::new_v4()),
    }
}

/// Returns the context of a report or a heartbeat.
pub(crate) fn of_task(offer: &TaskOffer) -> String {
    let action = offer.action.as_str();
    format!("task\n{}\n{}\n{action}\n{}", offer.run, offer.step, offer.attempt)
}

/// Returns the failure of a task whose documents cannot be decoded or encoded. Another worker may have the key.
pub(crate) fn failed(kind: FailureKind, error: &CodecError) -> Failure {
    Failure {
        kind,
        code: error.code().to_owned(),
        message: error.to_string(),
        details: None,
        retry_after: (kind == FailureKind::Retryable).then_some(AGAIN),
    }
}

/// Shortest wait of a task that was given to a worker without its key.
const AGAIN: Span = Span::secs(30);
