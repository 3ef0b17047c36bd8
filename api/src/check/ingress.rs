//! What requests about sources may be. Specs are checked where they are read.

use backstitch_saga::protocol::{PutSource, RotateSource};

use super::{Check, Findings, MAX_REASON};

/// How many bytes a secret of a source may have.
const MAX_SECRET: usize = 2_048;

impl Check for PutSource {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
        if let Some(secret) = &self.secret {
            findings.line("/secret", secret, MAX_SECRET);
        }
    }
}

impl Check for RotateSource {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
        findings.line("/secret", &self.secret, MAX_SECRET);
    }
}
