//! The event log: events and their bodies, heads of streams, keys of repeats, announced batches and their positions,
//! and what runs emitted.

mod check;
mod cursors;
mod emitted;
mod load;
mod logged;
mod mend;
mod number;
mod read;
mod write;

use uuid::Uuid;

pub(crate) use check::{Check, Misfit, misfits};
pub(crate) use cursors::{CursorRow, cursor, cursors, delete_cursor, move_cursor};
pub(crate) use emitted::{
    EmittedRow, due as emitted_due, first as first_emitted, last as last_emitted, taken,
};
pub(crate) use load::{KnownEvent, Loaded, Wanted, load};
pub(crate) use mend::{
    Placement, Positions, WrongHead, place, positions, set_head_right, still_unnumbered,
    unnumbered, wrong_heads,
};
pub(crate) use number::{backlog, due, lock_heads, number};
pub(crate) use read::{
    EventRow, Heads, LogFilter, at, event, heads, heads_of, newest_of_stream, page,
};
pub(crate) use write::{Append, NewEvent, NewHead, NewKey, Written, is_written};

/// Returns batch and place of an event, as its id says.
pub(crate) fn place_of(id: Uuid) -> (Uuid, i16) {
    let (batch, ord) = (id.as_u128() & !0xffff, id.as_u128() & 0xffff);
    // A place that no batch has finds nothing.
    (Uuid::from_u128(batch), i16::try_from(ord).unwrap_or(-1))
}

/// Returns the id of the event at the place `ord` of a batch.
pub(crate) fn event_id(batch: Uuid, ord: i16) -> Uuid {
    Uuid::from_u128(batch.as_u128() | u128::from(ord.unsigned_abs()))
}

/// Returns the batch with the bits of `seed`, without those that name places.
pub(crate) fn batch_of(seed: Uuid) -> Uuid {
    place_of(seed).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_found_by_its_id_alone() {
        let batch = batch_of(Uuid::from_u128(0x019b_0000_0000_7abc_8def_0123_4567_89ab));
        for ord in [0, 1, i16::MAX] {
            assert_eq!(place_of(event_id(batch, ord)), (batch, ord));
        }
        assert_eq!(event_id(batch, 1).get_version_num(), 7);
        assert_eq!(place_of(Uuid::from_u128(u128::MAX)).1, -1);
    }
}
