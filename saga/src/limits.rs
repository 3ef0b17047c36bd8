//! How large the documents inside a run may become.

/// How large the documents inside a run may become, in bytes. They bind decisions only: a journal that was written under
/// other limits is folded all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest document that an expression may put together for a step, an item or a condition: as large as a
    /// document from outside.
    pub built: usize,
    /// The largest document that may be passed on whole: the gathered outputs of a fan-out as the input of a step, and
    /// the output of a run.
    pub whole: usize,
    /// How much one record may hold, its events included, before the steps and items whose turn has come wait for the
    /// next one: as much as is decided and written in one piece, while others wait.
    pub record: usize,
    /// The largest list that a fan-out may be opened over.
    pub list: usize,
    /// How much the steps and items of a run may put together as their inputs in all.
    pub run: u64,
    /// How much the outputs of the steps and items of a run may have in all.
    pub outputs: u64,
    /// How much text one expression may go through, so that it ends soon; text that it compares counts sixteenfold.
    pub looked_at: usize,
    /// How much text the expressions of one record may go through together before the steps and items whose turn has come
    /// wait for the next one.
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
