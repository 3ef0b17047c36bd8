//! Checks of requests about sources. Specs are checked where they are read.

use backstitch_saga::protocol::{
    EraseData, NewReprocess, PutLink, PutSource, ResolveLinkConflict, RotateSource,
};

use super::events::MAX_EVENT_NAME;
use super::{Check, Findings, MAX_REASON};

/// Longest secret of a source, in bytes.
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

impl Check for PutLink {
    fn check(&self, findings: &mut Findings) {
        findings.line("/stream", &self.stream, MAX_EVENT_NAME);
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for ResolveLinkConflict {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for NewReprocess {
    fn check(&self, findings: &mut Findings) {
        for (place, text) in
            [("/source", &self.source), ("/contract", &self.contract), ("/code", &self.code)]
        {
            if let Some(text) = text {
                findings.line(place, text, MAX_EVENT_NAME);
            }
        }
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for EraseData {
    fn check(&self, findings: &mut Findings) {
        if let Some(stream) = &self.stream {
            findings.line("/stream", stream, MAX_EVENT_NAME);
        }
        if let Some(hint) = &self.hint {
            findings.line("/hint/kind", &hint.kind, MAX_EVENT_NAME);
            findings.line("/hint/value", &hint.value, MAX_REASON);
            if let Some(region) = &hint.region {
                findings.line("/hint/region", region, MAX_EVENT_NAME);
            }
        }
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}
