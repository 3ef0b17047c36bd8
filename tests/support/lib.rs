//! Support for the tests of this workspace.
