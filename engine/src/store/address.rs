//! The parameters of a database URL. One that is not known is refused: a misspelt `sslmode` must not connect without
//! it.

use crate::Error;

/// The parameters that the driver reads.
const KNOWN: [&str; 17] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
];

/// Refuses unknown and duplicate parameters. Their values may be secret and are not printed.
pub(super) fn check(url: &str) -> Result<(), Error> {
    let url = url.split_once('#').map_or(url, |(before, _)| before);
    let Some((_, query)) = url.split_once('?') else { return Ok(()) };
    let mut seen: Vec<String> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = decoded(pair.split_once('=').map_or(pair, |(name, _)| name));
        let option = name.strip_prefix("options[").and_then(|rest| rest.strip_suffix(']'));
        let known = KNOWN.contains(&name.as_str()) || option.is_some_and(|name| !name.is_empty());
        if !known {
            return Err(refused(&name, "is not known; see \"Connecting\" in docs/operations.md"));
        }
        if seen.contains(&name) {
            return Err(refused(&name, "stands there twice"));
        }
        seen.push(name);
    }
    Ok(())
}

fn refused(name: &str, why: &str) -> Error {
    let name = name.escape_debug();
    Error::Store(format!("the database URL makes no sense: its parameter '{name}' {why}"))
}

/// Returns a name with its percent escapes resolved.
fn decoded(name: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(name.len()), name.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let escape = after.get(..2).filter(|_| *first == b'%');
        let digits = escape.and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_are_not_known_are_refused_without_their_values() {
        for good in [
            "postgres://db/backstitch",
            "postgres://u:p@db/b?sslmode=verify-full&sslrootcert=/ca.pem",
            "postgres://u@localhost/b?host=/run/postgresql&options=-c%20search_path%3Dshop",
            "postgres://u@localhost/b?options[work_mem]=8MB&options%5Bgeqo%5D=off#end",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for (bad, name) in [
            ("postgres://db/b?sslmod=hunter2", "sslmod"),
            ("postgres://db/b?passwrd=hunter2", "passwrd"),
            ("postgres://db/b?SSLMODE=hunter2", "SSLMODE"),
            ("postgres://db/b?sslmode=require&sslmode=hunter2", "sslmode"),
            ("postgres://db/b?options[work_mem=hunter2", "options[work_mem"),
            ("postgres://db/b?hunter", "hunter"),
            ("postgres://db/b?=hunter2", ""),
            ("postgres://db/b?target_session_attrs=hunter2", "target_session_attrs"),
        ] {
            let error = check(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("'{name}'")), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
