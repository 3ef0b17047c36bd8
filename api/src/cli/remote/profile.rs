//! Where the verbs find their server: flags before `BACKSTITCH_*` variables, those before the profile's file, that
//! before defaults.
//!
//! The file is `~/.config/backstitch/config.toml`: the part of TOML that has tables and strings. Each table is a
//! profile.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{Arg, ArgMatches};

/// The server of a program that was told of none.
const DEFAULT_URL: &str = "http://127.0.0.1:7420";
/// The profile of a program that was told of none.
const DEFAULT_PROFILE: &str = "default";
/// The heading of these flags in `--help`.
const HEADING: &str = "Server and output";

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// As the server sent it.
    Json,
}

/// Where the server is and who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) url: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) api_key: Option<String>,
    pub(crate) actor: Option<String>,
    pub(crate) output: Option<Output>,
}

/// The flags that every verb of a server has.
pub(crate) fn flags() -> Vec<Arg> {
    let flag = |name: &'static str, variable: &'static str, value: &'static str, help: &str| {
        Arg::new(format!("at:{name}"))
            .long(name)
            .env(variable)
            .value_name(value)
            .help(help.to_owned())
            .help_heading(HEADING)
            .hide_env_values(true)
    };
    vec![
        flag("url", "BACKSTITCH_URL", "URL", "The server; http://127.0.0.1:7420 without it"),
        flag("api-key", "BACKSTITCH_API_KEY", "SECRET", "The credential's secret"),
        flag("api-key-file", "BACKSTITCH_API_KEY_FILE", "FILE", "A file that holds it"),
        flag(
            "namespace",
            "BACKSTITCH_NAMESPACE",
            "NAME",
            "The namespace; a credential knows its own",
        ),
        flag(
            "actor",
            "BACKSTITCH_ACTOR",
            "NAME",
            "Who acts, for an open server's histories; the user's name without it",
        ),
        flag("profile", "BACKSTITCH_PROFILE", "NAME", "The profile in the configuration file"),
        flag(
            "config",
            "BACKSTITCH_CONFIG",
            "FILE",
            "The configuration file; ~/.config/backstitch/config.toml without it",
        ),
        flag(
            "output",
            "BACKSTITCH_OUTPUT",
            "FORM",
            "table, or json: exactly what the server answered",
        )
        .short('o')
        .value_parser(["table", "json"]),
    ]
}

impl Profile {
    /// What the flags, the variables and the file say together.
    ///
    /// # Errors
    /// When the file, or a profile that was asked for, cannot be read.
    pub(crate) fn of(matches: &ArgMatches) -> anyhow::Result<Profile> {
        let flag = |name: &str| matches.get_one::<String>(&format!("at:{name}")).cloned();
        let named = flag("profile");
        let name = named.as_deref().unwrap_or(DEFAULT_PROFILE);
        let asked_for = flag("config").map(PathBuf::from);
        let file = match asked_for.clone().or_else(default_file) {
            Some(path) if asked_for.is_some() || path.exists() => {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                parse(&text, name).with_context(|| path.display().to_string())?
            }
            _ => None,
        };
        ensure!(file.is_some() || named.is_none(), "there is no profile '{name}'");
        let file = file.unwrap_or_default();
        let api_key = match (flag("api-key"), flag("api-key-file")) {
            (Some(key), _) => Some(key),
            (None, Some(path)) => Some(secret(Path::new(&path))?),
            (None, None) => file.api_key,
        };
        let output = flag("output").as_deref().and_then(output);
        Ok(Profile {
            url: flag("url").or(file.url),
            namespace: flag("namespace").or(file.namespace),
            api_key,
            actor: flag("actor").or(file.actor).or_else(|| std::env::var("USER").ok()),
            output: output.or(file.output),
        })
    }

    /// The server's address.
    pub(crate) fn url(&self) -> &str {
        self.url.as_deref().unwrap_or(DEFAULT_URL).trim_end_matches('/')
    }
}

fn output(word: &str) -> Option<Output> {
    match word {
        "table" => Some(Output::Table),
        "json" => Some(Output::Json),
        _ => None,
    }
}

fn default_file() -> Option<PathBuf> {
    let set =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(home.join("backstitch/config.toml"))
}

fn secret(path: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
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
            "namespace" => profile.namespace = Some(value.to_owned()),
            "api_key" => profile.api_key = Some(value.to_owned()),
            "api_key_file" if is_ours => profile.api_key = Some(secret(Path::new(value))?),
            "api_key_file" => {}
            "actor" => profile.actor = Some(value.to_owned()),
            "output" => {
                let output = output(value).with_context(|| format!("{place}: table or json"))?;
                profile.output = Some(output);
            }
            name => bail!(
                "{place}: '{name}' is not known; there are url, namespace, api_key, api_key_file, actor, output"
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
        assert_eq!(live.output, Some(Output::Json));
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
