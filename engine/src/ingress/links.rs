//! Links of entities to other systems. An id of a system belongs to one entity; a second claim waits for a person.

use backstitch_saga::protocol::{
    ConflictState, LinkConflictView, LinkKept, LinkView, Page, PutLink, ResolveLinkConflict,
};
use backstitch_saga::{By, Time, Timestamp};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::page::page;
use crate::store::acts::{self, Act, Thing};
use crate::store::links::{self as table, ConflictRow, LinkRow};
use crate::store::listed;
use crate::{Engine, Error};

/// Claims of a namespace that wait for a person; what is claimed beyond them is refused and not noted.
pub const MOST_CONFLICTS: i64 = 10_000;
/// The kinds of the cursors of the lists: of links, and of conflicts.
const CURSORS: (char, char) = ('l', 'o');
/// Number of times that a link is tried again because others made one in between.
const TRIES: usize = 10;

fn unknown(system: &str, external_id: &str) -> Error {
    let shown: String = external_id.chars().take(100).collect();
    Error::NotFound {
        code: "unknown_link",
        message: format!("no entity has the id '{shown}' in the system '{system}'"),
    }
}

fn unknown_conflict(id: Uuid) -> Error {
    Error::NotFound {
        code: "unknown_link_conflict",
        message: format!("there is no conflict {id} in this namespace"),
    }
}

/// Records an act on an entity. The id is left out, because it may have to be erased.
async fn note(
    connection: &mut PgConnection,
    (namespace, stream): (&str, &str),
    (verb, by, at): (&'static str, &By, Time),
    system: &str,
) -> Result<(), Error> {
    let detail = Some(serde_json::json!({ "system": system }).to_string());
    let act = Act { namespace, thing: Thing::Subject, name: stream, at, verb, by, detail };
    Ok(acts::add(connection, &act).await?)
}

impl Engine {
    /// Says to which entity an id of another system belongs. The id that the entity had there before is free then.
    /// Returns whether it is new.
    ///
    /// # Errors
    /// [`Error::Conflict`] `link_conflict` when it belongs to another entity: the claim is noted for a person;
    /// [`Error::Busy`].
    pub async fn put_link(
        &self,
        namespace: &str,
        key: (&str, &str),
        ask: &PutLink,
        by: &By,
    ) -> Result<(LinkView, bool), Error> {
        let node = self.node();
        for _ in 0..TRIES {
            let now = node.clock.now();
            let mut connection = node.database.actor(namespace).await?;
            let mut transaction = connection.begin().await?;
            match table::find(&mut transaction, namespace, key).await? {
                Some(found) if found.stream == ask.stream => return Ok((view(found), false)),
                Some(found) => {
                    let row = ConflictRow {
                        id: node.clock.new_run().0,
                        system: key.0.to_owned(),
                        external_id: key.1.to_owned(),
                        stream: ask.stream.clone(),
                        holder: found.stream.clone(),
                        claimed_at: now,
                        claimed_by: by.actor.to_string(),
                        resolved_at: None,
                        resolved_by: None,
                        kept: None,
                    };
                    table::claim(&mut transaction, namespace, &row, MOST_CONFLICTS).await?;
                    commit!("links_claim", transaction.commit().await)?;
                    return Err(Error::Conflict {
                        code: "link_conflict",
                        message: format!(
                            "it belongs to '{}'; a person decides to whom it belongs, see GET /v1/link-conflicts",
                            found.stream
                        ),
                    });
                }
                None => {}
            }
            let row = LinkRow {
                system: key.0.to_owned(),
                external_id: key.1.to_owned(),
                stream: ask.stream.clone(),
                linked_at: now,
                linked_by: by.actor.to_string(),
            };
            if table::put(&mut transaction, namespace, &row).await? {
                note(&mut transaction, (namespace, &ask.stream), ("put", by, now), key.0).await?;
                commit!("links_change", transaction.commit().await)?;
                return Ok((view(row), true));
            }
        }
        Err(Error::Busy)
    }

    /// Shows to which entity an id of another system belongs.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn link(&self, namespace: &str, key: (&str, &str)) -> Result<LinkView, Error> {
        let mut connection = self.node().database.actor(namespace).await?;
        let found = table::find(&mut connection, namespace, key).await?;
        found.map(view).ok_or_else(|| unknown(key.0, key.1))
    }

    /// Deletes a link.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete_link(
        &self,
        namespace: &str,
        key: (&str, &str),
        by: &By,
    ) -> Result<(), Error> {
        let node = self.node();
        let mut connection = node.database.actor(namespace).await?;
        let mut transaction = connection.begin().await?;
        let stream = table::delete(&mut transaction, namespace, key).await?;
        let stream = stream.ok_or_else(|| unknown(key.0, key.1))?;
        let now = node.clock.now();
        note(&mut transaction, (namespace, &stream), ("delete", by, now), key.0).await?;
        Ok(commit!("links_change", transaction.commit().await)?)
    }

    /// Lists links by system and id.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn links(
        &self,
        namespace: &str,
        wanted: (Option<&str>, Option<&str>),
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<LinkView>, Error> {
        let place = |text: &str| {
            let (system, external_id) = text.split_once(' ')?;
            Some((system.to_owned(), external_id.to_owned()))
        };
        let after = after.map(|text| Cursor::place(CURSORS.0, text, place)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut connection = self.node().database.lister(namespace).await?;
        let found = table::list(&mut connection, namespace, wanted, after, beyond).await;
        let views = listed(found)?.into_iter().map(view).collect();
        Ok(page(views, limit, |last: &LinkView| {
            Cursor::of(CURSORS.0, &format!("{} {}", last.system, last.external_id))
        }))
    }

    /// Lists claims of ids that belong to other entities, the newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn link_conflicts(
        &self,
        namespace: &str,
        state: Option<ConflictState>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<LinkConflictView>, Error> {
        let place = |text: &str| text.parse::<Uuid>().ok();
        let before = after.map(|text| Cursor::place(CURSORS.1, text, place)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let open = state.map(|state| state == ConflictState::Open);
        let mut connection = self.node().database.lister(namespace).await?;
        let found = table::conflicts(&mut connection, namespace, open, before, beyond).await;
        let views = listed(found)?.into_iter().map(conflict).collect();
        Ok(page(views, limit, |last: &LinkConflictView| {
            Cursor::of(CURSORS.1, &last.id.to_string())
        }))
    }

    /// Decides to whom an id belongs that two entities claim. A repeat gets the same answer.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason; [`Error::Conflict`] `link_conflict_resolved` when
    /// somebody else has said otherwise; [`Error::Busy`].
    pub async fn resolve_link_conflict(
        &self,
        namespace: &str,
        id: Uuid,
        ask: &ResolveLinkConflict,
        by: &By,
    ) -> Result<LinkConflictView, Error> {
        must_have_reason(by)?;
        let node = self.node();
        let kept = match ask.keep {
            LinkKept::Holder => "holder",
            LinkKept::Claimant => "claimant",
        };
        for _ in 0..TRIES {
            let now = node.clock.now();
            let mut connection = node.database.actor(namespace).await?;
            let mut transaction = connection.begin().await?;
            let found = table::conflict(&mut transaction, namespace, id).await?;
            let row = found.ok_or_else(|| unknown_conflict(id))?;
            if let Some(before) = &row.kept {
                if before == kept {
                    return Ok(conflict(row));
                }
                let message = format!("it was resolved before: it belongs to the {before}");
                return Err(Error::Conflict { code: "link_conflict_resolved", message });
            }
            let key = (row.system.as_str(), row.external_id.as_str());
            if ask.keep == LinkKept::Claimant {
                table::delete(&mut transaction, namespace, key).await?;
                let link = LinkRow {
                    system: row.system.clone(),
                    external_id: row.external_id.clone(),
                    stream: row.stream.clone(),
                    linked_at: now,
                    linked_by: by.actor.to_string(),
                };
                if !table::put(&mut transaction, namespace, &link).await? {
                    continue;
                }
            }
            table::resolve(&mut transaction, id, kept, (&by.actor, now)).await?;
            let entity = match ask.keep {
                LinkKept::Holder => &row.holder,
                LinkKept::Claimant => &row.stream,
            };
            note(&mut transaction, (namespace, entity), ("resolve", by, now), key.0).await?;
            commit!("links_change", transaction.commit().await)?;
            return Ok(conflict(ConflictRow {
                kept: Some(kept.to_owned()),
                resolved_at: Some(now),
                resolved_by: Some(by.actor.to_string()),
                ..row
            }));
        }
        Err(Error::Busy)
    }
}

fn view(row: LinkRow) -> LinkView {
    LinkView {
        system: row.system,
        external_id: row.external_id,
        stream: row.stream,
        linked_at: Timestamp(row.linked_at),
        linked_by: row.linked_by,
    }
}

fn conflict(row: ConflictRow) -> LinkConflictView {
    LinkConflictView {
        id: row.id,
        state: match row.resolved_at {
            None => ConflictState::Open,
            Some(_) => ConflictState::Resolved,
        },
        system: row.system,
        external_id: row.external_id,
        stream: row.stream,
        holder: row.holder,
        claimed_at: Timestamp(row.claimed_at),
        claimed_by: row.claimed_by,
        kept: row.kept.map(|kept| match kept.as_str() {
            "holder" => LinkKept::Holder,
            _ => LinkKept::Claimant,
        }),
        resolved_at: row.resolved_at.map(Timestamp),
        resolved_by: row.resolved_by,
    }
}
