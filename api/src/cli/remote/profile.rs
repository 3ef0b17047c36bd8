//! Chooses the server of the verbs: flags before `BACKSTITCH_*` variables, those before the profile's file, that
//! before defaults. A secret goes only to the server that it was given with: see [`credential`](super::credential).
//!
//! The file is `~/.config/backstitch/config.toml`: the part of TOML that has tables and strings. Each table is a
//! profile.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, ValueEnum};

use super::credential::{Given, Origin, choose};
use crate::cli::database::variable;
use crate::cli::secret;

/// The server of a program that was told of none.
pub(super) const DEFAULT_URL: &str = "http://127.0.0.1:7420";
/// The profile of a program that was told of none.
const DEFAULT_PROFILE: &str = "default";
/// The heading of these flags in `--help`.
const HEADING: &str = "Server and output";

/// Form in which an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    #[default]
    Table,
    /// As the server sent it.
    Json,
}

impl Form {
    /// The form that the flag says, or else the variable `BACKSTITCH_OUTPUT`.
    ///
    /// # Errors
    /// When the variable holds neither `table` nor `json`.
    pub(crate) fn chosen(flag: Option<Form>) -> anyhow::Result<Form> {
        Ok(flag.or(Form::of_variable()?).unwrap_or_default())
    }

    fn of_variable() -> anyhow::Result<Option<Form>> {
        let Some(word) = variable("BACKSTITCH_OUTPUT") else { return Ok(None) };
        let form = Form::of(&word)
            .with_context(|| format!("BACKSTITCH_OUTPUT must be table or json, not '{word}'"))?;
        Ok(Some(form))
    }

    fn of(word: &str) -> Option<Form> {
        Form::from_str(word, false).ok()
    }
}

/// The server, who asks it, and the form in which answers are printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) url: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) api_key: Option<String>,
    pub(crate) actor: Option<String>,
    /// Value of the flag `--actor`: in a query, the actor whose acts are meant.
    pub(crate) whose: Option<String>,
    /// A file with the issuers of servers' certificates, and one with the client's own certificate and key.
    pub(crate) ca_file: Option<String>,
    pub(crate) client_cert: Option<String>,
    pub(crate) output: Option<Form>,
    /// `true` if cells are printed in full on a terminal, too.
    pub(crate) wide: bool,
    /// A secret that was not sent because it belongs to another server; told when the server asks for one.
    pub(crate) withheld: Option<String>,
}

/// A flag that stands before the verb or after it: its name, the name of its value, its help.
const FLAGS: &[(&str, &str, &str)] = &[
    ("url", "URL", "The server; http://127.0.0.1:7420 without it [env: BACKSTITCH_URL]"),
    (
        "api-key",
        "SECRET",
        "The credential's secret; others can see it in the list of processes [env: BACKSTITCH_API_KEY]",
    ),
    ("api-key-file", "FILE", "A file that holds it [env: BACKSTITCH_API_KEY_FILE]"),
    ("namespace", "NAME", "The namespace; a credential knows its own [env: BACKSTITCH_NAMESPACE]"),
    (
        "actor",
        "NAME",
        "Who acts, for an open server's histories; without it what the variable USER says, and `anonymous` where that is not set [env: BACKSTITCH_ACTOR]. In a list of acts: whose",
    ),
    (
        "ca-file",
        "FILE",
        "Issuers of servers' certificates to trust beside the machine's, in PEM [env: BACKSTITCH_CA_FILE]",
    ),
    (
        "client-cert",
        "FILE",
        "The certificate to show to a server that wants one, and its key, in PEM [env: BACKSTITCH_CLIENT_CERT]",
    ),
    ("profile", "NAME", "The profile in the configuration file [env: BACKSTITCH_PROFILE]"),
    (
        "config",
        "FILE",
        "The configuration file; ~/.config/backstitch/config.toml without it [env: BACKSTITCH_CONFIG]",
    ),
];

/// The flags that every verb of a server has. `hidden` where they may stand, too, but are not shown.
///
/// `clap` does not read their variables: it would show the flag of a variable that is set as a required one.
pub(crate) fn flags(hidden: bool) -> Vec<Arg> {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(format!("at:{name}")).long(name).help(help).help_heading(HEADING).hide(hidden)
    };
    let texts = FLAGS.iter().map(|(name, value, help)| flag(name, help).value_name(*value));
    let output = flag(
        "output",
        "How it is printed; json: exactly what the server answered [env: BACKSTITCH_OUTPUT]",
    )
    .short('o')
    .value_name("FORM")
    .value_parser(clap::value_parser!(Form));
    let wide = flag("wide", "Print whole cells, however wide the terminal is");
    texts.chain([output, wide.action(ArgAction::SetTrue)]).collect()
}

/// The flags of [`flags`] that stand on the command line, whatever their level.
pub(crate) fn typed_flags(levels: &[&ArgMatches]) -> Vec<String> {
    let names = FLAGS.iter().map(|(name, ..)| *name).chain(["wide"]);
    let typed = |name: &str, level: &ArgMatches| {
        use clap::parser::ValueSource::CommandLine;
        let id = format!("at:{name}");
        level.try_contains_id(&id).is_ok() && level.value_source(&id) == Some(CommandLine)
    };
    let typed = names.filter(|name| levels.iter().any(|level| typed(name, level)));
    typed.map(|name| format!("--{name}")).collect()
}

impl Profile {
    /// Combines the flags, the variables and the file. `levels` are the verb's matches, and those of what stands
    /// before it.
    ///
    /// # Errors
    /// When the file, or a profile that was asked for, cannot be read, or its secret is for another server.
    pub(crate) fn of(levels: &[ArgMatches]) -> anyhow::Result<Profile> {
        let flag = |name: &str| {
            let id = format!("at:{name}");
            levels.iter().find_map(|level| level.try_get_one::<String>(&id).ok().flatten().cloned())
        };
        let either = |name: &str, known: &str| flag(name).or_else(|| variable(known));
        let named = either("profile", "BACKSTITCH_PROFILE");
        let name = named.clone().unwrap_or_else(|| DEFAULT_PROFILE.to_owned());
        let asked_for = either("config", "BACKSTITCH_CONFIG").map(PathBuf::from);
        let file = match asked_for.clone().or_else(default_file) {
            Some(path) if asked_for.is_some() || path.exists() => {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                if text
                    .lines()
                    .any(|line| line.split('=').next().is_some_and(|name| name.trim() == "api_key"))
                {
                    secret::warn_if_open(&path);
                }
                parse(&text, &name).with_context(|| path.display().to_string())?
            }
            _ => None,
        };
        ensure!(file.is_some() || named.is_none(), "there is no profile '{name}'");
        let file = file.unwrap_or_default();
        let (url, origin) = match (flag("url"), variable("BACKSTITCH_URL"), &file.url) {
            (Some(url), ..) => (url, Origin::Flag),
            (None, Some(url), _) => (url, Origin::Variable),
            (None, None, Some(url)) => (url.clone(), Origin::Profile),
            (None, None, None) => (DEFAULT_URL.to_owned(), Origin::Default),
        };
        let given = Given {
            flag: by_flag(flag("api-key"), flag("api-key-file"))?,
            variable: by_variable()?,
            variable_url: variable("BACKSTITCH_URL"),
            profile: file.api_key,
            profile_url: file.url,
            name,
            named: named.is_some(),
        };
        let (api_key, withheld) = choose(given, &url, origin).map_err(anyhow::Error::msg)?;
        let form = levels
            .iter()
            .find_map(|level| level.try_get_one::<Form>("at:output").ok().flatten().copied());
        let wide = levels.iter().any(|level| {
            level.try_get_one::<bool>("at:wide").ok().flatten().copied().unwrap_or_default()
        });
        Ok(Profile {
            url: Some(url),
            namespace: either("namespace", "BACKSTITCH_NAMESPACE").or(file.namespace),
            api_key,
            whose: flag("actor"),
            actor: either("actor", "BACKSTITCH_ACTOR")
                .or(file.actor)
                .or_else(|| std::env::var("USER").ok()),
            ca_file: either("ca-file", "BACKSTITCH_CA_FILE").or(file.ca_file),
            client_cert: either("client-cert", "BACKSTITCH_CLIENT_CERT").or(file.client_cert),
            output: form.or(Form::of_variable()?).or(file.output),
            wide,
            withheld,
        })
    }

    /// The server's address.
    pub(crate) fn url(&self) -> &str {
        self.url.as_deref().unwrap_or(DEFAULT_URL).trim_end_matches('/')
    }
}

/// The secret that the flags give.
fn by_flag(secret: Option<String>, file: Option<String>) -> anyhow::Result<Option<String>> {
    if secret.is_some() {
        secret::warn_of_flag("--api-key", "BACKSTITCH_API_KEY or --api-key-file");
        return Ok(secret);
    }
    file.map(|path| secret::read(Path::new(&path))).transpose()
}

/// The secret that the variables give.
fn by_variable() -> anyhow::Result<Option<String>> {
    match variable("BACKSTITCH_API_KEY") {
        Some(secret) => Ok(Some(secret)),
        None => variable("BACKSTITCH_API_KEY_FILE")
            .map(|path| secret::read(Path::new(&path)))
            .transpose(),
    }
}

fn default_file() -> Option<PathBuf> {
    let set =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(home.join("backstitch/config.toml"))
}

/// Reads one profile; `None` when there is none of that name. Every line must make sense, whosever it is.
pub(crate) fn parse(text: &str, wanted: &str) -> anyhow::Result<Option<Profile>> {
    let mut table = None;
    let mut found = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("line {}", number + 1);
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = Some(name.trim().to_owned());
            if name.trim() == wanted {
                found.get_or_insert_with(Profile::default);
            }
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .with_context(|| format!("{place}: a line is [PROFILE] or NAME = \"VALUE\""))?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let value = value.filter(|value| !value.contains(['"', '\\'])).with_context(|| {
            format!(
                "{place}: a value stands in double quotes, without others or backslashes inside"
            )
        })?;
        let mut other = Profile::default();
        let profile = match (&table, &mut found) {
            (None, _) => bail!("{place}: it stands before the first [PROFILE]"),
            (Some(name), Some(found)) if name == wanted => found,
            _ => &mut other,
        };
        let is_ours = table.as_deref() == Some(wanted);
        match name.trim() {
            "url" => profile.url = Some(value.to_owned()),
            "ca_file" => profile.ca_file = Some(value.to_owned()),
            "client_cert" => profile.client_cert = Some(value.to_owned()),
            "namespace" => profile.namespace = Some(value.to_owned()),
            "api_key" => profile.api_key = Some(value.to_owned()),
            "api_key_file" if is_ours => profile.api_key = Some(secret::read(Path::new(value))?),
            "api_key_file" => {}
            "actor" => profile.actor = Some(value.to_owned()),
            "output" => {
                let output = Form::of(value).with_context(|| format!("{place}: table or json"))?;
                profile.output = Some(output);
            }
            name => bail!(
                "{place}: '{name}' is not known; there are url, namespace, api_key, api_key_file, actor, ca_file, client_cert, output"
            ),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
        # Two servers\n\
        [default]\n\
        url = \"http://127.0.0.1:7420\"\n\
        \n\
        [live]\n\
        url = \"http://backstitch.example:7420/\"\n\
        api_key = \"bsk_1\"\n\
        namespace = \"shop\"\n\
        output = \"json\"\n";

    #[test]
    fn a_profile_is_a_table_of_the_file() {
        let live = parse(FILE, "live").unwrap().unwrap();
        assert_eq!(live.url(), "http://backstitch.example:7420");
        assert_eq!(live.api_key.as_deref(), Some("bsk_1"));
        assert_eq!(live.output, Some(Form::Json));
        assert_eq!(parse(FILE, "default").unwrap().unwrap().namespace, None);
        assert_eq!(parse(FILE, "test").unwrap(), None);
        assert_eq!(Profile::default().url(), DEFAULT_URL);
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_line() {
        for (text, place) in [
            ("url = \"http://a\"", "line 1: it stands before"),
            ("[a]\nurl = http://a", "line 2: a value stands in double quotes"),
            ("[a]\n\nurl", "line 3: a line is"),
            ("[a]\nuri = \"http://a\"", "line 2: 'uri' is not known"),
            ("[a]\noutput = \"yaml\"", "line 2: table or json"),
        ] {
            let error = format!("{:#}", parse(text, "b").unwrap_err());
            assert!(error.starts_with(place), "{error}");
        }
    }
}
