//! One binary for all tests that need a database or two crates.
