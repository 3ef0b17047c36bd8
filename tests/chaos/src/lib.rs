//! The chaos harness: real processes are hurt along a seeded plan, and what they leave behind is checked from outside,
//! over REST and by a ledger of effects that knows nothing of the engine. It decides nothing and mends nothing.

pub mod attacks;
pub mod client;
pub mod drills;
pub mod evidence;
pub mod evidence_counts;
pub mod faults;
pub mod field;
pub mod generate;
pub mod intake;
pub mod invariants;
pub mod ledger;
pub mod lines;
pub mod load;
pub mod office;
pub mod plan;
pub mod points;
pub mod program;
pub mod proxy;
pub mod report;
pub mod schedules;
pub mod senders;
pub mod server;
pub mod shapes;
pub mod stage;
pub mod tiers;
pub mod timeline;
pub mod trial;
pub mod worker;
