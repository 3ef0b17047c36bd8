//! Feeds every target with its corpus and with mutations of it.
//!
//! A short run is part of the tests. A long one: `BACKSTITCH_FUZZ_CASES=1000000 cargo test --release -p
//! backstitch-fuzz`, each with another `BACKSTITCH_FUZZ_SEED`. A failure leaves its input in a file and prints the
//! command that repeats it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use backstitch_fuzz::mutate::Chance;
use backstitch_fuzz::{TARGETS, Target, target};

/// Number of mutations of each target in a short run.
const CASES: usize = 2_000;

fn number(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not '{text}'")),
        Err(_) => default,
    }
}

/// Returns the kept inputs of a target: good ones, and those that once broke something.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no input in {}", folder.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Runs one input; a failure is told with the command that repeats it.
fn run(target: Target, input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok() {
        return;
    }
    let file = std::env::temp_dir().join(format!("backstitch-fuzz-{}-failed", target.name));
    fs::write(&file, input).unwrap();
    panic!(
        "{what}: {}\nrepeat it with\n  BACKSTITCH_FUZZ_FILE={} cargo test -p backstitch-fuzz --test fuzz {} -- --exact",
        String::from_utf8_lossy(&input[..input.len().min(500)]).escape_debug(),
        file.display(),
        target.name,
    );
}

fn fuzz(name: &str) {
    let target = target(name).unwrap();
    if let Some(file) = std::env::var_os("BACKSTITCH_FUZZ_FILE") {
        return (target.run)(&fs::read(file).unwrap());
    }
    let corpus = corpus(name);
    corpus.iter().for_each(|input| run(target, input, "an input of the corpus"));
    let (seed, cases) = (number("BACKSTITCH_FUZZ_SEED", 1), number("BACKSTITCH_FUZZ_CASES", CASES));
    let mut chance = Chance::new(seed as u64);
    for case in 0..cases {
        let input = chance.mutated(&corpus);
        run(target, &input, &format!("case {case} of seed {seed}"));
    }
}

/// Texts that grow by repetition: nesting, lists, escapes.
const GROWING: [&str; 22] = [
    "[",
    "{\"a\":",
    "[[],",
    "\"",
    "\\",
    "\\u0061",
    ",",
    "0",
    "1,",
    "*/1,",
    "1-2,",
    "/a",
    "~1",
    "%41",
    "&a=1",
    "{\"not\":",
    "{\"and\":[",
    "{\"object\":{\"a\":",
    "{\"default\":[",
    "é",
    " ",
    "[a]\na = \"\"\n",
];

/// Returns the time that an input takes.
fn took(target: Target, input: &[u8]) -> Duration {
    let began = Instant::now();
    run(target, input, "a long input");
    began.elapsed()
}

/// Four times the text may take four times as long, and a good deal more for chance: three times that.
const FACTOR: u32 = 12;
/// Time that is fast enough for any growth.
const FAST: Duration = Duration::from_millis(200);

#[test]
fn time_grows_with_the_text_and_no_faster() {
    for target in TARGETS {
        let first = corpus(target.name).swap_remove(0);
        for (piece, middle) in
            GROWING.iter().flat_map(|piece| [(piece, 0), (piece, first.len() / 2)])
        {
            let grown = |size: usize| {
                let grown = piece.repeat(size / piece.len());
                [&first[..middle], grown.as_bytes(), &first[middle..]].concat()
            };
            let long = took(target, &grown(20_000));
            if long <= FAST {
                continue;
            }
            let at_best = |size: usize| (0..3).map(|_| took(target, &grown(size))).min().unwrap();
            let (short, long) = (at_best(5_000), at_best(20_000));
            assert!(
                long <= FAST.max(short * FACTOR),
                "{} with {piece:?}: {short:?}, then {long:?}",
                target.name
            );
        }
    }
}

#[test]
fn every_target_has_a_test() {
    let own = include_str!("fuzz.rs");
    for target in TARGETS {
        assert!(own.contains(&format!("fn {}() {{", target.name)), "{} is not run", target.name);
    }
}

#[test]
fn definition() {
    fuzz("definition");
}

#[test]
fn rehearsal() {
    fuzz("rehearsal");
}

#[test]
fn expression() {
    fuzz("expression");
}

#[test]
fn payload() {
    fuzz("payload");
}

#[test]
fn names() {
    fuzz("names");
}

#[test]
fn cursor() {
    fuzz("cursor");
}

#[test]
fn cron() {
    fuzz("cron");
}

#[test]
fn sequence() {
    fuzz("sequence");
}

#[test]
fn schema() {
    fuzz("schema");
}

#[test]
fn idempotency_key() {
    fuzz("idempotency_key");
}

#[test]
fn query() {
    fuzz("query");
}

#[test]
fn body() {
    fuzz("body");
}

#[test]
fn profile() {
    fuzz("profile");
}
