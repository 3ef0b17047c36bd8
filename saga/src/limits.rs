//! Bounds of the documents inside a run.

/// Bounds of the documents inside a run, in bytes. They bind decisions only: a journal that was written under other
/// limits is folded all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest document that an expression may put together for a step, an item or a condition: as large as a
    /// document from outside.
    pub built: usize,
    /// The largest document that may be passed on whole: the gathered outputs of a fan-out as the input of a step, and
    /// the output of a run.
    pub whole: usize,
    /// Size of one record, its events included, from which the other steps and items that could begin wait for the
    /// next record. It bounds the work that is decided and written in one piece while others wait.
    pub record: usize,
    /// The largest list that a fan-out may be opened over.
    pub list: usize,
    /// Total size of the inputs of all steps and items of a run.
    pub run: u64,
    /// Total size of the outputs of all steps and items of a run.
    pub outputs: u64,
    /// Amount of text that one expression may process; text that it compares counts sixteenfold.
    pub looked_at: usize,
    /// Amount of text that the expressions of one record may process together before the other steps and items that
    /// could begin wait for the next record.
    pub record_looked_at: usize,
}

impl Default for Limits {
    /// Returns 256 KiB, 4 MiB, 1 MiB, 16 MiB, 256 MiB twice, 128 MiB and 16 MiB.
    fn default() -> Limits {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        Limits {
            built: 256 * KIB,
            whole: 4 * MIB,
            record: MIB,
            list: 16 * MIB,
            run: 256 * MIB as u64,
            outputs: 256 * MIB as u64,
            looked_at: 128 * MIB,
            record_looked_at: 16 * MIB,
        }
    }
}
