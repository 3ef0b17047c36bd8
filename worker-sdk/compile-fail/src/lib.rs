//! Nothing. What counts stands in `tests/compile_fail/`: wirings that must not compile. They are a package of their
//! own because trybuild builds all that its package depends on once more.
