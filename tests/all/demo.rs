//! The demo as a newcomer starts it: a whole program from nothing, with its own PostgreSQL, judged by its own words.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

fn demo(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_backstitch-under-test"))
        .arg("demo")
        .args(args)
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn scenario<'a>(report: &'a Value, order: &str) -> &'a Value {
    let scenarios = report["scenarios"].as_array().unwrap();
    scenarios.iter().find(|scenario| scenario["order"] == order).unwrap()
}

/// Returns an empty directory for temporary files of everybody, as `/tmp` is one.
fn scratch() -> PathBuf {
    let dir = PathBuf::from(format!("/tmp/backstitch-demo-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o1777)).unwrap();
    dir
}

#[test]
fn the_demo_leaves_no_file_behind() {
    let dir = scratch();
    let output = Command::new(env!("CARGO_BIN_EXE_backstitch-under-test"))
        .args(["demo", "--json", "--count", "3"])
        .env("TMPDIR", &dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    std::fs::remove_dir(&dir).unwrap();
}

#[test]
fn the_demo_is_good_and_shows_what_it_promises() {
    let output = demo(&["--json"]);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["good"], true);
    assert_eq!(report["orders"], 40);
    assert_eq!(report["outcomes"]["succeeded"], 37);
    for (order, outcome, tells, ledgers) in [
        ("BS-1007", "compensated", "shipment refused", "nothing"),
        ("BS-1013", "compensated", "THIMBLE-GOLD", "nothing"),
        ("BS-1019", "succeeded", "it had, and it stands", "1 parcel"),
        ("BS-1024", "succeeded", "it had not", "1 parcel"),
        ("BS-1030", "succeeded", "attempt 4 failed", "1 parcel"),
        ("BS-1036", "partially_completed", "the customer changed their mind", "1 receipt"),
    ] {
        let scenario = scenario(&report, order);
        assert_eq!(scenario["outcome"], outcome, "{scenario:#}");
        assert!(scenario["story"].to_string().contains(tells), "{tells:?} not in {scenario:#}");
        assert!(scenario["ledgers"].as_str().unwrap().contains(ledgers), "{scenario:#}");
    }
}

#[test]
fn orders_from_a_file_go_through_a_storm() {
    let orders = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shop/orders.ndjson");
    let output = demo(&["--json", "--orders", orders, "--faults", "5"]);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["good"], true);
    assert!(report["outcomes"]["compensated"].as_u64().unwrap() > 0, "not much of a storm");
}

#[test]
fn a_file_that_holds_no_orders_is_refused_before_anything_starts() {
    let output = demo(&["--orders", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("Cargo.toml, line 1:"), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn the_demo_of_integration_adds_up() {
    let output = demo(&["integration", "--json"]);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["good"], &report["wrong"]), (&true.into(), &serde_json::json!([])));
    // Three orders, four contacts, and the two buyers of a file that came twice.
    assert_eq!((&report["documents"], report["lines"].as_array().unwrap().len()), (&9.into(), 11));
    let again: Vec<&Value> = report["lines"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["answer"] == "200 again")
        .collect();
    assert_eq!(again.len(), 2);
    // Five customers and three orders came into being, and had a run each.
    assert_eq!(report["runs"], 8);
}
