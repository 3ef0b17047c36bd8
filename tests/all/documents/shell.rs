//! Runs blocks of a page as a reader would paste them into one shell, one after the other.

use std::path::PathBuf;
use std::process::Stdio;

use backstitch_tests::node::NS;
use backstitch_tests::server::Server;
use tokio::process::Command;

use super::blocks::Block;

/// Variables that a block leaves to those after it.
const KEPT: &str = "S|J|KEY|BACKSTITCH_[A-Z_]*";

/// A shell in a folder of its own, in which `backstitch` is the program under test.
pub(super) struct Shell {
    dir: PathBuf,
    address: String,
    database: String,
}

impl Shell {
    pub(super) fn new(server: &Server, name: &str) -> Shell {
        let name = format!("backstitch-page-{}-{}", std::process::id(), name.replace('/', "-"));
        let dir = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("bin")).unwrap();
        let program = env!("CARGO_BIN_EXE_backstitch-under-test");
        std::os::unix::fs::symlink(program, dir.join("bin/backstitch")).unwrap();
        let address = server.url().trim_start_matches("http://").to_owned();
        Shell { dir, address, database: server.database().to_owned() }
    }

    /// Writes a file that an example reads.
    pub(super) fn file(&self, name: &str, text: &str) {
        std::fs::write(self.dir.join(name), text).unwrap();
    }

    /// Runs `text` with `words` put for what stands for something in it. Returns the exit code, and what it printed.
    pub(super) async fn run(&self, text: &str, words: &[(String, String)]) -> (i32, String) {
        let mut text = text
            .replace("127.0.0.1:7420", &self.address)
            .replace("localhost:7420", &self.address)
            .replace("postgres://backstitch:…@db/backstitch", &self.database);
        for (word, value) in words {
            text = put(&text, word, value);
        }
        // A failed request is a failed example; `curl -s` alone would hide it.
        let script = format!(
            "set -eo pipefail\nif [ -f .kept ]; then . ./.kept; fi\n\
             curl() {{ command curl --fail-with-body -H 'Backstitch-Namespace: {NS}' -H 'Backstitch-Actor: ann' \"$@\"; }}\n\
             {text}\n{{ declare -p | grep -E '^declare -[-x]+ ({KEPT})=' > .kept; }} || true\n"
        );
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        for (name, _) in std::env::vars() {
            if name.starts_with("BACKSTITCH_") || name.starts_with("XDG_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(["-c", &script])
            .current_dir(&self.dir)
            .env("PATH", format!("{}:{path}", self.dir.join("bin").display()))
            .env("HOME", &self.dir)
            .env("USER", "ann")
            .env("BACKSTITCH_URL", format!("http://{}", self.address))
            .env("BACKSTITCH_NAMESPACE", NS)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("bash");
        let said = child.wait_with_output().await.unwrap();
        let out = String::from_utf8_lossy(&said.stdout).into_owned();
        let err = String::from_utf8_lossy(&said.stderr);
        (
            said.status.code().unwrap_or(-1),
            format!("{text}\n--- prints\n{out}\n--- complains\n{err}"),
        )
    }

    /// Runs a block, which must succeed.
    pub(super) async fn block(&self, block: &Block, words: &[(String, String)]) {
        let (code, told) = self.run(&block.text, words).await;
        assert_eq!(code, 0, "the example at {} fails: {told}", block.place());
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// `text` with `value` for each `word` that stands alone.
pub(super) fn put(text: &str, word: &str, value: &str) -> String {
    let part = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let (mut done, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let alone = !before.ends_with(part) && !after.starts_with(part);
        done += before;
        done += if alone { value } else { word };
        rest = after;
    }
    done + rest
}
