//! CloudEvents 1.0 in their JSON format: one event (structured) and many (batched), parsed and written.

use std::collections::BTreeMap;

use backstitch_saga::Violation;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::canonical::{InstantRule, instant};
use crate::document::{Object, Value, read};

/// The most bytes of an attribute.
pub(crate) const LONGEST: usize = 1_024;
/// The most extension attributes.
pub(crate) const MOST_EXTENSIONS: usize = 100;

/// A CloudEvent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvent {
    /// `id`.
    pub id: String,
    /// `source`, as the sender names it.
    pub source: String,
    /// `type`.
    pub event_type: String,
    /// `subject`.
    pub subject: Option<String>,
    /// `time`, in the canonical spelling of instants.
    pub time: Option<String>,
    /// `datacontenttype`.
    pub datacontenttype: Option<String>,
    /// `dataschema`.
    pub dataschema: Option<String>,
    /// Extension attributes.
    pub extensions: BTreeMap<String, Attribute>,
    /// The data.
    pub data: Option<Data>,
}

/// Value of an extension attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// A boolean.
    Boolean(bool),
    /// An integer of 32 bits.
    Integer(i32),
    /// A string.
    String(String),
}

impl Attribute {
    /// Returns the canonical text.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Attribute::Boolean(value) => value.to_string(),
            Attribute::Integer(value) => value.to_string(),
            Attribute::String(text) => text.clone(),
        }
    }
}

/// Data of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// JSON, also a string in place of a text of another type.
    Json(Value),
    /// Bytes.
    Binary(Vec<u8>),
}

/// Reads one event of at most `limit` bytes.
///
/// # Errors
/// The codes of [`read`], or everything that is wrong with the attributes: `not_a_cloudevent`, `attribute_missing`,
/// `attribute_not_valid`.
pub fn parse_structured(bytes: &[u8], limit: usize) -> Result<CloudEvent, Vec<Violation>> {
    let (_, value) = read(bytes, limit).map_err(|wrong| vec![wrong])?;
    parse(&value, "")
}

/// Reads a batch of at most `limit` bytes and `most` events. Each event is read or refused by itself.
///
/// # Errors
/// The codes of [`read`], `not_a_batch`, `batch_too_large`.
pub fn parse_batch(
    bytes: &[u8],
    limit: usize,
    most: usize,
) -> Result<Vec<Result<CloudEvent, Vec<Violation>>>, Violation> {
    let (_, value) = read(bytes, limit)?;
    let Some(events) = value.as_array() else {
        let message = format!("a batch is a list of events, not {}", value.words());
        return Err(Violation::new("", "not_a_batch", message));
    };
    if events.len() > most {
        let message = format!("the batch has {} events; {most} are allowed", events.len());
        return Err(Violation::new("", "batch_too_large", message));
    }
    Ok(events.iter().enumerate().map(|(index, event)| parse(event, &format!("/{index}"))).collect())
}

/// Writes a batch.
#[must_use]
pub fn write_batch(events: &[CloudEvent]) -> String {
    Value::Array(events.iter().map(CloudEvent::to_value).collect()).to_json()
}

fn parse(value: &Value, place: &str) -> Result<CloudEvent, Vec<Violation>> {
    let Some(members) = value.as_object() else {
        let message = format!("an event is an object, not {}", value.words());
        return Err(vec![Violation::new(place, "not_a_cloudevent", message)]);
    };
    let mut reader = Reader { place, members, wrong: Vec::new() };
    match reader.text("specversion") {
        Some(version) if version == "1.0" => {}
        Some(_) => reader.refuse("specversion", "attribute_not_valid", "is '1.0'"),
        None => reader.missing("specversion"),
    }
    let id = reader.required("id");
    let source = reader.required("source");
    let event_type = reader.required("type");
    let subject = reader.text("subject");
    let dataschema = reader.text("dataschema");
    let datacontenttype = reader.text("datacontenttype");
    let time = reader.text("time").and_then(|text| {
        let read = instant(&Value::String(text), &InstantRule::Rfc3339);
        read.map_err(|refused| reader.refuse("time", "attribute_not_valid", &refused.message)).ok()
    });
    let extensions = reader.extensions();
    let data = reader.data();
    if !reader.wrong.is_empty() {
        return Err(reader.wrong);
    }
    Ok(CloudEvent {
        id,
        source,
        event_type,
        subject,
        time,
        datacontenttype,
        dataschema,
        extensions,
        data,
    })
}

const KNOWN: [&str; 10] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "data_base64",
];

struct Reader<'a> {
    place: &'a str,
    members: &'a Object,
    wrong: Vec<Violation>,
}

impl Reader<'_> {
    fn refuse(&mut self, name: &str, code: &str, why: &str) {
        let name: String = name.chars().take(60).collect();
        let pointer = format!("{}/{}", self.place, name.replace('~', "~0").replace('/', "~1"));
        self.wrong.push(Violation::new(pointer, code, format!("the attribute '{name}' {why}")));
    }

    fn missing(&mut self, name: &str) {
        self.refuse(name, "attribute_missing", "is missing");
    }

    /// Returns an attribute that is a text. One that is null counts as absent.
    fn text(&mut self, name: &str) -> Option<String> {
        match self.members.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if is_text(text) => Some(text.clone()),
            Some(_) => {
                self.refuse(
                    name,
                    "attribute_not_valid",
                    "is a text of 1 to 1,024 bytes without control characters",
                );
                None
            }
        }
    }

    fn required(&mut self, name: &str) -> String {
        let before = self.wrong.len();
        let found = self.text(name);
        if found.is_none() && self.wrong.len() == before {
            self.missing(name);
        }
        found.unwrap_or_default()
    }

    fn extensions(&mut self) -> BTreeMap<String, Attribute> {
        let mut found = BTreeMap::new();
        let members = self.members;
        for (name, value) in members.iter().filter(|(name, _)| !KNOWN.contains(&name.as_str())) {
            let is_name = !name.is_empty()
                && name.len() <= 40
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            if !is_name {
                self.refuse(
                    name,
                    "attribute_not_valid",
                    "has a name other than 1 to 40 lower-case letters and digits",
                );
                continue;
            }
            let attribute = match value {
                Value::Null => continue,
                Value::Bool(value) => Some(Attribute::Boolean(*value)),
                Value::Number(number) => number
                    .to_i64()
                    .and_then(|number| i32::try_from(number).ok())
                    .map(Attribute::Integer),
                Value::String(text) if is_text(text) => Some(Attribute::String(text.clone())),
                _ => None,
            };
            match attribute {
                Some(attribute) => drop(found.insert(name.clone(), attribute)),
                None => self.refuse(
                    name,
                    "attribute_not_valid",
                    "is a boolean, an integer of 32 bits, or a text of 1 to 1,024 bytes",
                ),
            }
        }
        if found.len() > MOST_EXTENSIONS {
            self.refuse("", "attribute_not_valid", "is one of more than 100");
        }
        found
    }

    fn data(&mut self) -> Option<Data> {
        match (self.members.get("data"), self.members.get("data_base64")) {
            (Some(_), Some(_)) => {
                self.refuse("data_base64", "attribute_not_valid", "and 'data' stand apart");
                None
            }
            (Some(data), None) => Some(Data::Json(data.clone())),
            (None, Some(Value::String(text))) => match STANDARD.decode(text) {
                Ok(bytes) => Some(Data::Binary(bytes)),
                Err(_) => {
                    self.refuse("data_base64", "attribute_not_valid", "is Base64 with padding");
                    None
                }
            },
            (None, Some(_)) => {
                self.refuse("data_base64", "attribute_not_valid", "is a text");
                None
            }
            (None, None) => None,
        }
    }
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control)
}

impl CloudEvent {
    /// Reads an event from a document that was read.
    ///
    /// # Errors
    /// As [`parse_structured`].
    pub fn of_value(value: &Value) -> Result<CloudEvent, Vec<Violation>> {
        parse(value, "")
    }

    /// Returns the event in the JSON format.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut members = Object::from([
            ("specversion".to_owned(), Value::from("1.0")),
            ("id".to_owned(), Value::from(self.id.as_str())),
            ("source".to_owned(), Value::from(self.source.as_str())),
            ("type".to_owned(), Value::from(self.event_type.as_str())),
        ]);
        for (name, text) in [
            ("subject", &self.subject),
            ("time", &self.time),
            ("datacontenttype", &self.datacontenttype),
            ("dataschema", &self.dataschema),
        ] {
            if let Some(text) = text {
                members.insert(name.to_owned(), Value::from(text.as_str()));
            }
        }
        for (name, attribute) in &self.extensions {
            let value = match attribute {
                Attribute::Boolean(value) => Value::Bool(*value),
                Attribute::Integer(number) => Value::from(i64::from(*number)),
                Attribute::String(text) => Value::from(text.as_str()),
            };
            members.insert(name.clone(), value);
        }
        match &self.data {
            None => {}
            Some(Data::Json(value)) => drop(members.insert("data".to_owned(), value.clone())),
            Some(Data::Binary(bytes)) => {
                drop(members.insert("data_base64".to_owned(), Value::from(STANDARD.encode(bytes))));
            }
        }
        Value::Object(members)
    }

    /// Writes the event.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.to_value().to_json()
    }
}
