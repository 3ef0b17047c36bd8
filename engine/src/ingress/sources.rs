//! Requests of people about sources, with their views.

use backstitch_integration::ingress::Source;
use backstitch_saga::protocol::{
    Page, PutSource, RotateSource, SourceSecret, SourceSpec, SourceVerification, SourceView,
};
use backstitch_saga::{By, Span, Time, Timestamp, Violation};
use sqlx::Connection;

use super::{LARGEST_SPEC, MOST_SOURCES, damaged, document_of, refused, unknown_source};
use crate::contracts::is_name;
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::store::acts::{self, Act, Thing};
use crate::store::listed;
use crate::store::sources::{self as table, SecretRow, SourceRow};
use crate::{Engine, Error};

/// The kind of the cursor of the list.
const CURSOR: char = 'v';
/// Number of times that a change is tried again because others changed the source in between.
const TRIES: usize = 10;
/// The longest that a secret is good beside the next one.
const LONGEST_OVERLAP: Span = Span(30 * 86_400_000);

/// Returns secrets that are good at `now`, the one in use first.
pub(super) fn good(secrets: &[SecretRow], now: Time) -> impl Iterator<Item = &SecretRow> {
    secrets.iter().filter(move |secret| secret.until.is_none_or(|until| now < until))
}

fn needs_no_secret(spec: &SourceSpec) -> bool {
    matches!(spec.verify, SourceVerification::None {} | SourceVerification::MutualTls { .. })
}

impl Engine {
    /// Creates a source, or changes it. Returns whether it was created.
    ///
    /// # Errors
    /// [`Error::Invalid`] `invalid_source`; [`Error::Quota`]; [`Error::Busy`].
    pub async fn put_source(
        &self,
        namespace: &str,
        name: &str,
        ask: &PutSource,
        by: &By,
    ) -> Result<(SourceView, bool), Error> {
        let spec = text_of(&ask.spec)?;
        for _ in 0..TRIES {
            let node = self.node();
            let now = node.clock.now();
            let mut connection = node.database.reader(namespace).await?;
            let before = table::find(&mut connection, namespace, name).await?;
            let kept: Vec<SecretRow> = match (&before, &ask.secret) {
                _ if needs_no_secret(&ask.spec) && ask.secret.is_none() => Vec::new(),
                (Some(before), None) => good(&before.secrets, now).cloned().collect(),
                (Some(before), Some(secret)) if is_only(&before.secrets, secret, now) => {
                    good(&before.secrets, now).cloned().collect()
                }
                (_, Some(secret)) => vec![new_secret(secret, by, now)],
                (None, None) => Vec::new(),
            };
            self.check_spec(&ask.spec, &kept)?;
            let mut accepted = subjects(&ask.spec);
            accepted.extend(targets(&ask.spec).map(|(_, subject)| subject));
            let known = table::subject_revisions(&mut connection, namespace, &accepted).await?;
            check_contracts(&ask.spec, |subject| known.iter().any(|(name, _)| name == subject))?;
            let is_new = before.is_none();
            let same_secrets = before.as_ref().is_some_and(|before| {
                kept.len() == before.secrets.len()
                    && kept
                        .iter()
                        .zip(&before.secrets)
                        .all(|(one, other)| one.secret == other.secret)
            });
            let same_spec = before.as_ref().is_some_and(|before| before.spec == spec);
            if let Some(before) = before.clone().filter(|_| same_spec && same_secrets) {
                return Ok((view(namespace, before, now)?, false));
            }
            if is_new {
                let most = MOST_SOURCES;
                if table::count(&mut connection, namespace, most).await? >= most {
                    let message = format!("a namespace has at most {most} sources");
                    return Err(Error::Quota {
                        code: "too_many_sources",
                        message,
                        retry_after: None,
                    });
                }
            }
            let version = before.as_ref().map_or(1, |before| {
                if same_spec { before.version } else { before.version.saturating_add(1) }
            });
            let row = SourceRow {
                name: name.to_owned(),
                revision: node.clock.new_run().0,
                version,
                spec: spec.clone(),
                changed_at: now,
                changed_by: by.actor.to_string(),
                secrets: kept,
            };
            let secret = if same_secrets { "" } else { r#","secret":"another""# };
            let detail = Some(format!(r#"{{"version":{version},"spec":{spec}{secret}}}"#));
            let act = Change { namespace, by, verb: "put", detail };
            let revision = before.map(|before| before.revision);
            if self.write_source(connection, &row, revision, &act).await? {
                return Ok((view(namespace, row, now)?, is_new));
            }
        }
        Err(Error::Busy)
    }

    /// Gives a source another secret; the one before is good for `ask.overlap` more.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`]; [`Error::Busy`].
    pub async fn rotate_source(
        &self,
        namespace: &str,
        name: &str,
        ask: &RotateSource,
        by: &By,
    ) -> Result<SourceView, Error> {
        if ask.overlap > LONGEST_OVERLAP {
            let message = "a secret is good for at most 30 days beside the next one";
            let wrong = Violation::new("/overlap", "out_of_range", message);
            return Err(Error::invalid("invalid_request", wrong));
        }
        for _ in 0..TRIES {
            let node = self.node();
            let now = node.clock.now();
            let mut connection = node.database.reader(namespace).await?;
            let found = table::find(&mut connection, namespace, name).await?;
            let before = found.ok_or_else(|| unknown_source(name))?;
            // Sent again, as after an answer that was lost: it is in use already.
            if before.secrets.first().is_some_and(|first| first.secret == ask.secret) {
                return view(namespace, before, now);
            }
            let spec = spec_of(&before)?;
            let mut secrets = vec![new_secret(&ask.secret, by, now)];
            if let Some(last) = good(&before.secrets, now).next().filter(|_| ask.overlap.0 > 0) {
                let until = now.after(ask.overlap);
                let until = last.until.map_or(until, |before| before.min(until));
                secrets.push(SecretRow { until: Some(until), ..last.clone() });
            }
            self.check_spec(&spec, &secrets)?;
            let revision = before.revision;
            let row = SourceRow {
                revision: node.clock.new_run().0,
                changed_at: now,
                changed_by: by.actor.to_string(),
                secrets,
                ..before
            };
            let detail = Some(format!(r#"{{"overlap":"{}"}}"#, ask.overlap));
            let act = Change { namespace, by, verb: "rotate", detail };
            if self.write_source(connection, &row, Some(revision), &act).await? {
                return view(namespace, row, now);
            }
        }
        Err(Error::Busy)
    }

    /// Deletes a source. Its documents stay.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete_source(&self, namespace: &str, name: &str, by: &By) -> Result<(), Error> {
        let node = self.node();
        let mut connection = node.database.reader(namespace).await?;
        let mut transaction = connection.begin().await?;
        if !table::delete(&mut transaction, namespace, name).await? {
            return Err(unknown_source(name));
        }
        let act = Change { namespace, by, verb: "delete", detail: None };
        acts::add(&mut transaction, &act.act(name, node.clock.now())).await?;
        let done = commit!("sources_change", transaction.commit().await);
        node.doors.forget(namespace, name);
        Ok(done?)
    }

    /// Shows a source.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn source(&self, namespace: &str, name: &str) -> Result<SourceView, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        let found = table::find(&mut connection, namespace, name).await?;
        view(namespace, found.ok_or_else(|| unknown_source(name))?, self.node().clock.now())
    }

    /// Lists sources by name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn sources(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<SourceView>, Error> {
        let place = |text: &str| Some(text.to_owned());
        let after = after.map(|text| Cursor::place(CURSOR, text, place)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut connection = self.node().database.lister(namespace).await?;
        let after = after.unwrap_or_default();
        let rows = listed(table::list(&mut connection, namespace, &after, beyond).await)?;
        let now = self.node().clock.now();
        let views: Result<Vec<_>, _> =
            rows.into_iter().map(|row| view(namespace, row, now)).collect();
        Ok(crate::page::page(views?, limit, |last: &SourceView| Cursor::of(CURSOR, &last.name)))
    }

    /// Writes a source if it is still as it was read, with the act that did it.
    async fn write_source(
        &self,
        mut connection: crate::store::seats::Reader,
        row: &SourceRow,
        before: Option<uuid::Uuid>,
        change: &Change<'_>,
    ) -> Result<bool, Error> {
        let mut transaction = connection.begin().await?;
        if !table::put(&mut transaction, change.namespace, row, before).await? {
            return Ok(false);
        }
        table::set_secrets(&mut transaction, change.namespace, row).await?;
        acts::add(&mut transaction, &change.act(&row.name, row.changed_at)).await?;
        let done = commit!("sources_change", transaction.commit().await);
        // Also when the answer was lost: it may be changed.
        self.node().doors.forget(change.namespace, &row.name);
        done?;
        Ok(true)
    }

    /// Checks a spec with its secrets by the rules, and against what this server allows.
    fn check_spec(&self, spec: &SourceSpec, secrets: &[SecretRow]) -> Result<(), Error> {
        let texts: Vec<&str> = secrets.iter().map(|secret| secret.secret.as_str()).collect();
        let mut wrong = match Source::new(document_of(spec)?, &texts) {
            Ok(_) => Vec::new(),
            Err(violations) => violations,
        };
        let mut refuse = |place: &str, message: String| {
            wrong.push(Violation::new(place, "source_not_valid", message));
        };
        let largest = self.event_limit();
        if usize::try_from(spec.max_bytes).unwrap_or(usize::MAX) > largest {
            refuse("/max_bytes", format!("an event has at most {largest} bytes"));
        }
        if spec.verify == (SourceVerification::None {}) && spec.rate.is_none() {
            let message = "anybody may send to a source that is not verified: it needs a rate";
            refuse("/rate", message.to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(refused(wrong, "/spec")) }
    }
}

/// Returns a change of a source for the audit.
struct Change<'a> {
    namespace: &'a str,
    by: &'a By,
    verb: &'static str,
    detail: Option<String>,
}

impl<'a> Change<'a> {
    fn act(&'a self, name: &'a str, at: Time) -> Act<'a> {
        let detail = self.detail.clone();
        let Change { namespace, by, verb, .. } = *self;
        Act { namespace, thing: Thing::Source, name, at, verb, by, detail }
    }
}

fn new_secret(secret: &str, by: &By, now: Time) -> SecretRow {
    let added_by = by.actor.to_string();
    SecretRow { secret: secret.to_owned(), added_at: now, added_by, until: None }
}

/// Returns whether `secret` is in use, and no other one is valid.
fn is_only(secrets: &[SecretRow], secret: &str, now: Time) -> bool {
    let mut all = good(secrets, now);
    all.next().is_some_and(|first| first.secret == secret) && all.next().is_none()
}

/// Prints a spec in its stored form.
fn text_of(spec: &SourceSpec) -> Result<String, Error> {
    let text = serde_json::to_string(spec).map_err(|error| Error::Bug(error.to_string()))?;
    if text.len() <= LARGEST_SPEC {
        return Ok(text);
    }
    let message = format!("the spec of a source has at most {LARGEST_SPEC} bytes");
    Err(refused(vec![Violation::new("", "source_not_valid", message)], "/spec"))
}

/// Refuses contracts that there are not: a name that is misspelt would refuse every document.
fn check_contracts(spec: &SourceSpec, is_known: impl Fn(&str) -> bool) -> Result<(), Error> {
    let accepts = spec.accepts.iter().enumerate();
    let unknown = accepts.filter(|(_, accepts)| !is_known(&accepts.contract));
    let mut wrong: Vec<Violation> = unknown
        .map(|(index, accepts)| {
            let shown: String = accepts.contract.chars().take(100).collect();
            let message =
                format!("there is no contract with the subject '{shown}'; register it first");
            Violation::new(format!("/accepts/{index}/contract"), "unknown_contract", message)
        })
        .collect();
    for (index, subject) in targets(spec) {
        if subject.contains('.') || !is_known(&subject) {
            let message = "documents are mapped to a contract of our own that is registered";
            let place = format!("/accepts/{index}/to");
            wrong.push(Violation::new(place, "unknown_contract", message));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(refused(wrong, "/spec")) }
}

/// Returns the contracts that documents are mapped to, each with the place where a spec says so.
fn targets(spec: &SourceSpec) -> impl Iterator<Item = (usize, String)> {
    let accepts = spec.accepts.iter().enumerate();
    accepts.filter_map(|(index, accepts)| {
        let subject = accepts.to.as_ref()?.split('@').next().unwrap_or_default();
        is_name(subject).then(|| (index, subject.to_owned()))
    })
}

/// Returns the contracts that a spec accepts, as far as their names may be those of contracts.
pub(super) fn subjects(spec: &SourceSpec) -> Vec<String> {
    let names = spec.accepts.iter().map(|accepts| &accepts.contract);
    names.filter(|name| is_name(name)).cloned().collect()
}

pub(super) fn spec_of(row: &SourceRow) -> Result<SourceSpec, Error> {
    serde_json::from_str(&row.spec).map_err(|_| damaged(&row.name))
}

fn view(namespace: &str, row: SourceRow, now: Time) -> Result<SourceView, Error> {
    let secrets = good(&row.secrets, now).map(|secret| SourceSecret {
        added_at: Timestamp(secret.added_at),
        added_by: secret.added_by.clone(),
        until: secret.until.map(Timestamp),
    });
    Ok(SourceView {
        address: format!("/v1/in/{namespace}/{}", row.name),
        version: row.version.unsigned_abs(),
        spec: spec_of(&row)?,
        secrets: secrets.collect(),
        changed_at: Timestamp(row.changed_at),
        changed_by: row.changed_by,
        name: row.name,
    })
}
