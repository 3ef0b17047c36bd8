//! Finds the binaries of PostgreSQL on this machine: the newest that will do. It downloads nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::LocalPostgresError;

/// The oldest major version that the schema works on.
const OLDEST: u32 = 14;

/// The binaries of one installation.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// Makes clusters.
    pub initdb: PathBuf,
    /// The server.
    pub postgres: PathBuf,
    /// Its major version.
    pub version: u32,
}

/// Finds binaries: those that `BACKSTITCH_PG_BIN` names, else the newest of `pg_config --bindir`, the `PATH` and the
/// places where packages put them.
///
/// # Errors
/// [`LocalPostgresError::NotFound`], with how to install them.
pub fn find_binaries() -> Result<Binaries, LocalPostgresError> {
    if let Some(dir) = std::env::var_os("BACKSTITCH_PG_BIN") {
        let dir = PathBuf::from(dir);
        return binaries_in(&dir).filter(|found| found.version >= OLDEST).ok_or_else(|| {
            LocalPostgresError::NotFound(format!(
                "BACKSTITCH_PG_BIN is {}, but there is no initdb and postgres of version {OLDEST} or newer; \
                 name the directory that holds them, or unset it",
                dir.display()
            ))
        });
    }
    let found = candidates().into_iter().filter_map(|dir| binaries_in(&dir));
    found
        .filter(|found| found.version >= OLDEST)
        .max_by_key(|found| found.version)
        .ok_or_else(|| LocalPostgresError::NotFound(not_found()))
}

fn candidates() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    let asked = Command::new("pg_config").arg("--bindir").stderr(Stdio::null()).output();
    if let Ok(output) = asked {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    if let Some(path) = std::env::var_os("PATH") {
        dirs.extend(std::env::split_paths(&path));
    }
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql"),
        ("/Library/PostgreSQL", ""),
        ("/Applications/Postgres.app/Contents/Versions", ""),
    ] {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        let named = entries.flatten().filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix))
        });
        dirs.extend(named.map(|entry| entry.path().join("bin")));
    }
    dirs.sort();
    dirs.dedup();
    dirs
}

fn binaries_in(dir: &Path) -> Option<Binaries> {
    let postgres = dir.join("postgres");
    let initdb = dir.join("initdb");
    if !postgres.is_file() || !initdb.is_file() {
        return None;
    }
    let output = Command::new(&postgres).arg("--version").stderr(Stdio::null()).output().ok()?;
    let version = major_version(&String::from_utf8_lossy(&output.stdout))?;
    Some(Binaries { initdb, postgres, version })
}

/// Returns the major version in `postgres (PostgreSQL) 15.18 (Debian 15.18-0)`, also of betas (`18beta1`).
fn major_version(text: &str) -> Option<u32> {
    let number = text.split_once("(PostgreSQL)")?.1.trim_start();
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}

fn not_found() -> String {
    let has = |path: &str| Path::new(path).exists();
    let install = if has("/usr/bin/apt-get") {
        "apt-get install -y postgresql"
    } else if has("/usr/bin/dnf") {
        "dnf install -y postgresql-server"
    } else if has("/sbin/apk") {
        "apk add postgresql"
    } else if has("/usr/bin/pacman") {
        "pacman -S --noconfirm postgresql"
    } else {
        "brew install postgresql@17"
    };
    format!(
        "no PostgreSQL binaries of version {OLDEST} or newer were found; install them with `{install}`, \
         name their directory in BACKSTITCH_PG_BIN, or name a running server in BACKSTITCH_DATABASE_URL"
    )
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn reads_versions() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("postgres 9"), None);
    }
}
