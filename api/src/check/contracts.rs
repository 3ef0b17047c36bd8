//! Checks of requests about contracts. Schemas and transforms are checked where they are read.

use backstitch_saga::protocol::{
    ActivateTransform, PinReader, PutTransform, RegisterContract, SetContractMode,
    SetContractState, TestTransform, WhatIfTransform,
};

use super::{Check, Findings, MAX_REASON};

impl Check for RegisterContract {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for SetContractMode {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for SetContractState {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for PinReader {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for PutTransform {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for ActivateTransform {
    fn check(&self, findings: &mut Findings) {
        findings.prose("/reason", &self.reason, MAX_REASON);
    }
}

impl Check for WhatIfTransform {
    fn check(&self, findings: &mut Findings) {
        if self.transform.is_some() && self.revision.is_some() {
            let message = "Either a transform or a revision is compared, not both";
            findings.add("/revision", "contradiction", message);
        }
    }
}

impl Check for TestTransform {
    fn check(&self, findings: &mut Findings) {
        if self.transform.is_some() && self.revision.is_some() {
            let message = "Either a transform or a revision is tested, not both";
            findings.add("/revision", "contradiction", message);
        }
    }
}
