//! The behaviour of runs, told as stories in `stories/*.txt`. Each line that does something is followed by what it
//! makes happen, indented. `UPDATE_EXPECT=1 cargo test -p backstitch-saga --test stories` writes what happens now.
//!
//! Along the way every story is also held to the laws: folding the record gives the run that `decide` made, a snapshot
//! gives it back, and an accepted command sent again changes nothing and is answered the same.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod teller;

use std::fs;
use std::path::Path;

#[test]
fn stories_go_as_they_are_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut files: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no stories in {}", folder.display());
    let mut wrong = Vec::new();
    for file in files {
        let told = fs::read_to_string(&file).unwrap();
        let happened = teller::tell(&told);
        if happened != told {
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                fs::write(&file, &happened).unwrap();
            } else {
                wrong.push(format!("{}:\n{}", file.display(), first_difference(&told, &happened)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn first_difference(told: &str, happened: &str) -> String {
    let lines = told.lines().zip(happened.lines()).enumerate();
    match lines.into_iter().find(|(_, (told, happened))| told != happened) {
        Some((line, (told, happened))) => {
            format!("  line {}\n  told:     {told}\n  happened: {happened}", line + 1)
        }
        None => "  one is longer than the other".to_owned(),
    }
}
