//! The fenced blocks of a page, each with the mark that stands before it.

use std::path::{Path, PathBuf};

/// The comment right before a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing: it is run as its language is run.
    None,
    /// `<!-- not run: REASON -->`.
    NotRun(String),
    /// `<!-- tested by: PATH -->`, a test that names the page.
    TestedBy(String),
}

/// A fenced block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// The page, as `docs/api.md`.
    pub(super) page: String,
    /// The line of its fence.
    pub(super) line: usize,
    pub(super) language: String,
    pub(super) mark: Mark,
    pub(super) text: String,
}

impl Block {
    /// Returns its place.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }
}

/// Returns the root of the workspace.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ stands in the workspace")
        .to_owned()
}

/// README and the pages of `docs/`, without what lies deeper.
pub(super) fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    for entry in std::fs::read_dir(root().join("docs")).expect("docs/") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        if name.ends_with(".md") {
            pages.push(format!("docs/{name}"));
        }
    }
    pages.sort();
    pages
}

/// Returns all blocks of a page, in order.
pub(super) fn blocks(page: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(root().join(page)).expect("a page");
    let mut blocks = Vec::new();
    let (mut before, mut open): (String, Option<Block>) = (String::new(), None);
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (Some(block), None) => {
                block.text += line;
                block.text.push('\n');
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(info)) => {
                open = Some(Block {
                    page: page.to_owned(),
                    line: number + 1,
                    language: info.split([',', ' ']).next().unwrap_or_default().to_owned(),
                    mark: mark(&before, page, number + 1),
                    text: String::new(),
                });
            }
            (None, None) if line.trim().is_empty() => {}
            (None, None) => line.trim().clone_into(&mut before),
        }
        if open.is_some() {
            before.clear();
        }
    }
    assert!(open.is_none(), "{page}: a block is not closed");
    blocks
}

fn mark(line: &str, page: &str, number: usize) -> Mark {
    let Some(text) = line.strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->")) else {
        return Mark::None;
    };
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let rest = rest.trim().to_owned();
    match kind.trim() {
        "not run" if rest.len() > 10 => Mark::NotRun(rest),
        "tested by" => Mark::TestedBy(rest),
        _ => panic!(
            "{page}:{number}: <!-- {} --> is no mark; there are `not run: REASON` and `tested by: PATH`",
            text.trim()
        ),
    }
}
