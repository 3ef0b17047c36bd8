//! Senders that were verified, and the forms in which they send.

use crate::events::Trust;

/// Form of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON.
    Json,
    /// The envelope of a CloudEvent.
    CloudEvent,
    /// A row of CSV, with the first row of its file.
    Csv,
}

impl Form {
    /// Returns the name of the form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Form::Json => "json",
            Form::CloudEvent => "cloudevent",
            Form::Csv => "csv",
        }
    }

    /// Returns the form with a name.
    #[must_use]
    pub fn of(name: &str) -> Form {
        let all = [Form::CloudEvent, Form::Csv];
        all.into_iter().find(|form| form.as_str() == name).unwrap_or(Form::Json)
    }
}

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
    /// Returns a sender that was verified before, when the document was first received.
    #[must_use]
    pub fn of_before(trust: Trust, form: Form) -> Sender {
        let media = match form {
            Form::Json => Media::Json,
            Form::CloudEvent => Media::CloudEvent,
            Form::Csv => Media::Csv,
        };
        Sender { trust, secret: None, media }
    }

    /// Returns the form of each document.
    #[must_use]
    pub fn form(&self) -> Form {
        match self.media {
            Media::CloudEvent | Media::CloudEvents => Form::CloudEvent,
            Media::Json | Media::Lines => Form::Json,
            Media::Csv => Form::Csv,
        }
    }
}

/// Form of a body, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    Lines,
    CloudEvent,
    CloudEvents,
    Csv,
}

impl Media {
    /// Returns the form that a content type names; `None` for another encoding than UTF-8, too.
    pub(super) fn of(content_type: &str) -> Option<Media> {
        let mut parts = content_type.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let found = match media.strip_prefix("application/") {
            None if media == "text/csv" => Media::Csv,
            None => return None,
            Some(name) => Media::of_application(name)?,
        };
        let is_utf8 = parts.all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim_matches('"');
            let utf8 = ["utf-8", "utf8"].iter().any(|name| value.eq_ignore_ascii_case(name));
            !name.eq_ignore_ascii_case("charset") || utf8
        });
        is_utf8.then_some(found)
    }

    fn of_application(name: &str) -> Option<Media> {
        Some(match name {
            "cloudevents+json" => Media::CloudEvent,
            "cloudevents-batch+json" => Media::CloudEvents,
            "x-ndjson" | "ndjson" => Media::Lines,
            "json" => Media::Json,
            other if other.ends_with("+json") && other.len() > 5 => Media::Json,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Lines => "application/x-ndjson",
            Media::CloudEvent => "application/cloudevents+json",
            Media::CloudEvents => "application/cloudevents-batch+json",
            Media::Csv => "text/csv",
        }
    }
}
