//! State that the parts of one node share.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use backstitch_saga::{Command, Reply, Run, RunId};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::admission::{Account, Admission, Place};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::definitions::Definitions;
use crate::dispatch::{Dispatcher, Match, Unfetched};
use crate::executor::request::{Answered, Answers, Request, ShardCommand};
use crate::flow::Flow;
use crate::reads::waiters::Waiters;
use crate::schemas::Schemas;
use crate::store::Database;
use crate::{Error, Options};

/// State that the parts of one node share.
pub(crate) struct Node {
    /// Its number in the table `nodes`.
    pub(crate) id: i32,
    pub(crate) options: Options,
    pub(crate) database: Database,
    pub(crate) clock: Clock,
    pub(crate) health: crate::health::Health,
    pub(crate) peers: crate::peers::Peers,
    pub(crate) hearing: crate::hearing::Hearing,
    pub(crate) counters: Counters,
    pub(crate) definitions: Definitions,
    pub(crate) schemas: Arc<Schemas>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) flow: Flow,
    pub(crate) waiters: Waiters,
    pub(crate) boards: crate::status::Boards,
    pub(crate) pauses: crate::pauses::Pauses,
    pub(crate) approvals: crate::approvals::Approvals,
    pub(crate) undo_times: crate::undo_times::UndoTimes,
    pub(crate) leases: crate::leases::Leases,
    pub(crate) credentials: crate::credentials::Cache,
    pub(crate) doors: crate::ingress::Doors,
    pub(crate) quotas: crate::quotas::Known,
    pub(crate) roster: crate::workers::Roster,
    pub(crate) damaged: crate::damage::Lately,
    pub(crate) checked: crate::index_check::Progress,
    pub(crate) retention: crate::retention::Walk,
    pub(crate) swept: crate::sweep::Place,
    /// Namespaces that had the last turns in the background work.
    pub(crate) last_turns: crate::rounds::LastTurns,
    /// Numbers with labels.
    pub(crate) statistics: crate::numbers::Statistics,
    pub(crate) ends: crate::numbers::Ends,
    pub(crate) times: crate::numbers::Times,
    pub(crate) background: crate::numbers::Background,
    /// The commands that wait in front of the shards, by namespace.
    pub(crate) admission: Admission,
    /// Children that may start now.
    pub(crate) turns: Arc<crate::turns::Turns>,
    pub(crate) shards: Vec<ShardDoor>,
    /// It takes nothing new.
    pub(crate) closing: AtomicBool,
    /// Rings when a worker waits for more than this node knows of.
    pub(crate) hungry: Notify,
    /// The last look for tasks found some.
    pub(crate) backlog: AtomicBool,
    /// Rings when an application has asked for something in a transaction of its own.
    pub(crate) asked: Notify,
    /// The event log.
    pub(crate) log: crate::log::Log,
    /// Of which subscriptions something was heard.
    pub(crate) heard: Arc<crate::subscriptions::Heard>,
    /// Pending work on serial keys and facts.
    pub(crate) sequence: crate::sequence::Jobs,
    /// A shard has lost its memory: the node looks up again what it is in charge of.
    pub(crate) forgot: AtomicBool,
}

/// The way to a shard.
pub(crate) struct ShardDoor {
    pub(crate) inbox: mpsc::UnboundedSender<Message>,
    /// Commands that wait in front of it.
    pub(crate) depth: Arc<AtomicUsize>,
}

/// A message to a shard.
pub(crate) enum Message {
    Work(Vec<Request>),
    /// Reads a run in memory: gets `None` if it is not there, or not at record `seq` or later.
    Read {
        run: RunId,
        seq: u64,
        read: Read,
    },
    /// Loads runs again that another node may have moved on.
    LookUp(Vec<RunId>),
    /// Drops runs from memory.
    Forget(Vec<RunId>),
    /// Looks after the timers of runs no more.
    PutAside(Vec<RunId>),
    /// Other nodes have declared this node dead: it is in charge of no run any more.
    Disown,
    /// The clock went back by a step: what is due later is another instant now.
    SteppedBack,
    /// Answered once everything that came before is done.
    Drain(oneshot::Sender<()>),
}

/// A function of a run in memory.
pub(crate) type Read = Box<dyn FnOnce(Option<&Run>) + Send>;

impl Node {
    fn shard_of(&self, run: RunId) -> usize {
        let mut hasher = DefaultHasher::new();
        run.hash(&mut hasher);
        let count = self.shards.len() as u64;
        usize::try_from(hasher.finish() % count).unwrap_or_default()
    }

    /// Returns whether it accepts no new work.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Gives commands of one namespace to their shards, one message each. All or nothing: when the namespace has its
    /// share of what may wait already, none is taken.
    pub(crate) fn submit(&self, envelopes: Vec<Request>) -> Result<(), (Error, Vec<Request>)> {
        if self.is_closing() {
            return Err((Error::Busy, envelopes));
        }
        let Some(namespace) = envelopes.iter().find_map(Request::payer) else {
            self.submit_own(envelopes);
            return Ok(());
        };
        let account = self.admission.account(namespace);
        if !self.admission.admit(&account, envelopes.len()) {
            self.counters.turned_away.one();
            return Err((Error::Busy, envelopes));
        }
        self.give(envelopes, |depth, _| Place::admitted(depth, &account));
        Ok(())
    }

    /// Gives commands of the engine itself to their shards, whatever waits there.
    pub(crate) fn submit_own(&self, envelopes: Vec<Request>) {
        let mut last: Option<(Arc<str>, Arc<Account>)> = None;
        self.give(envelopes, |depth, envelope| {
            let account = match (envelope.payer(), &last) {
                (None, _) => Arc::clone(self.admission.engine()),
                (Some(namespace), Some((known, account))) if known == namespace => {
                    Arc::clone(account)
                }
                (Some(namespace), _) => {
                    let account = self.admission.account(namespace);
                    last = Some((Arc::clone(namespace), Arc::clone(&account)));
                    account
                }
            };
            Place::own(depth, account)
        });
    }

    fn give(
        &self,
        envelopes: Vec<Request>,
        mut place: impl FnMut(&Arc<AtomicUsize>, &Request) -> Place,
    ) {
        let mut parts: Vec<Vec<Request>> = self.shards.iter().map(|_| Vec::new()).collect();
        for mut envelope in envelopes {
            let shard = self.shard_of(envelope.run);
            envelope.place = Some(place(&self.shards[shard].depth, &envelope));
            parts[shard].push(envelope);
        }
        for (door, part) in self.shards.iter().zip(parts) {
            if !part.is_empty() {
                // A shard that has ended drops its messages, and dropping a command answers it.
                let _ = door.inbox.send(Message::Work(part));
            }
        }
    }

    /// Asks something of a run; the answer comes after the commit.
    pub(crate) async fn ask(
        &self,
        namespace: &str,
        run: RunId,
        command: Command,
    ) -> Result<Reply, Error> {
        let answers = Answers::new(1);
        let urgent = stops_things(&command);
        let order = ShardCommand::Command(command);
        let envelope = Request::asked(run, namespace.into(), order, answers.ticket(0));
        if urgent && !self.is_closing() {
            self.submit_own(vec![envelope.urgent_if(urgent)]);
        } else {
            self.submit(vec![envelope]).map_err(|(error, _)| error)?;
        }
        match answers.wait().await.pop() {
            Some(Ok(Answered::Reply(reply))) => Ok(reply),
            Some(Ok(Answered::Started(_))) => Ok(Reply::Done),
            Some(Err(Error::NotFound { code: "unknown_run", .. })) => {
                Err(crate::reads::not_found(self, namespace, run).await)
            }
            Some(Err(error)) => Err(error),
            None => Err(Error::Bug("a command was not answered".to_owned())),
        }
    }

    /// Hands tasks that are probably on offer to the sessions that were found for them.
    pub(crate) fn hand_out(&self, matches: Vec<Match>) {
        if !matches.is_empty() {
            self.submit_own(matches.into_iter().map(Request::hand_out).collect());
        }
    }

    /// Takes back tasks that were leased to sessions and did not reach them.
    pub(crate) fn take_back(&self, back: Vec<Unfetched>) {
        if !back.is_empty() {
            let order = |Unfetched { run, task, session, since }| {
                let session = session.to_string().into();
                Request::own(
                    run,
                    ShardCommand::Command(Command::GiveBack { task, session, since: Some(since) }),
                )
            };
            self.submit_own(back.into_iter().map(order).collect());
        }
    }

    /// Loads runs again that another node may have moved on.
    pub(crate) fn look_up(&self, runs: Vec<RunId>) {
        self.send_about(runs, Message::LookUp);
    }

    /// Tells the shards to drop runs from memory.
    pub(crate) fn forget(&self, runs: Vec<RunId>) {
        self.send_about(runs, Message::Forget);
    }

    /// Notifies the shards that runs were put aside: their timers are not looked after.
    pub(crate) fn timers_over(&self, runs: Vec<RunId>) {
        self.send_about(runs, Message::PutAside);
    }

    fn send_about(&self, runs: Vec<RunId>, message: fn(Vec<RunId>) -> Message) {
        let mut parts: Vec<Vec<RunId>> = self.shards.iter().map(|_| Vec::new()).collect();
        runs.into_iter().for_each(|run| parts[self.shard_of(run)].push(run));
        for (door, part) in self.shards.iter().zip(parts) {
            if !part.is_empty() {
                // A shard that has ended has nothing in memory.
                let _ = door.inbox.send(message(part));
            }
        }
    }

    /// Tells a shard to read a run in memory.
    pub(crate) fn read(&self, run: RunId, seq: u64, read: Read) {
        let door = &self.shards[self.shard_of(run)];
        // A shard that has ended drops the reader, which notices.
        let _ = door.inbox.send(Message::Read { run, seq, read });
    }

    /// Returns commands that wait in front of each shard.
    pub(crate) fn depths(&self) -> impl Iterator<Item = usize> {
        self.shards.iter().map(|door| door.depth.load(Ordering::Relaxed))
    }

    /// Returns commands that wait in front of all shards.
    pub(crate) fn depth(&self) -> usize {
        self.depths().sum()
    }
}

/// Returns whether a command stops something, or lets it go on: it is accepted regardless of waiting commands, and
/// precedes them. There are never more of them than people and jobs request.
fn stops_things(command: &Command) -> bool {
    matches!(
        command,
        Command::Kill { .. }
            | Command::Cancel { .. }
            | Command::Hold { .. }
            | Command::Unhold { .. }
            | Command::FromParent { .. }
    )
}
