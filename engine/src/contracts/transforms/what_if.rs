//! What-if: a transform compared with the active one, on documents that sources have sent. Nothing is
//! written.

use backstitch_integration::document::Value;
use backstitch_integration::ingress::{Form, body_of};
use backstitch_integration::transforms::{Limits, Transform, WhatIf};
use backstitch_saga::protocol::{TransformWhatIf, WhatIfTransform};
use backstitch_saga::{Payload, Violation};

use super::{Ends, TransformName, checked, edge_of, ends, readable, schemas};
use crate::store::intake::{self, SampleRow};
use crate::{Engine, Error};

/// Largest number of documents that are compared.
pub const MOST_SAMPLED: u32 = 10_000;
/// The most bytes that they may have together.
pub const SAMPLED_BYTES: usize = 32 * 1024 * 1024;
/// Differences that are shown.
const SHOWN: usize = 20;

impl Engine {
    /// Maps the last documents of sources by a transform and by the active one, and returns the differences.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] `invalid_transform`; [`Error::Busy`].
    pub async fn what_if_transform(
        &self,
        namespace: &str,
        name: TransformName<'_>,
        ask: WhatIfTransform,
    ) -> Result<TransformWhatIf, Error> {
        let edge = edge_of(name)?;
        if ask.transform.is_none() && ask.revision.is_none() {
            return Err(nothing_to_compare());
        }
        ask.transform.as_ref().map_or(Ok(()), readable)?;
        let node = self.node();
        let ends = ends(node, namespace, &edge, true).await?;
        let active = match self.stored_transform(namespace, &edge, None).await {
            Ok(active) => Some(active),
            Err(Error::NotFound { code: "unknown_transform", .. }) => None,
            Err(error) => return Err(error),
        };
        let new = match ask.transform {
            Some(transform) => transform,
            None => self.stored_transform(namespace, &edge, ask.revision).await?,
        };
        let contract = format!("{}@{}", edge.from, edge.from_version);
        let most = i64::from(ask.last.clamp(1, MOST_SAMPLED));
        let _turn = node.database.page_turn(namespace).await?;
        let mut connection = node.database.lister(namespace).await?;
        let found =
            intake::samples(&mut connection, namespace, &contract, (most, SAMPLED_BYTES as i64));
        let samples = crate::store::listed(found.await)?;
        drop(connection);
        self.apart(namespace, move || compared(&ends, active.as_ref(), &new, &samples)).await?
    }
}

fn nothing_to_compare() -> Error {
    let message = "give the `transform`, or the number of its `revision`, that is compared with the active one";
    Error::invalid("invalid_request", Violation::new("/transform", "missing_field", message))
}

fn compared(
    ends: &Ends,
    active: Option<&Payload>,
    new: &Payload,
    samples: &[SampleRow],
) -> Result<TransformWhatIf, Error> {
    let schemas = schemas(ends)?;
    let new = checked(&schemas, new)?;
    // One that was registered once and is read otherwise today counts as none.
    let active = active.and_then(|text| Transform::register(text, &schemas.0, &schemas.1).ok());
    let read = |row: &SampleRow| {
        let value = body_of(&row.raw, Form::of(&row.form), super::LARGEST_SAMPLE).ok()?;
        Some((row.id.to_string(), value))
    };
    let documents: Vec<(String, Value)> = samples.iter().filter_map(read).collect();
    let named = documents.iter().map(|(name, value)| (name.as_str(), value));
    let found = WhatIf::compare(active.as_ref(), &new, named, &Limits::default(), SHOWN);
    let samples = Payload::of(&found.samples)
        .map_err(|error| Error::Bug(format!("samples of a what-if: {error}")))?;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(TransformWhatIf {
        documents: count(found.documents),
        same: count(found.same),
        differ: count(found.differ),
        repaired: count(found.repaired),
        broken: count(found.broken),
        failing: count(found.failing),
        samples,
    })
}
