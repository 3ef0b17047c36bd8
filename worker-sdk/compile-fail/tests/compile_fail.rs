//! Wrong wiring does not compile, and the compiler says why in words that help. The words are the compiler's own, so
//! they are compared only with the compiler that they were taken from; `TRYBUILD=overwrite` takes them anew.

use std::process::Command;

/// The compiler whose words stand in `compile_fail/*.stderr`.
const COMPILER: &str = "rustc 1.95.";

#[test]
fn wrong_wiring_does_not_compile() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().unwrap();
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if version.starts_with(COMPILER) {
        trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
    } else {
        println!("not compared: the words are those of {COMPILER}, this is {version}");
    }
}
