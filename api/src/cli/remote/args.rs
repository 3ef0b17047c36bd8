//! Flags and arguments of a verb, made from what its operation takes, and the request made from what was typed.

use std::collections::BTreeMap;
use std::io::Read;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;
use serde_json::value::RawValue;

use super::example::{example, plain};
use super::operation::{Field, Kind};
use super::verbs::{Does, Verb};
use super::{Failure, instant, profile};

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

/// The fields that name an instant ahead.
const AHEAD: [&str; 2] = ["start_at", "end_by"];

/// Names of flags that every verb has.
const TAKEN: &[&str] = &[
    "url",
    "api-key",
    "api-key-file",
    "ca-file",
    "client-cert",
    "namespace",
    "actor",
    "profile",
    "config",
    "output",
    "wide",
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
        .args(profile::flags(false));
    if let Some(alias) = verb.alias() {
        command = command.visible_alias(alias);
    }
    for (place, field) in placed_fields(verb) {
        command = command.arg(positional(verb, place, field));
    }
    if verb.is_about_a_run() {
        let workflow = Arg::new("of-workflow").long("workflow").value_name("WORKFLOW");
        command = command.arg(workflow.help("The workflow whose business key RUN is"));
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
    for ((place, field), name) in flag_fields(verb).into_iter().zip(flag_names(verb)) {
        command = command.arg(flag(place, field, name));
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

/// Returns the summary of a verb, on one line.
pub(crate) fn about(verb: &Verb) -> String {
    match verb.does {
        Does::Print => verb.operation.summary.clone(),
        Does::Watch => format!("{}, and follow it until it ends", verb.operation.summary),
    }
}

fn without_rights(description: &str) -> &str {
    description.split("Needs the right").next().unwrap_or_default().trim()
}

/// Returns fields given by their place.
pub(super) fn placed_fields(verb: &Verb) -> Vec<(&'static str, &Field)> {
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

/// Returns fields given by flags.
pub(super) fn flag_fields(verb: &Verb) -> Vec<(&'static str, &Field)> {
    let operation = &verb.operation;
    let query = operation.in_query.iter().filter(|_| verb.does == Does::Print);
    let query = query.filter(|field| !is_whose(verb, field));
    let body = operation
        .in_body
        .iter()
        .filter(|field| !verb.takes_file() && !verb.placed().contains(&field.name.as_str()));
    query.map(|field| ("query", field)).chain(body.map(|field| ("body", field))).collect()
}

/// Returns whether a field is filled by the common flag `--actor`: a question asks nothing in anybody's name, so there it
/// says whose acts are meant.
fn is_whose(verb: &Verb, field: &Field) -> bool {
    verb.operation.method == "GET" && field.name == "actor"
}

fn positional(verb: &Verb, place: &str, field: &Field) -> Arg {
    let arg = Arg::new(format!("{place}:{}", field.name)).required(true);
    if verb.is_about_a_run() && place == "path" && field.name == "id" {
        return arg
            .value_name("RUN")
            .help("The run: its id, its business key, or WORKFLOW/KEY where several have the key");
    }
    let arg = arg.value_name(field.name.to_uppercase());
    if place == "path" && verb.means_newest_without(field) {
        return arg.required(false).help(format!("{}; the newest without it", field.help));
    }
    arg.help(field.help.clone())
}

/// The names of the flags of [`flag_fields`]: `--set-output` where every verb has an `--output`.
pub(super) fn flag_names(verb: &Verb) -> Vec<String> {
    let mut taken: Vec<String> = TAKEN.iter().map(|name| (*name).to_owned()).collect();
    if verb.is_about_a_run() {
        taken.push("workflow".to_owned());
    }
    let name = |(_, field): &(&str, &Field)| {
        let mut name = flag_name(field);
        while taken.contains(&name) {
            name = format!("set-{name}");
        }
        taken.push(name.clone());
        name
    };
    flag_fields(verb).iter().map(name).collect()
}

/// The name of a field's flag: `--dry-run`; `--label` for many.
fn flag_name(field: &Field) -> String {
    let name = field.name.replace('_', "-");
    match field.kind {
        Kind::Pairs | Kind::List => name.strip_suffix('s').unwrap_or(&name).to_owned(),
        _ => name,
    }
}

fn flag(place: &str, field: &Field, name: String) -> Arg {
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
        Kind::Instant => arg.value_name("TIME").allow_hyphen_values(true).help(format!(
            "{} {}",
            field.help,
            instant::FORMS
        )),
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

/// The request that was typed; `run` is the id of the run that it is about, `whose` what `--actor` says.
///
/// # Errors
/// [`Failure::Usage`] when it makes no sense.
pub(crate) fn asked(
    verb: &Verb,
    matches: &ArgMatches,
    run: Option<&str>,
    whose: Option<&str>,
) -> Result<Asked, Failure> {
    let operation = &verb.operation;
    let mut body = None;
    if verb.takes_file() {
        let file = matches.get_one::<String>("file");
        let file = file.map(|file| format!("@{}", file.strip_prefix('@').unwrap_or(file)));
        body = file.map(|file| read(&file)).transpose()?;
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
            false => match run.filter(|_| field.name == "id") {
                Some(run) => run.to_owned(),
                None => typed(matches, "path", &field.name).pop().unwrap_or_default(),
            },
        };
        let encoded: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
        path = path.replace(&format!("{{{}}}", field.name), &encoded.replace('+', "%20"));
    }
    let mut query = Vec::new();
    for field in operation.in_query.iter().filter(|_| verb.does == Does::Print) {
        if is_whose(verb, field) {
            query.extend(whose.map(|actor| (field.name.clone(), actor.to_owned())));
            continue;
        }
        for value in typed(matches, "query", &field.name) {
            let value = match field.kind {
                Kind::Instant => at(field, &value)?,
                _ => value,
            };
            query.push((field.name.clone(), value));
        }
    }
    let acts = operation.method == "POST";
    let key = acts.then(|| match matches.get_one::<String>("idempotency-key") {
        Some(key) => key.clone(),
        None => uuid::Uuid::now_v7().to_string(),
    });
    Ok(Asked { method: operation.method.clone(), path, query, body, key })
}

/// Returns the values that were typed for a field.
fn typed(matches: &ArgMatches, place: &str, name: &str) -> Vec<String> {
    let values = matches.try_get_many::<String>(&format!("{place}:{name}"));
    values.ok().flatten().into_iter().flatten().cloned().collect()
}

/// A member of a JSON document, as text.
fn member(document: &str, name: &str) -> Result<String, Failure> {
    let document: Value = serde_json::from_str(document)
        .map_err(|error| Failure::File(format!("the file is not JSON: {error}")))?;
    match document.get(name) {
        Some(value) => Ok(plain(value)),
        None => Err(Failure::File(format!("the file has no member '{name}'"))),
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

/// An instant as the API takes it.
fn at(field: &Field, text: &str) -> Result<String, Failure> {
    let read = instant::read(text, instant::now());
    read.map_err(|error| Failure::Usage(format!("--{}: {error}", flag_name(field))))
}

fn value(field: &Field, last: &str, all: &[String]) -> Result<Box<RawValue>, Failure> {
    let wrong =
        |what: &str| Failure::Usage(format!("--{}: {what}, not '{last}'", flag_name(field)));
    let value = match &field.kind {
        Kind::Text | Kind::Word(_) => Value::from(last),
        Kind::Instant => {
            let read = at(field, last)?;
            // `5m` is five minutes ago everywhere, and nothing begins or ends then.
            let ahead = AHEAD.contains(&&*field.name);
            if ahead && read != last && instant::has_passed(&read, instant::now()) {
                return Err(wrong("an instant ahead is needed, such as +5m"));
            }
            Value::from(read)
        }
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
                if pairs.insert(name.to_owned(), value.into()).is_some() {
                    return Err(wrong("each name may be given once"));
                }
            }
            Value::Object(pairs)
        }
        Kind::Choice { words, members } => choice(words, members, last)
            .ok_or_else(|| wrong("one of the forms that --help shows is needed"))?,
        Kind::Json => {
            let text = read(last)?;
            let text = with_instants(field, text)?;
            return RawValue::from_string(text).map_err(|_| {
                wrong(
                    "JSON is needed; a text stands in double quotes of its own, such as '\"text\"'",
                )
            });
        }
    };
    serde_json::value::to_raw_value(&value).map_err(|error| Failure::Usage(error.to_string()))
}

/// A document whose members that are instants stand as the API takes them. It is left as it was typed where nothing has
/// to change.
fn with_instants(field: &Field, text: String) -> Result<String, Failure> {
    if field.instants.is_empty() {
        return Ok(text);
    }
    let Ok(mut document) = serde_json::from_str::<Value>(&text) else { return Ok(text) };
    let mut changed = false;
    for name in &field.instants {
        let Some(Value::String(typed)) = document.get_mut(name) else { continue };
        let read = at(field, typed)?;
        changed |= *typed != read;
        *typed = read;
    }
    Ok(if changed { document.to_string() } else { text })
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
