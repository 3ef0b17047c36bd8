//! Address of the database: a flag, a file, or a variable of either.

use std::path::{Path, PathBuf};

use clap::Args;

use super::secret;

const URL: &str = "BACKSTITCH_DATABASE_URL";
const URL_FILE: &str = "BACKSTITCH_DATABASE_URL_FILE";

/// Where the database is. Variables are read here and not by `clap`, which would show the flag of a variable that is
/// set as a required one, and take a flag and the variable of another one for a conflict.
#[derive(Args)]
pub(crate) struct DatabaseArgs {
    /// postgres://USER:PASSWORD@HOST/DATABASE; others can see it in the list of processes [env: BACKSTITCH_DATABASE_URL]
    #[arg(long)]
    database_url: Option<String>,
    /// A file that holds the URL, instead of it [env: BACKSTITCH_DATABASE_URL_FILE]
    #[arg(long, conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,
}

impl DatabaseArgs {
    /// The URL of the database.
    ///
    /// # Errors
    /// When none is named, or its file cannot be read.
    pub(crate) fn url(&self) -> anyhow::Result<String> {
        self.given()?.ok_or_else(|| {
            anyhow::anyhow!(
                "no database is named; set {URL} or {URL_FILE}, or try `backstitch dev`, \
                 which brings its own"
            )
        })
    }

    /// The URL of the database, if one is named. Flags go before variables.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub(crate) fn given(&self) -> anyhow::Result<Option<String>> {
        if let Some(url) = &self.database_url {
            if has_password(url) {
                secret::warn_of_flag("--database-url", &format!("{URL} or --database-url-file"));
            }
            return Ok(Some(url.clone()));
        }
        if let Some(path) = &self.database_url_file {
            return secret::read(path).map(Some);
        }
        match (variable(URL), variable(URL_FILE)) {
            (Some(url), _) => Ok(Some(url)),
            (None, Some(path)) => secret::read(Path::new(&path)).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// A variable of the environment; an empty one counts as none.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns whether a URL of PostgreSQL holds a password: before the host, or as a parameter.
fn has_password(url: &str) -> bool {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    user.contains(':') || parameters.split('&').any(|pair| pair.starts_with("password="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_found_wherever_a_url_may_hold_it() {
        for url in ["postgres://u:p@h/d", "postgres://h/d?user=u&password=p", "postgresql://u:p@/d"]
        {
            assert!(has_password(url), "{url}");
        }
        for url in ["postgres://u@h/d", "postgres://localhost/d?host=/tmp/x", "postgres:///d"] {
            assert!(!has_password(url), "{url}");
        }
    }
}
