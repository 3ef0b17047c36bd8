//! Flags and arguments of a verb, made from what its operation takes, and the request made from what was typed.

use std::collections::BTreeMap;
use std::io::Read;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;
use serde_json::value::RawValue;

use super::operation::{Field, Kind};
use super::verbs::{Does, Verb};
use super::{Failure, profile};

/// A request as it was typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With everything in place, encoded.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) body: Option<String>,
    /// The `Idempotency-Key` of a request that acts.
    pub(crate) key: Option<String>,
}

/// Names of flags that every verb has.
const TAKEN: &[&str] = &[
    "url",
    "api-key",
    "api-key-file",
    "namespace",
    "actor",
    "profile",
    "config",
    "output",
    "help",
    "version",
    "log",
    "all",
    "body",
    "idempotency-key",
];

/// The verb as `clap` knows it.
pub(crate) fn command(verb: &Verb) -> Command {
    let operation = &verb.operation;
    let about = about(verb);
    let mut command = Command::new(verb.name.clone())
        .long_about(
            format!("{about}\n\n{}", without_rights(&operation.description)).trim().to_owned(),
        )
        .about(about)
        .after_help(format!(
            "Example:\n  {}\n\nAsks {} {}.",
            example(verb),
            operation.method,
            operation.path
        ))
        .args(profile::flags());
    if let Some(alias) = verb.alias() {
        command = command.visible_alias(alias);
    }
    let mut taken: Vec<String> = TAKEN.iter().map(|name| (*name).to_owned()).collect();
    for (place, field) in placed_fields(verb) {
        command = command.arg(positional(place, field));
    }
    if verb.takes_file() {
        let file = Arg::new("file").value_name("FILE").required(true);
        command = command.arg(file.help("The body as JSON; - reads standard input"));
    } else if !operation.in_body.is_empty() {
        let body = Arg::new("body").long("body").value_name("JSON");
        command = command.arg(
            body.help("The whole body instead of its flags; @FILE reads a file, - standard input"),
        );
    }
    for (place, field) in flag_fields(verb) {
        command = command.arg(flag(place, field, &mut taken));
    }
    if operation.in_query.iter().any(|field| field.name == "after") {
        let all = Arg::new("all").long("all").action(ArgAction::SetTrue);
        command = command.arg(all.help("Read all pages, not one"));
    }
    if operation.method == "POST" {
        let key = Arg::new("idempotency-key").long("idempotency-key").value_name("KEY");
        command = command.arg(key.help("Makes asking twice safe; a new one is sent without it"));
    }
    command
}

/// What a verb is for, on one line.
pub(crate) fn about(verb: &Verb) -> String {
    match verb.does {
        Does::Print => verb.operation.summary.clone(),
        Does::Watch => format!("{}, and watch how it goes until it ends", verb.operation.summary),
    }
}

fn without_rights(description: &str) -> &str {
    description.split("Needs the right").next().unwrap_or_default().trim()
}

/// Fields given by their place.
fn placed_fields(verb: &Verb) -> Vec<(&'static str, &Field)> {
    let operation = &verb.operation;
    let path = operation.in_path.iter().filter(|field| !comes_from_file(verb, field));
    let placed = verb.placed().iter();
    let body = placed.filter_map(|name| operation.in_body.iter().find(|field| field.name == *name));
    path.map(|field| ("path", field)).chain(body.map(|field| ("body", field))).collect()
}

/// A definition carries its name and version: they need not be typed.
fn comes_from_file(verb: &Verb, field: &Field) -> bool {
    let mut body = verb.operation.in_body.iter();
    verb.takes_file() && body.any(|member| member.name == field.name && member.required)
}

/// Fields given by flags.
fn flag_fields(verb: &Verb) -> Vec<(&'static str, &Field)> {
    let operation = &verb.operation;
    let query = operation.in_query.iter().filter(|_| verb.does == Does::Print);
    let body = operation
        .in_body
        .iter()
        .filter(|field| !verb.takes_file() && !verb.placed().contains(&field.name.as_str()));
    query.map(|field| ("query", field)).chain(body.map(|field| ("body", field))).collect()
}

fn positional(place: &str, field: &Field) -> Arg {
    Arg::new(format!("{place}:{}", field.name))
        .value_name(field.name.to_uppercase())
        .help(field.help.clone())
        .required(true)
}

/// The name of a field's flag: `--dry-run`; `--label` for many.
fn flag_name(field: &Field) -> String {
    let name = field.name.replace('_', "-");
    match field.kind {
        Kind::Pairs | Kind::List => name.strip_suffix('s').unwrap_or(&name).to_owned(),
        _ => name,
    }
}

fn flag(place: &str, field: &Field, taken: &mut Vec<String>) -> Arg {
    let mut name = flag_name(field);
    while taken.contains(&name) {
        name = format!("set-{name}");
    }
    taken.push(name.clone());
    let arg = Arg::new(format!("{place}:{}", field.name)).long(name).help(field.help.clone());
    let arg = match &field.kind {
        Kind::Flag => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(["true", "false"])
            .hide_possible_values(true)
            .value_name("BOOL"),
        Kind::Word(words) => arg.value_parser(words.clone()).value_name("WORD"),
        Kind::Number => arg.value_name("NUMBER"),
        Kind::Text => arg.value_name("TEXT"),
        Kind::List => arg.action(ArgAction::Append).value_name("TEXT"),
        Kind::Pairs => arg.action(ArgAction::Append).value_name("NAME:VALUE"),
        Kind::Choice { words, members } => {
            let members = members.iter().map(|(name, held)| match held {
                Kind::List => format!("{name}=A,B"),
                Kind::Number => format!("{name}=N"),
                _ => format!("{name}=A"),
            });
            arg.value_name(words.iter().cloned().chain(members).collect::<Vec<_>>().join("|"))
        }
        Kind::Json => arg
            .value_name("JSON")
            .help(format!("{} As JSON; @FILE reads a file, - standard input", field.help)),
    };
    match (place, field.required, &field.kind) {
        ("body", true, _) => arg.required_unless_present("body"),
        (_, required, _) => arg.required(required),
    }
}

/// A line to start from, made from the examples of the document.
pub(crate) fn example(verb: &Verb) -> String {
    let mut line = format!("backstitch {}", verb.words());
    for (_, field) in placed_fields(verb) {
        line += &format!(" {}", example_of(field));
    }
    if verb.takes_file() {
        line += " file.json";
    }
    for (place, field) in flag_fields(verb) {
        if field.example.is_some() && (place == "body" || field.required) {
            let name = flag_name(field);
            match (&field.kind, &field.example) {
                (Kind::Flag, Some(Value::Bool(true))) => line += &format!(" --{name}"),
                (Kind::Flag, _) => {}
                _ => line += &format!(" --{name} {}", example_of(field)),
            }
        }
    }
    line
}

fn example_of(field: &Field) -> String {
    let Some(example) = &field.example else { return field.name.to_uppercase() };
    let text = match (&field.kind, example) {
        (Kind::Pairs, Value::Object(pairs)) => {
            let first = pairs.iter().next();
            first.map(|(name, value)| format!("{name}:{}", plain(value))).unwrap_or_default()
        }
        (Kind::List, Value::Array(all)) => all.first().map(plain).unwrap_or_default(),
        (Kind::Choice { .. }, Value::Object(one)) => {
            let first = one.iter().next();
            first.map(|(name, value)| format!("{name}={}", plain(value))).unwrap_or_default()
        }
        (_, value) => plain(value),
    };
    let simple = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@".contains(c);
    if text.chars().all(simple) { text } else { format!("'{text}'") }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The request that was typed.
///
/// # Errors
/// [`Failure::Usage`] when it makes no sense.
pub(crate) fn asked(verb: &Verb, matches: &ArgMatches) -> Result<Asked, Failure> {
    let operation = &verb.operation;
    let mut body = None;
    if verb.takes_file() {
        body =
            matches.get_one::<String>("file").map(|file| read(&format!("@{file}"))).transpose()?;
    } else if !operation.in_body.is_empty() {
        body = Some(match matches.get_one::<String>("body") {
            Some(text) => read(text)?,
            None => members(&operation.in_body, matches)?,
        });
    }
    let mut path = operation.path.clone();
    for field in &operation.in_path {
        let value = match comes_from_file(verb, field) {
            true => member(body.as_deref().unwrap_or_default(), &field.name)?,
            false => typed(matches, "path", &field.name).pop().unwrap_or_default(),
        };
        let encoded: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
        path = path.replace(&format!("{{{}}}", field.name), &encoded.replace('+', "%20"));
    }
    let mut query = Vec::new();
    for field in operation.in_query.iter().filter(|_| verb.does == Does::Print) {
        let values = typed(matches, "query", &field.name);
        query.extend(values.into_iter().map(|value| (field.name.clone(), value)));
    }
    let acts = operation.method == "POST";
    let key = acts.then(|| match matches.get_one::<String>("idempotency-key") {
        Some(key) => key.clone(),
        None => uuid::Uuid::now_v7().to_string(),
    });
    Ok(Asked { method: operation.method.clone(), path, query, body, key })
}

/// What was typed for a field.
fn typed(matches: &ArgMatches, place: &str, name: &str) -> Vec<String> {
    let values = matches.try_get_many::<String>(&format!("{place}:{name}"));
    values.ok().flatten().into_iter().flatten().cloned().collect()
}

/// A member of a JSON document, as text.
fn member(document: &str, name: &str) -> Result<String, Failure> {
    let document: Value = serde_json::from_str(document).unwrap_or_default();
    match document.get(name) {
        Some(value) => Ok(plain(value)),
        None => Err(Failure::Usage(format!("the file has no member '{name}'"))),
    }
}

/// The body made from flags. Documents pass as they were typed.
fn members(fields: &[Field], matches: &ArgMatches) -> Result<String, Failure> {
    let mut members: BTreeMap<&str, Box<RawValue>> = BTreeMap::new();
    for field in fields {
        let values = typed(matches, "body", &field.name);
        let Some(last) = values.last() else { continue };
        members.insert(&field.name, value(field, last, &values)?);
    }
    serde_json::to_string(&members).map_err(|error| Failure::Usage(error.to_string()))
}

fn value(field: &Field, last: &str, all: &[String]) -> Result<Box<RawValue>, Failure> {
    let wrong =
        |what: &str| Failure::Usage(format!("--{}: {what}, not '{last}'", flag_name(field)));
    let value = match &field.kind {
        Kind::Text | Kind::Word(_) => Value::from(last),
        Kind::Flag => Value::from(last == "true"),
        Kind::Number => {
            let number: serde_json::Number =
                last.parse().map_err(|_| wrong("a number is needed"))?;
            Value::Number(number)
        }
        Kind::List => all.iter().cloned().map(Value::from).collect(),
        Kind::Pairs => {
            let mut pairs = serde_json::Map::new();
            for pair in all {
                let (name, value) =
                    pair.split_once(':').ok_or_else(|| wrong("NAME:VALUE is needed"))?;
                pairs.insert(name.to_owned(), value.into());
            }
            Value::Object(pairs)
        }
        Kind::Choice { words, members } => choice(words, members, last)
            .ok_or_else(|| wrong("one of the forms that --help shows is needed"))?,
        Kind::Json => {
            let text = read(last)?;
            return RawValue::from_string(text).map_err(|_| {
                wrong(
                    "JSON is needed; a text stands in double quotes of its own, such as '\"text\"'",
                )
            });
        }
    };
    serde_json::value::to_raw_value(&value).map_err(|error| Failure::Usage(error.to_string()))
}

fn choice(words: &[String], members: &[(String, Kind)], text: &str) -> Option<Value> {
    if words.iter().any(|word| word == text) {
        return Some(text.into());
    }
    let (name, value) = text.split_once('=')?;
    let (_, held) = members.iter().find(|(known, _)| known == name)?;
    let value = match held {
        Kind::List => value.split(',').map(Value::from).collect(),
        Kind::Number => Value::Number(value.parse().ok()?),
        _ => Value::from(value),
    };
    Some(Value::Object([(name.to_owned(), value)].into_iter().collect()))
}

/// The text itself, or what the file holds that it names.
fn read(text: &str) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::Usage(format!("cannot read {text}: {error}"));
    match text.strip_prefix('@').unwrap_or(text) {
        "-" => {
            let mut all = String::new();
            std::io::stdin().read_to_string(&mut all).map_err(failed)?;
            Ok(all)
        }
        path if text.starts_with('@') => std::fs::read_to_string(path).map_err(failed),
        _ => Ok(text.to_owned()),
    }
}
