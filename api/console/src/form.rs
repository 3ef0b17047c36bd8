//! Forms that act: what a verb asks of the API, and the document that a form becomes.

use std::borrow::Cow;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::ask::encoded;

/// A field of a form besides the reason.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// Conversion of its text to a member: `s` text, `j` JSON, `b` a ticked box, `n` a number, `w` a text with a
    /// default, `d` a document whose members are members, `p` a part of the path.
    pub(crate) kind: &'static str,
    /// The member, with dots between the names of objects.
    pub(crate) name: String,
    pub(crate) label: Cow<'static, str>,
    pub(crate) hint: &'static str,
    pub(crate) value: String,
    pub(crate) required: bool,
    /// Those to choose from.
    pub(crate) choices: Vec<String>,
}

impl Field {
    pub(crate) fn new(
        kind: &'static str,
        name: &str,
        label: impl Into<Cow<'static, str>>,
    ) -> Field {
        Field {
            kind,
            name: name.to_owned(),
            label: label.into(),
            hint: "",
            value: String::new(),
            required: false,
            choices: Vec::new(),
        }
    }

    pub(crate) fn text(name: &str, label: &'static str) -> Field {
        Field::new("s", name, label)
    }

    pub(crate) fn json(name: &str, label: &'static str) -> Field {
        Field::new("j", name, label)
    }

    /// Returns the whole document that is sent, in its present form.
    pub(crate) fn document(label: &'static str, now: &str) -> Field {
        Field::new("d", "document", label).hint("JSON.").value(now).required()
    }

    /// Returns a part of the path of what is made: `{name}` there.
    pub(crate) fn path(name: &str, label: &'static str) -> Field {
        Field::new("p", name, label).required()
    }

    pub(crate) fn tick(name: &str, label: &'static str) -> Field {
        Field::new("b", name, label)
    }

    pub(crate) fn hint(self, hint: &'static str) -> Field {
        Field { hint, ..self }
    }

    pub(crate) fn value(self, value: impl Into<String>) -> Field {
        Field { value: value.into(), ..self }
    }

    pub(crate) fn of(self, choices: &[&str]) -> Field {
        Field { choices: choices.iter().map(|one| (*one).to_owned()).collect(), ..self }
    }

    pub(crate) fn required(self) -> Field {
        Field { required: true, ..self }
    }
}

impl Field {
    /// Returns the number of its visible lines.
    pub(crate) fn rows(&self) -> usize {
        self.value.lines().count().clamp(if self.kind == "d" { 12 } else { 3 }, 24)
    }

    /// Returns the label of the field, or the member that it becomes.
    pub(crate) fn spoken(&self) -> &str {
        let last = self.name.rsplit('.').next().unwrap_or_default();
        if self.label.is_empty() { last } else { &self.label }
    }
}

/// Something that can be done, as a form.
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    /// The word for it, as in the API and on the command line.
    pub(crate) word: &'static str,
    pub(crate) label: Cow<'static, str>,
    /// Its action, in a sentence.
    pub(crate) about: &'static str,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) fields: Vec<Field>,
    /// Fixed members: name with its kind, and value.
    pub(crate) fixed: Vec<(String, String)>,
    /// A reason is asked for.
    pub(crate) reason: bool,
    /// It cannot be taken back.
    pub(crate) danger: bool,
    /// The page to go to when it is done; `{id}` stands for the id in the response, and parts of the path are filled in
    /// as there. Without it, the page of the form.
    pub(crate) then: Option<String>,
    /// Makes that a form sent twice acts once.
    pub(crate) key: String,
}

impl Deed {
    pub(crate) fn new(
        word: &'static str,
        label: impl Into<Cow<'static, str>>,
        path: String,
    ) -> Deed {
        Deed {
            word,
            label: label.into(),
            about: "",
            method: "POST",
            path,
            fields: Vec::new(),
            fixed: Vec::new(),
            reason: true,
            danger: false,
            then: None,
            key: Uuid::new_v4().to_string(),
        }
    }

    /// Returns the form that sets an object to a document, with its present document.
    pub(crate) fn put(
        word: &'static str,
        label: impl Into<Cow<'static, str>>,
        path: String,
        now: &impl serde::Serialize,
    ) -> Deed {
        let now = serde_json::to_string_pretty(now).unwrap_or_default();
        let mut deed = Deed::new(word, label, path).without_reason();
        deed.method = "PUT";
        deed.field(Field::document("Definition", &now))
    }

    /// Makes a thing of a name that is asked for, from a document that is begun with an example.
    pub(crate) fn make(
        word: &'static str,
        label: impl Into<Cow<'static, str>>,
        path: &str,
        example: &serde_json::Value,
    ) -> Deed {
        let mut deed = Deed::put(word, label, path.to_owned(), example);
        deed.fields.insert(0, Field::path("name", "Name"));
        deed
    }

    /// Deletes a thing.
    pub(crate) fn delete(
        word: &'static str,
        label: impl Into<Cow<'static, str>>,
        path: String,
    ) -> Deed {
        let mut deed = Deed::new(word, label, path).without_reason().danger();
        deed.method = "DELETE";
        deed
    }

    pub(crate) fn method(self, method: &'static str) -> Deed {
        Deed { method, ..self }
    }

    pub(crate) fn about(self, about: &'static str) -> Deed {
        Deed { about, ..self }
    }

    /// Sets the page to go to when it is done.
    pub(crate) fn then(self, place: &str) -> Deed {
        Deed { then: Some(place.to_owned()), ..self }
    }

    pub(crate) fn danger(self) -> Deed {
        Deed { danger: true, ..self }
    }

    pub(crate) fn without_reason(self) -> Deed {
        Deed { reason: false, ..self }
    }

    pub(crate) fn field(mut self, field: Field) -> Deed {
        self.fields.push(field);
        self
    }

    pub(crate) fn fixed(mut self, name: &str, value: impl Into<String>) -> Deed {
        self.fixed.push((name.to_owned(), value.into()));
        self
    }
}

/// The prefix of fields that become members.
const MEMBER: &str = "f.";
/// Deepest nesting of members.
const DEEPEST: usize = 4;

/// Fills the open parts, `{name}`, of a path or an address from the fields that are parts of the path, or else from the
/// members of the document; an error names the first part without a value.
pub(crate) fn filled(
    place: &str,
    fields: &[(String, String)],
    document: &Value,
) -> Result<String, String> {
    let mut parts = place.split('{');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').ok_or_else(|| part.to_owned())?;
        let field = format!("{MEMBER}p.{name}");
        let text = match fields.iter().find(|(known, _)| *known == field) {
            Some((_, text)) => text.trim().to_owned(),
            None => match &document[name] {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => String::new(),
            },
        };
        // Names that are a place of their own in a path.
        if text.is_empty() || text == "." || text == ".." {
            return Err(name.to_owned());
        }
        filled += &encoded(&text);
        filled += rest;
    }
    Ok(filled)
}

/// Returns the document that the fields of a form become; which field is wrong, and how.
pub(crate) fn document(fields: &[(String, String)]) -> Result<Value, (String, String)> {
    let mut root = Value::Object(Map::new());
    for (name, text) in fields {
        let Some((kind, path)) =
            name.strip_prefix(MEMBER).and_then(|member| member.split_once('.'))
        else {
            continue;
        };
        let wrong = |message: String| (path.to_owned(), message);
        let value = match kind {
            "s" if text.is_empty() => continue,
            "s" => Value::String(text.clone()),
            // Also when it is empty.
            "w" => Value::String(text.clone()),
            "b" => Value::Bool(true),
            "p" => continue,
            "n" | "j" if text.trim().is_empty() => continue,
            "n" => {
                let number = text.trim().parse::<serde_json::Number>();
                Value::Number(number.map_err(|_| wrong("It must be a number.".to_owned()))?)
            }
            "j" => serde_json::from_str(text)
                .map_err(|error| wrong(format!("It must be JSON: {error}.")))?,
            "d" => {
                let members: Map<String, Value> = serde_json::from_str(text)
                    .map_err(|error| wrong(format!("It must be a JSON object: {error}.")))?;
                for (name, value) in members {
                    merge(&mut root, name, value)
                        .ok_or_else(|| wrong("It stands twice.".to_owned()))?;
                }
                continue;
            }
            _ => return Err(wrong("It is no field of a form.".to_owned())),
        };
        put(&mut root, path, value).ok_or_else(|| wrong("It stands twice.".to_owned()))?;
    }
    Ok(root)
}

/// Puts a member of a document into the root; `None` if another value is there.
fn merge(root: &mut Value, name: String, value: Value) -> Option<()> {
    match root.as_object_mut()?.insert(name, value) {
        None => Some(()),
        Some(_) => None,
    }
}

/// Puts a value at a path of names; `None` if another value is there.
fn put(root: &mut Value, path: &str, value: Value) -> Option<()> {
    let names: Vec<&str> = path.split('.').collect();
    let (last, outer) = names.split_last()?;
    if outer.len() > DEEPEST {
        return None;
    }
    let mut at = root;
    for name in outer {
        at = at.as_object_mut()?.entry(*name).or_insert_with(|| Value::Object(Map::new()));
    }
    match at.as_object_mut()?.insert((*last).to_owned(), value) {
        None => Some(()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(pairs: &[(&str, &str)]) -> Result<Value, (String, String)> {
        let pairs: Vec<_> = pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        document(&pairs)
    }

    #[test]
    fn fields_become_members_by_their_kind() {
        let form = [
            ("token", "x"),
            ("f.s.reason", "because"),
            ("f.s.name", ""),
            ("f.j.input", r#"{"a":1}"#),
            ("f.j.output", " "),
            ("f.b.force", "on"),
            ("f.n.canary.first", "5"),
            ("f.s.canary.wait", "2m"),
        ];
        let wanted = json!({
            "reason": "because", "input": {"a": 1}, "force": true, "canary": {"first": 5, "wait": "2m"}
        });
        assert_eq!(made(&form).unwrap(), wanted);
    }

    #[test]
    fn the_open_parts_of_a_path_are_filled_from_fields_or_members() {
        let fields = |text: &str| vec![("f.p.name".to_owned(), text.to_owned())];
        let definition = json!({ "name": "order", "version": 2 });
        let path = "/v1/workflows/{name}/versions/{version}";
        assert_eq!(filled(path, &[], &definition).unwrap(), "/v1/workflows/order/versions/2");
        assert_eq!(filled("/a/{name}/b", &fields(" x/y "), &definition).unwrap(), "/a/x%2Fy/b");
        assert_eq!(filled("/a", &[], &Value::Null).unwrap(), "/a");
        for name in ["", " ", ".", ".."] {
            assert_eq!(filled("/a/{name}", &fields(name), &definition).unwrap_err(), "name");
        }
        assert_eq!(filled(path, &fields("a"), &json!({})).unwrap_err(), "version");
        assert_eq!(filled("/a/{name", &[], &definition).unwrap_err(), "name");
    }

    #[test]
    fn a_field_that_cannot_be_a_member_is_named() {
        let whole = [("f.d.document", r#"{"cron":"0 2 * * *","a.b":1}"#), ("f.s.reason", "r")];
        let wanted = json!({ "cron": "0 2 * * *", "a.b": 1, "reason": "r" });
        assert_eq!(made(&whole).unwrap(), wanted);
        assert!(made(&[("f.s.reason", "r"), ("f.d.document", r#"{"reason":"x"}"#)]).is_err());
        assert_eq!(made(&[("f.d.document", "[]")]).unwrap_err().0, "document");
        for pair in [("f.j.input", "{"), ("f.n.input", "many"), ("f.x.input", "1")] {
            assert_eq!(made(&[pair]).unwrap_err().0, "input", "{pair:?}");
        }
        assert!(made(&[("f.s.a", "1"), ("f.s.a", "2")]).is_err());
        assert!(made(&[("f.s.a", "1"), ("f.s.a.b", "2")]).is_err());
        assert!(made(&[("f.s.a.b.c.d.e.f", "2")]).is_err());
    }
}
