//! Finds documents by the identifiers that they had.

use backstitch_integration::ingress::search_value;
use backstitch_saga::protocol::{HintView, IntakeVerdict, Page};
use backstitch_saga::{Timestamp, Violation};
use serde::Deserialize;
use uuid::Uuid;

use crate::cursor::Cursor;
use crate::page::page;
use crate::store::hints::{self as table, HintRow};
use crate::store::listed;
use crate::{Engine, Error};

/// The kind of the cursor of the list.
const CURSOR: char = 'k';

/// A hint as it is stored with its document.
#[derive(Debug, Default, Deserialize)]
struct Kept {
    kind: String,
    at: String,
    value_raw: String,
    value_norm: Option<String>,
    junk: bool,
}

/// Filter of hints.
#[derive(Clone, Debug)]
pub struct HintQuery {
    /// Kind.
    pub kind: Option<String>,
    /// The value in whatever spelling.
    pub value: Option<String>,
    /// The country of a national phone number.
    pub region: Option<String>,
}

impl Engine {
    /// Lists hints with a value, the newest first. The value is normalized before the search.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours, or kind or value are missing.
    pub async fn hints(
        &self,
        namespace: &str,
        query: &HintQuery,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<HintView>, Error> {
        let place = |text: &str| {
            let (intake, ord) = text.split_once(' ')?;
            Some((intake.parse::<Uuid>().ok()?, ord.parse::<i16>().ok()?))
        };
        let before = after.map(|text| Cursor::place(CURSOR, text, place)).transpose()?;
        let (Some(kind), Some(value)) = (&query.kind, &query.value) else {
            // A cursor is a place in the list of one value.
            after.map(|text| Cursor::place(CURSOR, text, |_| None::<()>)).transpose()?;
            let missing = if query.kind.is_none() { "?kind" } else { "?value" };
            let wrong = Violation::new(missing, "missing_field", "It must be given");
            return Err(Error::invalid("invalid_request", wrong));
        };
        let value = search_value(kind, value, query.region.as_deref());
        let limit = limit.clamp(1, 1_000) as usize;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let _turn = self.node().database.page_turn(namespace).await?;
        let mut connection = self.node().database.lister(namespace).await?;
        let wanted = (kind.as_str(), value.as_str());
        let found = table::find(&mut connection, namespace, wanted, before, beyond).await;
        let found = listed(found)?;
        let places: Vec<(Uuid, i16)> = found.iter().map(|row| (row.intake, row.ord)).collect();
        let views = found.into_iter().map(view).collect();
        let mut page = page(views, limit, |_: &HintView| String::new());
        if page.next.is_some() {
            let last = page.items.len().checked_sub(1).and_then(|last| places.get(last));
            page.next = last.map(|(intake, ord)| Cursor::of(CURSOR, &format!("{intake} {ord}")));
        }
        Ok(page)
    }
}

fn view(row: HintRow) -> HintView {
    let all: Vec<Kept> =
        row.hints.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let place = usize::try_from(row.ord - 1).unwrap_or(usize::MAX);
    let kept = all.into_iter().nth(place).unwrap_or_default();
    HintView {
        kind: kept.kind,
        value_raw: kept.value_raw,
        value_norm: kept.value_norm,
        junk: kept.junk,
        at: kept.at,
        intake_id: row.intake,
        verdict: match row.verdict.as_str() {
            "accepted" => IntakeVerdict::Accepted,
            _ => IntakeVerdict::Refused,
        },
        received_at: Timestamp(row.received_at),
        source: row.source,
        event_id: row.event,
        mapped_event_id: row.mapped_event,
        stream: row.stream,
    }
}
