//! What requests about contracts may be. Schemas and transforms are checked where they are read.

use backstitch_saga::protocol::{PinReader, RegisterContract, SetContractMode, SetContractState};

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
