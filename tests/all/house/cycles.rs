//! Modules of a crate that use each other in a cycle. A module and those below it are one for this, so that a parent
//! may name its own parts.

use std::collections::{BTreeMap, BTreeSet};

use super::{CRATES, sources, words};

/// Returns the modules of a crate by path, with the paths of those that each names; a module and those below it are one
/// for this.
fn uses(dir: &str) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let all = sources(&[dir]);
    let module = |path: &str| -> Vec<String> {
        let path = path[dir.len() + 1..].trim_end_matches(".rs");
        let mut parts: Vec<String> = path.split('/').map(str::to_owned).collect();
        if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
            parts.pop();
        }
        parts
    };
    let mut code: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for source in &all {
        let own = source.code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        code.insert(module(&source.path), own.to_owned());
    }
    code.retain(|path, _| path.last().is_none_or(|last| last != "tests"));
    let mut named: BTreeMap<Vec<String>, Vec<Vec<String>>> = BTreeMap::new();
    let mut shown: BTreeMap<(Vec<String>, String), Vec<String>> = BTreeMap::new();
    for (of, text) in &code {
        for (is_use, path) in paths(text) {
            let Some(path) = absolute(of, &path, &code) else { continue };
            if let (true, Some(last)) = (is_use, path.last()) {
                shown.insert((of.clone(), last.clone()), path.clone());
            }
            named.entry(of.clone()).or_default().push(path);
        }
    }
    let lead = |path: &[String]| -> Vec<String> {
        let mut path = path.to_vec();
        for _ in 0..8 {
            let known = (0..=path.len())
                .rev()
                .find(|&length| code.contains_key(&path[..length]))
                .unwrap_or(0);
            let (module, rest) = path.split_at(known);
            let next = rest.first().and_then(|first| shown.get(&(module.to_vec(), first.clone())));
            match next {
                Some(next) if *next != path[..known + 1] => path = [&next[..], &rest[1..]].concat(),
                _ => return module.to_vec(),
            }
        }
        path
    };
    let mut uses = BTreeMap::new();
    for (of, paths) in &named {
        let others = paths.iter().map(|path| lead(path));
        let others = others.filter(|other| !other.is_empty() && !other.starts_with(of)).collect();
        if !of.is_empty() {
            uses.insert(of.clone(), others);
        }
    }
    uses
}

/// Returns the path from the root of the crate; nothing for a path into another crate.
fn absolute(
    of: &[String],
    path: &[String],
    code: &BTreeMap<Vec<String>, String>,
) -> Option<Vec<String>> {
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([of, &path[1..]].concat()),
        "super" => {
            let up = path.iter().take_while(|part| *part == "super").count();
            let base = of.len().checked_sub(up)?;
            Some([&of[..base], &path[up..]].concat())
        }
        first => {
            let below = [of, &[first.to_owned()]].concat();
            code.contains_key(&below).then(|| [of, path].concat())
        }
    }
}

/// Returns the paths that a code names; `true` for those of `use`.
fn paths(code: &str) -> Vec<(bool, Vec<String>)> {
    let mut found = Vec::new();
    let mut rest = code;
    let mut other = String::new();
    while let Some(at) = next_use(rest) {
        other.push_str(&rest[..at]);
        let end = rest[at..].find(';').map_or(rest.len(), |end| at + end);
        expand(&rest[at + 4..end], &[], &mut found);
        rest = &rest[end..];
    }
    other.push_str(rest);
    let bytes = other.as_bytes();
    for (at, word) in words(&other) {
        let is_inner = at >= 2 && &bytes[at - 2..at] == b"::";
        if is_inner || !other[at + word.len()..].starts_with("::") {
            continue;
        }
        let length = other[at..]
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(other.len() - at);
        let path = other[at..at + length]
            .split("::")
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        found.push((false, path));
    }
    found
}

/// Returns the position of the next `use` that begins a statement.
fn next_use(code: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = code[from..].find("use ").map(|at| from + at) {
        let before = code[..at].trim_end();
        let starts = before.is_empty()
            || before.ends_with([';', '}', '{', ']'])
            || before.ends_with("pub")
            || before.ends_with(')');
        let path = code[at + 4..].trim_start().starts_with(|c: char| c.is_ascii_lowercase());
        if starts && path {
            return Some(at);
        }
        from = at + 4;
    }
    None
}

/// The paths of a tree of a `use`.
fn expand(tree: &str, before: &[String], found: &mut Vec<(bool, Vec<String>)>) {
    let tree = tree.trim();
    if let Some((head, inner)) = tree.split_once('{') {
        let head =
            head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned);
        let before: Vec<String> = before.iter().cloned().chain(head).collect();
        let inner = inner.trim_end().trim_end_matches('}');
        let (mut depth, mut from) = (0, 0);
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand_branch(&inner[from..at], &before, found);
                    from = at + 1;
                }
                _ => {}
            }
        }
        expand_branch(&inner[from..], &before, found);
    } else {
        let path = tree.split(" as ").next().unwrap_or_default();
        let path = path
            .split("::")
            .map(str::trim)
            .filter(|part| !part.is_empty() && *part != "*")
            .map(str::to_owned);
        found.push((true, before.iter().cloned().chain(path).collect()));
    }
}

fn expand_branch(branch: &str, before: &[String], found: &mut Vec<(bool, Vec<String>)>) {
    // A branch with branches lost its last brace only if it was the last.
    let missing = branch.matches('{').count().saturating_sub(branch.matches('}').count());
    if !branch.trim().is_empty() {
        expand(&(branch.to_owned() + &"}".repeat(missing)), before, found);
    }
}

/// Returns the modules that lead to themselves.
fn in_cycles(uses: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> Vec<String> {
    let reached = |from: &Vec<String>| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&Vec<String>> = uses[from].iter().collect();
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(uses.get(next).into_iter().flatten());
            }
        }
        seen.contains(from)
    };
    uses.keys().filter(|module| reached(module)).map(|module| module.join("/")).collect()
}

#[test]
fn modules_of_a_crate_form_no_cycles() {
    let mut wrong = String::new();
    for (name, dir, most, _) in CRATES {
        let found = in_cycles(&uses(dir));
        if found.len() > most {
            wrong += &format!("{name}: {} files, {most} were: {found:?}\n", found.len());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
