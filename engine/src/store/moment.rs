//! Instants as PostgreSQL has them: `timestamptz`, microseconds since the year 2000.

use backstitch_saga::{Span, Time};
use sqlx::decode::Decode;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef, Postgres};
use sqlx::types::Type;

/// An instant that is so far ahead of now, and should not be ahead at all, was written by a clock that was wrong.
pub(crate) const AHEAD: Span = Span::secs(120);

/// Microseconds from 1970 to 2000.
const EPOCH: i64 = 946_684_800_000_000;

/// The first instant that PostgreSQL has: the year 4714 before our era.
const FIRST: i64 = -211_813_488_000_000_000;

/// A [`Time`] on its way to or from a `timestamptz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) Time);

/// Returns the latest end of a hold that was taken by a right clock, if one that is taken now ends at `until`. A row
/// with a later end was written by a clock that was ahead, or by hand, and counts as free.
pub(crate) fn beyond(until: Time) -> Time {
    until.after(AHEAD)
}

impl Type<Postgres> for Moment {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl PgHasArrayType for Moment {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1185))
    }
}

impl Encode<'_, Postgres> for Moment {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let micros = self.0.0.saturating_mul(1_000).saturating_sub(EPOCH);
        // Before the first and after the last instant there is infinity, and what is none.
        let micros = micros.clamp(FIRST, i64::MAX / 2);
        Encode::<Postgres>::encode(micros, buffer)
    }

    fn size_hint(&self) -> usize {
        8
    }
}

impl<'r> Decode<'r, Postgres> for Moment {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        Ok(Moment(Time(micros.saturating_add(EPOCH).div_euclid(1_000))))
    }
}
