//! The verbs that ask a server: each asks one operation of the API, and is made from what the OpenAPI document says of
//! it, so that there is no verb without an operation and no operation without a verb.

mod args;
mod client;
mod columns;
mod credential;
mod draw;
mod example;
mod instant;
mod layout;
mod operation;
mod profile;
mod registered;
mod run_key;
mod screen;
mod show;
mod table;
mod verbs;
mod watch;

use std::fmt;
use std::process::ExitCode;

use backstitch_saga::protocol::{
    Outcome, Problem, RunTree, RunView, SignalSent, Why, WorkflowView,
};
use clap::{ArgMatches, Command};
use serde_json::value::RawValue;

use args::Asked;
use client::{Answer, Client};
pub(crate) use profile::Form;
use profile::Profile;
pub use verbs::WITHOUT_VERB;
use verbs::{Does, Verb};

use crate::print;

/// The reason for which a verb failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was asked wrongly.
    Usage(String),
    /// The file that it was given does not hold what is needed.
    File(String),
    /// There is no run of a business key.
    NotFound(String),
    /// The server refused it.
    Refused(Box<Problem>),
    /// The server was not reached, or its answer was lost.
    Unreachable(String),
}

/// The exit codes, as `docs/cli.md` tells them.
mod exit {
    pub(super) const FAILED: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const NOT_FOUND: u8 = 3;
    pub(super) const NOT_ALLOWED: u8 = 4;
    pub(super) const UNREACHABLE: u8 = 5;
    pub(super) const STILL_MOVES: u8 = 6;
    pub(super) const NOT_ALL: u8 = 7;
}

impl Failure {
    /// The exit code after `verb`. What a server refuses of a file is no mistake of the command line.
    fn exit_code(&self, verb: &Verb) -> u8 {
        match self {
            Failure::Usage(_) => exit::USAGE,
            Failure::File(_) => exit::FAILED,
            Failure::NotFound(_) => exit::NOT_FOUND,
            Failure::Unreachable(_) => exit::UNREACHABLE,
            Failure::Refused(problem) => match problem.status {
                400 | 413 | 422 if verb.takes_file() => exit::FAILED,
                400 | 422 => exit::USAGE,
                401 | 403 | 421 => exit::NOT_ALLOWED,
                404 => exit::NOT_FOUND,
                429 | 503 => exit::UNREACHABLE,
                _ => exit::FAILED,
            },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(message)
            | Failure::File(message)
            | Failure::NotFound(message)
            | Failure::Unreachable(message) => f.write_str(message),
            Failure::Refused(problem) => {
                let detail = problem.detail.as_deref().unwrap_or(&problem.title);
                // One mistake is the detail; of several, each stands on a line of its own.
                if problem.errors.len() < 2 {
                    return write!(f, "{detail} ({})", problem.code);
                }
                write!(f, "{} ({})", problem.title, problem.code)?;
                problem.errors.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
            }
        }
    }
}

#[cfg(feature = "fuzz")]
pub(crate) use profile::parse as parse_profile;

/// Adds the verbs to the program. The flags that every verb has may also stand before the verb.
pub(super) fn add(mut program: Command) -> Command {
    program = program.args(profile::flags(false));
    for verb in verbs::all() {
        let command = args::command(&verb);
        if verb.group.is_empty() {
            program = program.subcommand(command);
            continue;
        }
        if program.find_subcommand(&verb.group).is_none() {
            let group = Command::new(verb.group.clone()).about(verbs::about(&verb.group));
            program =
                program.subcommand(group.subcommand_required(true).arg_required_else_help(true));
        }
        program = program.mut_subcommand(verb.group, |group| group.subcommand(command));
    }
    let groups: Vec<String> = program
        .get_subcommands()
        .filter(|group| group.has_subcommands() && !group.is_hide_set())
        .map(|group| group.get_name().to_owned())
        .collect();
    for group in groups {
        program = program.mut_subcommand(group, |group| group.args(profile::flags(true)));
    }
    program
}

/// Each verb with an example, and what it is for.
pub(super) fn listed() -> Vec<(String, String)> {
    let line = |verb: &Verb| (example::example(verb), args::about(verb));
    verbs::all().iter().map(line).collect()
}

/// The verb that was typed, if it is one of ours: with its matches, and those of what stands before it.
pub(super) fn find(matches: &ArgMatches) -> Option<(Verb, Vec<ArgMatches>)> {
    let (first, inner) = matches.subcommand()?;
    let (group, name, levels) = match inner.subcommand() {
        Some((name, innermost)) => (first, name, vec![innermost, inner, matches]),
        None => ("", first, vec![inner, matches]),
    };
    let ours = |verb: &Verb| verb.group == group && verb.name == name;
    let verb = verbs::all().into_iter().find(ours)?;
    Some((verb, levels.into_iter().cloned().collect()))
}

/// Refuses flags that say where a server is before a verb that asks none.
///
/// # Errors
/// A sentence that names them.
pub(super) fn not_for_local(matches: &ArgMatches) -> Result<(), String> {
    let (mut levels, mut words) = (vec![matches], Vec::new());
    let mut at = matches;
    while let Some((name, inner)) = at.subcommand() {
        words.push(name);
        levels.push(inner);
        at = inner;
    }
    let typed = profile::typed_flags(&levels);
    if typed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "`backstitch {}` asks no server: {} is not for it",
        words.join(" "),
        typed.join(", ")
    ))
}

/// Does what the verb says, and says how it went.
pub(super) async fn run(verb: &Verb, levels: &[ArgMatches]) -> ExitCode {
    let profile = match Profile::of(levels) {
        Ok(profile) => profile,
        Err(error) => {
            print::note(format_args!("backstitch: {error:#}"));
            return ExitCode::from(exit::USAGE);
        }
    };
    let Some(matches) = levels.first() else { return ExitCode::from(exit::USAGE) };
    match ask(verb, matches, &profile).await {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            print::note(format_args!("backstitch: {failure}"));
            let code = failure.exit_code(verb);
            if let (exit::NOT_ALLOWED, Some(withheld)) = (code, &profile.withheld) {
                print::note(format_args!("backstitch: {withheld}"));
            }
            ExitCode::from(code)
        }
    }
}

async fn ask(verb: &Verb, matches: &ArgMatches, profile: &Profile) -> Result<u8, Failure> {
    let client = Client::new(profile)?;
    let typed = matches.try_get_one::<String>("path:id").ok().flatten();
    let Some(typed) = typed.filter(|_| verb.is_about_a_run()) else {
        return ask_about(verb, matches, profile, &client, None).await;
    };
    let workflow = matches.try_get_one::<String>("of-workflow").ok().flatten();
    let id = run_key::resolve(&client, typed, workflow.map(String::as_str)).await?;
    let answer = ask_about(verb, matches, profile, &client, Some(&id)).await;
    match &answer {
        // A business key may look like an id.
        Err(Failure::Refused(problem)) if problem.code == "unknown_run" && *typed == id => {
            match run_key::by_key(&client, typed, None).await {
                Ok(id) => ask_about(verb, matches, profile, &client, Some(&id)).await,
                Err(Failure::NotFound(_)) => answer,
                Err(failure) => Err(failure),
            }
        }
        _ => answer,
    }
}

/// The same, once the run that it is about is known by its id.
async fn ask_about(
    verb: &Verb,
    matches: &ArgMatches,
    profile: &Profile,
    client: &Client,
    run: Option<&str>,
) -> Result<u8, Failure> {
    let form = profile.output.unwrap_or_default();
    let mut asked = args::asked(verb, matches, run, profile.whose.as_deref())?;
    for (_, value) in asked.query.iter_mut().filter(|(name, _)| name == "run") {
        *value = run_key::resolve(client, value, None).await?;
    }
    if verb.operation.in_path.iter().any(|field| verb.means_newest_without(field))
        && let Some(workflow) = asked.path.strip_suffix("/versions/")
    {
        let version = newest(client, workflow).await?;
        asked.path += &version;
    }
    if verb.does == Does::Watch {
        return match verb.operation.answer.as_deref() {
            Some("JobView") => watch::job(client, &asked, form).await,
            _ => watch::run(client, &asked, form).await,
        };
    }
    let answer = match matches.try_get_one::<bool>("all") {
        Ok(Some(true)) => all_pages(client, asked.clone()).await?,
        _ => client.ask(&asked).await?,
    };
    print(client, verb, &asked, &answer, form, screen::width(profile.wide)).await;
    Ok(exit_code(&asked, &answer))
}

/// 207 and 202 are no errors, but not a full success either.
fn exit_code(asked: &Asked, answer: &Answer) -> u8 {
    let waited = asked.query.iter().any(|(name, _)| name == "wait");
    match answer.status {
        207 => exit::NOT_ALL,
        202 if waited => exit::STILL_MOVES,
        _ => 0,
    }
}

/// Returns the exit code for the end of a run.
fn exit_of(outcome: Option<Outcome>) -> u8 {
    match outcome {
        Some(Outcome::Succeeded) => 0,
        Some(_) => exit::NOT_ALL,
        None => exit::STILL_MOVES,
    }
}

/// A page of a list, its elements as they were sent.
#[derive(serde::Deserialize, serde::Serialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// All pages as one.
async fn all_pages(client: &Client, mut asked: Asked) -> Result<Answer, Failure> {
    let mut items = Vec::new();
    loop {
        let mut answer = client.ask(&asked).await?;
        let Ok(page) = serde_json::from_str::<Page>(&answer.text) else { return Ok(answer) };
        items.extend(page.items);
        let Some(next) = page.next else {
            let whole = Page { items, next: None };
            answer.text = serde_json::to_string(&whole).unwrap_or(answer.text);
            return Ok(answer);
        };
        asked.query.retain(|(name, _)| name != "after");
        asked.query.push(("after".to_owned(), next));
    }
}

/// The newest version of the workflow at `path`.
async fn newest(client: &Client, path: &str) -> Result<String, Failure> {
    let asked = Asked { method: "GET".to_owned(), path: path.to_owned(), ..Asked::default() };
    let answer = all_pages(client, asked).await?;
    let versions: backstitch_saga::protocol::Page<WorkflowView> =
        serde_json::from_str(&answer.text).map_err(|error| {
            Failure::Unreachable(format!("the answer is no list of versions: {error}"))
        })?;
    let newest = versions.items.iter().map(|version| version.version).max();
    Ok(newest.unwrap_or_default().to_string())
}

/// Prints an answer as it was asked for; `width` is that of the terminal, if there is one to keep to.
async fn print(
    client: &Client,
    verb: &Verb,
    asked: &Asked,
    answer: &Answer,
    form: Form,
    width: Option<usize>,
) {
    if answer.text.is_empty() {
        print::note("Done.");
        return;
    }
    if form == Form::Json {
        print::line(&answer.text);
        return;
    }
    if let Ok(view) = serde_json::from_str::<RunView>(&answer.text) {
        let graph = client.graph(&view).await;
        print::text(draw::run(&view, graph.as_deref(), width));
        return;
    }
    if let Ok(tree) = serde_json::from_str::<RunTree>(&answer.text) {
        print::text(draw::tree(&tree));
        return;
    }
    let sent = serde_json::from_str::<SignalSent>(&answer.text).ok();
    if let Some(sent) = sent.filter(|_| verb.operation.id == "send_signal_by_key") {
        print::line(show::sent(&sent, asked.body.as_deref().unwrap_or_default()));
        return;
    }
    if verb.operation.id == "register_workflow"
        && let Ok(view) = serde_json::from_str::<WorkflowView>(&answer.text)
    {
        print::text(registered::text(answer.status, &view));
        return;
    }
    let kind = verb.operation.answer.as_deref().unwrap_or_default();
    print::text(table::answer(kind, &answer.text, width));
    if kind == "Why"
        && let Ok(why) = serde_json::from_str::<Why>(&answer.text)
    {
        print::text(show::deeds(&why));
    }
    if let Ok(Page { next: Some(next), .. }) = serde_json::from_str(&answer.text) {
        print::note(format_args!("There is more: --after {next}, or --all."));
    }
    if let Some(id) = started_id(asked, &answer.text) {
        print::note(format_args!("See how it goes: backstitch run watch {id}"));
    }
}

/// The id of a run that was just started.
fn started_id(asked: &Asked, text: &str) -> Option<String> {
    let started: backstitch_saga::protocol::RunStarted = serde_json::from_str(text).ok()?;
    (asked.path == "/v1/runs").then(|| started.id.to_string())
}
