//! Requests as they arrive at a door, and the results for their senders.

use backstitch_integration::ingress::Rejected;
use backstitch_saga::protocol::IntakeReceipt;
use backstitch_saga::{Time, Violation};
use uuid::Uuid;

/// A request as it came to a door.
#[derive(Debug)]
pub struct Arrival {
    /// Its headers, in their order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its bytes.
    pub body: Vec<u8>,
    /// Time of its arrival, by the clock of the engine.
    pub at: Time,
    /// The address that it came from.
    pub peer: Option<String>,
    /// Its id in the log of the server.
    pub request_id: Option<String>,
}

impl Arrival {
    /// Returns its headers as the rules read them.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect()
    }

    /// Returns a header that occurs once and is a text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// Result for a document.
#[derive(Debug)]
pub enum Taken {
    /// It is an event of the log.
    Accepted {
        /// The result for the sender.
        receipt: IntakeReceipt,
        /// The contract and version that it follows, if that is deprecated.
        deprecated: Option<(String, u32)>,
    },
    /// It was refused.
    Refused(RefusedIntake),
}

/// A document that was refused.
#[derive(Debug)]
pub struct RefusedIntake {
    /// Status of HTTP.
    pub status: u16,
    /// Code of the first check that failed.
    pub code: &'static str,
    /// Explanation of the mistake with what to do, for people.
    pub message: String,
    /// Everything that is wrong with it.
    pub violations: Vec<Violation>,
    /// Under which it is kept; nothing is kept of a sender that was not verified.
    pub intake_id: Option<Uuid>,
}

impl RefusedIntake {
    /// Makes a refusal from one of the rules.
    #[must_use]
    pub fn of(rejected: Rejected, intake_id: Option<Uuid>) -> RefusedIntake {
        let Rejected { status, code, message, violations, .. } = rejected;
        RefusedIntake { status, code, message, violations, intake_id }
    }
}
