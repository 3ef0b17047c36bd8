//! Directory and user of a private server: never root, and a directory closed to everyone else.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{LocalPostgresError, failed};

/// User of the server: set only if the process is root's.
pub(super) struct Unprivileged {
    name: String,
    uid: u32,
    gid: u32,
}

/// Returns the default directory of the data of `backstitch dev`.
#[must_use]
pub fn default_data_dir() -> PathBuf {
    if effective_uid().is_ok_and(|uid| uid == 0) {
        return PathBuf::from("/var/lib/backstitch/postgres");
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(home)
        .unwrap_or_else(std::env::temp_dir)
        .join("backstitch/postgres")
}

/// Makes the directory, the server's own and closed to everyone else, since it holds the socket.
pub(super) fn make_dir(
    wanted: Option<&Path>,
    user: Option<&Unprivileged>,
) -> Result<PathBuf, LocalPostgresError> {
    let dir = match wanted {
        Some(path) => {
            std::path::absolute(path).map_err(|error| failed("the data directory", error))?
        }
        None => {
            let name = format!("backstitch-{}-{:08x}", std::process::id(), rand::random::<u32>());
            let base = std::env::temp_dir();
            let open = user.is_none_or(|user| blocked_for(user, &base).is_none());
            (if open { base } else { PathBuf::from("/tmp") }).join(name)
        }
    };
    // The socket's path must fit into 107 bytes.
    if dir.as_os_str().len() > 88 {
        return Err(failed(dir.display().to_string(), "the path is too long; 88 bytes at most"));
    }
    let explain = |error| failed(format!("making {}", dir.display()), error);
    fs::create_dir_all(&dir).map_err(explain)?;
    if let Some(user) = user {
        if let Some(blocked) = dir.parent().and_then(|parent| blocked_for(user, parent)) {
            return Err(LocalPostgresError::Unreachable {
                user: user.name.clone(),
                blocked,
                instead: default_data_dir(),
            });
        }
        chown(&dir, Some(user.uid), Some(user.gid)).map_err(explain)?;
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(explain)?;
    Ok(dir)
}

/// Returns the first directory on the way to `path` that does not let `user` through.
fn blocked_for(user: &Unprivileged, path: &Path) -> Option<PathBuf> {
    let closed = |dir: &&Path| {
        fs::metadata(dir).is_ok_and(|meta| {
            let bit = if meta.uid() == user.uid {
                0o100
            } else if meta.gid() == user.gid {
                0o010
            } else {
                0o001
            };
            meta.mode() & bit == 0
        })
    };
    path.ancestors().filter(closed).last().map(Path::to_owned)
}

pub(super) fn drop_to(command: &mut Command, user: Option<&Unprivileged>, dir: &Path) {
    command.current_dir(dir).env("LC_ALL", "C").env_remove("PGDATA");
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
}

/// Returns the user to run the server as in place of root; `None` if the process is not root's.
pub(super) fn unprivileged() -> Result<Option<Unprivileged>, LocalPostgresError> {
    if effective_uid()? != 0 {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").map_err(|error| failed("/etc/passwd", error))?;
    let find = |wanted: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| *name == wanted)?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Unprivileged { name: name.to_owned(), uid, gid })
        })
    };
    match find("postgres").or_else(|| find("nobody")) {
        Some(user) => Ok(Some(user)),
        None => Err(failed(
            "PostgreSQL refuses to run as root",
            "there is no user 'postgres' or 'nobody' to run it as; start this program as another user",
        )),
    }
}

/// Returns the effective user: the owner of new files.
fn effective_uid() -> Result<u32, LocalPostgresError> {
    let name = format!("backstitch-uid-{}-{:08x}", std::process::id(), rand::random::<u32>());
    let path = std::env::temp_dir().join(name);
    let explain = |error| failed(format!("making {}", path.display()), error);
    fs::create_dir(&path).map_err(explain)?;
    let uid = fs::metadata(&path).map(|meta| meta.uid());
    fs::remove_dir(&path).map_err(explain)?;
    uid.map_err(explain)
}
