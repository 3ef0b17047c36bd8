//! The release: the licence, the dependencies by the lists of `deny.toml`, and the check of a release binary.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the texts in quotes of the list `name` in a section of `deny.toml`.
fn listed(section: &str, name: &str) -> BTreeSet<String> {
    let text = read("deny.toml");
    let (_, section) = text.split_once(&format!("[{section}]\n")).expect("the section");
    let (_, list) = section.split_once(&format!("{name} = [")).expect("the list");
    let mut quoted = BTreeSet::new();
    for line in list.lines().map(|line| line.split('#').next().unwrap_or_default()) {
        quoted.extend(line.split('"').skip(1).step_by(2).map(str::to_owned));
        if line.trim_end().ends_with(']') {
            break;
        }
    }
    assert!(!quoted.is_empty(), "{section}: {name} is empty");
    quoted
}

/// Returns whether an SPDX expression is satisfied by the licences of `allowed`.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any(&mut words, allowed);
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = every(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= every(words, allowed);
    }
    met
}

fn every(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let met = any(words, allowed);
        return words.next() == Some(")") && met;
    }
    let mut licence = words.next().unwrap_or_default().to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        licence = format!("{licence} WITH {}", words.next().unwrap_or_default());
    }
    allowed.contains(&licence)
}

#[test]
fn an_expression_of_licences_is_met_by_those_allowed() {
    let allowed = ["MIT", "Zlib", "A WITH x"].map(str::to_owned).into();
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR MIT) AND Zlib", true),
        ("GPL-3.0 OR MIT AND Zlib", true),
        ("A WITH x", true),
        ("A WITH y", false),
        ("MIT Zlib", false),
        ("", false),
    ] {
        assert_eq!(is_met(expression, &allowed), met, "{expression}");
    }
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let allowed = listed("licenses", "allow");
    // Those of other platforms need not be here.
    let version = Command::new(env!("CARGO")).arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
    let arguments =
        ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &host];
    let told = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let metadata: Value = serde_json::from_slice(&told.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "{}", packages.len());
    let ours: BTreeSet<&str> = metadata["workspace_members"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for package in packages {
        let licence = package["license"].as_str().unwrap_or_default();
        if ours.contains(package["id"].as_str().unwrap()) {
            assert_eq!(licence, "Apache-2.0", "{}", package["name"]);
        }
        assert!(
            is_met(licence, &allowed),
            "{} {} has the licence '{licence}', which deny.toml does not allow",
            package["name"],
            package["version"]
        );
    }
    let text = read("LICENSE");
    assert!(text.contains("Apache License") && text.contains("END OF TERMS AND CONDITIONS"));
}

#[test]
fn dependencies_come_from_the_registry_and_only_known_ones_in_two_versions() {
    let registries = listed("sources", "allow-registry");
    let lock = read("Cargo.lock");
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
            line.map(|value| value.trim_matches('"'))
        };
        let name = field("name").expect("a name");
        *versions.entry(name).or_default() += 1;
        let Some(source) = field("source") else {
            assert!(name.starts_with("backstitch-"), "{name} has no source");
            continue;
        };
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        assert!(registries.contains(registry), "{name} comes from {source}");
        assert!(field("checksum").is_some(), "{name} has no checksum");
    }
    let several = versions.into_iter().filter(|(_, count)| *count > 1);
    let several: BTreeSet<String> = several.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(several, listed("bans", "skip"), "the list `skip` of deny.toml is not what is so");
}

#[test]
fn a_binary_that_tells_of_the_machine_it_was_built_on_is_refused() {
    let dir = std::env::temp_dir().join(format!("backstitch-binary-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let home = dir.join("home");
    let check = |bytes: &[u8]| {
        let path = dir.join("binary");
        std::fs::write(&path, bytes).unwrap();
        let said =
            Command::new(root().join(".ci/check-binary")).arg(&path).env("HOME", &home).output();
        let said = said.unwrap();
        (said.status.success(), String::from_utf8_lossy(&said.stderr).into_owned())
    };
    let clean = check(b"\x7fELF\0 saga/src/lib.rs /backstitch/api/src/main.rs\0");
    assert!(clean.0, "{clean:?}");
    let [ours, homes] = [root(), home.join(".cargo")].map(|path| path.display().to_string());
    for path in [&*ours, &*homes, "/somewhere/.cargo/registry/src/index/serde/lib.rs"] {
        let refused = check(format!("\x7fELF\0\u{1}{path}/x.rs\0").as_bytes());
        assert!(!refused.0 && refused.1.contains("path"), "{path}: {refused:?}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}
