//! Changes of contracts. Each reads a subject, decides, and writes if the subject is still at the revision that was
//! read; else it reads and decides again.

use std::sync::Arc;

use backstitch_saga::By;
use backstitch_saga::protocol::{
    ContractCheck, ContractMode, ContractReaderView, ContractState, ContractVersionView,
    ContractView, PinReader, RegisterContract, SetContractMode, SetContractState,
};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::decide::{Known, Verdict, decide};
use super::{
    MOST_READERS, MOST_SUBJECTS, default_mode, mode_of, must_be_name, number, reads, state_of,
    unknown_version,
};
use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::node::Node;
use crate::store::acts::{self, Act, Thing};
use crate::store::contracts::{self as table, ReaderRow, SubjectRow, VersionRow};
use crate::{Engine, Error, Registered};

/// Number of times that a change is decided again because others changed the subject in between.
const TRIES: usize = 10;

/// Returns the versions and readers of a subject, and its row if it exists.
async fn known(
    node: &Node,
    namespace: &str,
    subject: &str,
    ask: &RegisterContract,
) -> Result<(Option<SubjectRow>, Known), Error> {
    let mut connection = node.database.reader(namespace).await?;
    // The row first: what is read after it is at least as new, and a change between them moves its revision on.
    let row = table::find(&mut connection, namespace, subject).await?;
    let (mode, versions, readers) = match &row {
        Some(row) => (
            mode_of(&row.mode)?,
            table::versions_whole(&mut connection, namespace, subject).await?,
            table::readers(&mut connection, namespace, subject).await?,
        ),
        None => {
            let most = MOST_SUBJECTS;
            if table::count(&mut connection, namespace, most).await? >= most {
                let message = format!("a namespace has at most {most} contracts; nothing was done");
                return Err(Error::Quota {
                    code: "too_many_contracts",
                    message,
                    retry_after: None,
                });
            }
            (ask.mode.unwrap_or_else(|| default_mode(subject)), Vec::new(), Vec::new())
        }
    };
    Ok((row, Known { subject: subject.to_owned(), mode, versions, readers }))
}

/// Decides about a version on a thread apart from those that serve requests.
async fn verdict(
    engine: &Engine,
    namespace: &str,
    known: Known,
    ask: &Arc<RegisterContract>,
) -> Result<Verdict, Error> {
    if let Some(asked) = ask.mode.filter(|asked| *asked != known.mode) {
        return Err(Error::Conflict {
            code: "mode_conflict",
            message: format!(
                "'{}' has the mode '{}', not '{}'; leave the mode out, or set it with PUT /v1/contracts/{{subject}}",
                known.subject,
                known.mode.as_str(),
                asked.as_str()
            ),
        });
    }
    let ask = Arc::clone(ask);
    engine.apart(namespace, move || decide(&known, &ask)).await?
}

/// One change of an existing subject: the writes, and the entry of the audit.
struct Change<'a> {
    namespace: &'a str,
    by: &'a By,
    verb: &'static str,
    detail: String,
}

/// Begins a change: `None` when the subject has moved on from the row that was read.
async fn advance(
    node: &Node,
    transaction: &mut PgConnection,
    row: &SubjectRow,
    change: &Change<'_>,
) -> Result<Option<()>, Error> {
    let at = node.clock.now();
    let actor = change.by.actor.to_string();
    let row = SubjectRow { changed_at: at, changed_by: actor, ..row.clone() };
    if !table::advance(transaction, change.namespace, &row).await? {
        return Ok(None);
    }
    note(node, transaction, &row.subject, change).await?;
    Ok(Some(()))
}

async fn note(
    node: &Node,
    transaction: &mut PgConnection,
    subject: &str,
    change: &Change<'_>,
) -> Result<(), Error> {
    let act = Act {
        namespace: change.namespace,
        thing: Thing::Contract,
        name: subject,
        at: node.clock.now(),
        verb: change.verb,
        by: change.by,
        detail: Some(change.detail.clone()),
    };
    Ok(acts::add(transaction, &act).await?)
}

impl Engine {
    /// Registers a version of a contract, or finds the one that has the same schema.
    ///
    /// # Errors
    /// [`Error::Invalid`] (`invalid_name`, `invalid_schema`, `invalid_transform`), [`Error::Incompatible`],
    /// [`Error::Conflict`] (`transform_required`, `mode_conflict`), [`Error::Quota`], [`Error::Busy`].
    pub async fn register_contract(
        &self,
        namespace: &str,
        subject: &str,
        ask: RegisterContract,
        by: &By,
    ) -> Result<(Registered, ContractVersionView), Error> {
        must_be_name(subject, "subject")?;
        let ask = Arc::new(ask);
        for _ in 0..TRIES {
            let (row, known) = known(self.node(), namespace, subject, &ask).await?;
            let mode = known.mode;
            let (registered, version) = match verdict(self, namespace, known, &ask).await? {
                Verdict::Same(version) => (Registered::Unchanged, version),
                Verdict::New { version, digest, breaks } => {
                    let breaks = match breaks.is_empty() {
                        true => None,
                        false => serde_json::to_string(&breaks).ok(),
                    };
                    let text = |payload: &backstitch_saga::Payload| payload.text().to_owned();
                    let new = VersionRow {
                        version,
                        state: ContractState::Active.as_str().to_owned(),
                        digest,
                        schema: text(&ask.schema),
                        up: ask.up.as_ref().map(text),
                        down: ask.down.as_ref().map(text),
                        breaks,
                        registered_at: self.node().clock.now(),
                        registered_by: by.actor.to_string(),
                    };
                    if !write(self.node(), namespace, (subject, row, mode), &new, by).await? {
                        continue;
                    }
                    (Registered::Created, number(version))
                }
            };
            let view = self.contract_version(namespace, subject, version).await?;
            return Ok((registered, view));
        }
        Err(Error::Busy)
    }

    /// Checks a version of a contract without registering it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the schema or a transform is not valid in itself, [`Error::Busy`].
    pub async fn check_contract(
        &self,
        namespace: &str,
        subject: &str,
        ask: RegisterContract,
    ) -> Result<ContractCheck, Error> {
        must_be_name(subject, "subject")?;
        let ask = Arc::new(ask);
        let refused = |code: &str, message: String| ContractCheck {
            accepted: false,
            same_as: None,
            version: None,
            code: Some(code.to_owned()),
            message: Some(message),
            breaks: Vec::new(),
        };
        let verdict = match known(self.node(), namespace, subject, &ask).await {
            Ok((_, known)) => verdict(self, namespace, known, &ask).await,
            Err(error) => Err(error),
        };
        match verdict {
            Ok(Verdict::Same(version)) => Ok(ContractCheck {
                accepted: true,
                same_as: Some(version),
                version: None,
                code: None,
                message: None,
                breaks: Vec::new(),
            }),
            Ok(Verdict::New { version, breaks, .. }) => Ok(ContractCheck {
                accepted: true,
                same_as: None,
                version: Some(number(version)),
                code: None,
                message: None,
                breaks,
            }),
            Err(Error::Incompatible { message, breaks }) => {
                Ok(ContractCheck { breaks, ..refused("incompatible_schema", message) })
            }
            Err(
                Error::Conflict { code, message }
                | Error::Quota { code, message, retry_after: None },
            ) => Ok(refused(code, message)),
            Err(other) => Err(other),
        }
    }

    /// Sets the compatibility that new versions of a subject keep.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason; [`Error::Busy`].
    pub async fn set_contract_mode(
        &self,
        namespace: &str,
        subject: &str,
        ask: &SetContractMode,
        by: &By,
    ) -> Result<ContractView, Error> {
        must_have_reason(by)?;
        for _ in 0..TRIES {
            let row = reads::found(self.node(), namespace, subject).await?;
            if row.mode == ask.mode.as_str() {
                return self.contract(namespace, subject).await;
            }
            let row = SubjectRow { mode: ask.mode.as_str().to_owned(), ..row };
            let detail = format!(r#"{{"mode":"{}"}}"#, row.mode);
            let change = Change { namespace, by, verb: "set-mode", detail };
            let mut connection = self.node().database.reader(namespace).await?;
            let mut transaction = connection.begin().await?;
            if advance(self.node(), &mut transaction, &row, &change).await?.is_some() {
                commit!("contracts_change", transaction.commit().await)?;
                drop(connection);
                return self.contract(namespace, subject).await;
            }
        }
        Err(Error::Busy)
    }

    /// Deprecates or retires a version of a contract, or has it used again.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] `contract_has_readers`; [`Error::Refused`] without a reason;
    /// [`Error::Busy`].
    pub async fn set_contract_state(
        &self,
        namespace: &str,
        subject: &str,
        version: u32,
        ask: &SetContractState,
        by: &By,
    ) -> Result<ContractVersionView, Error> {
        must_have_reason(by)?;
        for _ in 0..TRIES {
            let row = reads::found(self.node(), namespace, subject).await?;
            let view = self.contract_version(namespace, subject, version).await?;
            if view.state == ask.state {
                return Ok(view);
            }
            let mut connection = self.node().database.reader(namespace).await?;
            if ask.state == ContractState::Retired {
                let readers = table::readers(&mut connection, namespace, subject).await?;
                refuse_readers(subject, version, &readers)?;
            }
            let state = ask.state.as_str();
            let detail = format!(r#"{{"version":{version},"state":"{state}"}}"#);
            let change = Change { namespace, by, verb: "set-state", detail };
            let stored = i32::try_from(version).unwrap_or(0);
            let mut transaction = connection.begin().await?;
            if advance(self.node(), &mut transaction, &row, &change).await?.is_some() {
                table::set_state(&mut transaction, namespace, subject, (stored, state)).await?;
                commit!("contracts_change", transaction.commit().await)?;
                drop(connection);
                return self.contract_version(namespace, subject, version).await;
            }
        }
        Err(Error::Busy)
    }

    /// Pins a reader to a version of a contract, which cannot be retired then.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] `version_retired`; [`Error::Quota`]; [`Error::Busy`].
    pub async fn pin_contract_reader(
        &self,
        namespace: &str,
        (subject, name): (&str, &str),
        ask: &PinReader,
        by: &By,
    ) -> Result<ContractReaderView, Error> {
        must_be_name(name, "reader")?;
        for _ in 0..TRIES {
            let row = reads::found(self.node(), namespace, subject).await?;
            let mut connection = self.node().database.reader(namespace).await?;
            let readers = table::readers(&mut connection, namespace, subject).await?;
            let before = readers.iter().find(|reader| reader.name == name);
            if let Some(same) = before.filter(|reader| number(reader.version) == ask.version) {
                return Ok(reads::reader_view(same));
            }
            let stored = i32::try_from(ask.version).unwrap_or(0);
            let there = table::version(&mut connection, namespace, subject, stored).await?;
            let there = there.ok_or_else(|| unknown_version(subject, ask.version))?;
            if state_of(&there.state)? == ContractState::Retired {
                return Err(Error::Conflict {
                    code: "version_retired",
                    message: format!("version {} of '{subject}' is retired", ask.version),
                });
            }
            if before.is_none() && readers.len() >= MOST_READERS {
                let message = format!("a contract has at most {MOST_READERS} readers");
                return Err(Error::Quota { code: "contract_full", message, retry_after: None });
            }
            let reader = ReaderRow {
                name: name.to_owned(),
                version: stored,
                pinned_at: self.node().clock.now(),
                pinned_by: by.actor.to_string(),
            };
            let detail = format!(r#"{{"reader":"{name}","version":{}}}"#, ask.version);
            let change = Change { namespace, by, verb: "pin", detail };
            let mut transaction = connection.begin().await?;
            if advance(self.node(), &mut transaction, &row, &change).await?.is_some() {
                table::pin(&mut transaction, namespace, subject, &reader).await?;
                commit!("contracts_change", transaction.commit().await)?;
                return Ok(reads::reader_view(&reader));
            }
        }
        Err(Error::Busy)
    }

    /// Deletes a reader of a contract.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Busy`].
    pub async fn unpin_contract_reader(
        &self,
        namespace: &str,
        (subject, name): (&str, &str),
        by: &By,
    ) -> Result<(), Error> {
        for _ in 0..TRIES {
            let row = reads::found(self.node(), namespace, subject).await?;
            let mut connection = self.node().database.reader(namespace).await?;
            let readers = table::readers(&mut connection, namespace, subject).await?;
            if !readers.iter().any(|reader| reader.name == name) {
                return Err(Error::NotFound {
                    code: "unknown_reader",
                    message: format!("the contract '{subject}' has no reader of this name"),
                });
            }
            let detail = format!(r#"{{"reader":"{name}"}}"#);
            let change = Change { namespace, by, verb: "unpin", detail };
            let mut transaction = connection.begin().await?;
            if advance(self.node(), &mut transaction, &row, &change).await?.is_some() {
                table::unpin(&mut transaction, namespace, subject, name).await?;
                commit!("contracts_change", transaction.commit().await)?;
                return Ok(());
            }
        }
        Err(Error::Busy)
    }
}

/// Writes a version that was decided about. Returns whether the subject was still as it was read.
async fn write(
    node: &Node,
    namespace: &str,
    (subject, row, mode): (&str, Option<SubjectRow>, ContractMode),
    new: &VersionRow,
    by: &By,
) -> Result<bool, Error> {
    let detail = format!(r#"{{"version":{}}}"#, new.version);
    let change = Change { namespace, by, verb: "register", detail };
    let mut connection = node.database.reader(namespace).await?;
    let mut transaction = connection.begin().await?;
    match row {
        Some(row) => {
            if advance(node, &mut transaction, &row, &change).await?.is_none() {
                return Ok(false);
            }
        }
        None => {
            let row = SubjectRow {
                subject: subject.to_owned(),
                mode: mode.as_str().to_owned(),
                revision: 1,
                changed_at: new.registered_at,
                changed_by: new.registered_by.clone(),
            };
            if !table::create(&mut transaction, namespace, &row).await? {
                return Ok(false);
            }
            note(node, &mut transaction, subject, &change).await?;
        }
    }
    table::add_version(&mut transaction, namespace, subject, new).await?;
    commit!("contracts_register", transaction.commit().await)?;
    tracing::info!(namespace, subject, version = new.version, "a contract was registered");
    Ok(true)
}

/// Refuses to retire a version with readers.
fn refuse_readers(subject: &str, version: u32, readers: &[ReaderRow]) -> Result<(), Error> {
    let pinned: Vec<backstitch_integration::contracts::Reader> = readers
        .iter()
        .map(|row| backstitch_integration::contracts::Reader {
            name: row.name.clone(),
            version: number(row.version),
        })
        .collect();
    let keep = backstitch_integration::contracts::keep_from_retiring(version, &pinned);
    if keep.is_empty() {
        return Ok(());
    }
    let few: Vec<&str> = keep.iter().take(20).map(|reader| reader.name.as_str()).collect();
    let rest = keep.len().saturating_sub(few.len());
    let more = if rest == 0 { String::new() } else { format!(" and {rest} more") };
    Err(Error::Conflict {
        code: "contract_has_readers",
        message: format!(
            "version {version} of '{subject}' is read by {}{more}; pin them to another version first",
            few.join(", ")
        ),
    })
}
