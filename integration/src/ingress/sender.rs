//! Senders that were verified, and the forms in which they send.

use crate::events::Trust;

/// A sender that was verified, and the form of what it sent.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// The least of the ceiling of the source and of what verification achieved.
    pub trust: Trust,
    /// Index of the secret that was used.
    pub secret: Option<usize>,
    pub(super) media: Media,
}

impl Sender {
    /// Returns a sender that was verified before, when the document was first taken in.
    #[must_use]
    pub fn of_before(trust: Trust, is_event: bool) -> Sender {
        let media = if is_event { Media::CloudEvent } else { Media::Json };
        Sender { trust, secret: None, media }
    }

    /// Returns whether each document is the envelope of a CloudEvent.
    #[must_use]
    pub fn sends_events(&self) -> bool {
        matches!(self.media, Media::CloudEvent | Media::CloudEvents)
    }
}

/// Form of a body, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    Lines,
    CloudEvent,
    CloudEvents,
}

impl Media {
    /// Returns the form that a content type names; `None` for another encoding than UTF-8, too.
    pub(super) fn of(content_type: &str) -> Option<Media> {
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

    pub(super) fn name(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Lines => "application/x-ndjson",
            Media::CloudEvent => "application/cloudevents+json",
            Media::CloudEvents => "application/cloudevents-batch+json",
        }
    }
}
