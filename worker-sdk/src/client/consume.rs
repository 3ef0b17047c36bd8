//! Reading the log batch by batch, with a position that the reader keeps or a cursor that the server does.

use std::time::Duration;

use backstitch_saga::Span;
use backstitch_saga::protocol::{CursorView, EventPage, EventView, MoveCursor};
use reqwest::Method;

use super::{ANSWER_WITHIN, Client, ClientError, read};

/// Longest wait for a batch.
const WAIT: Duration = Duration::from_secs(20);
/// Largest number of events in a batch, unless the reader sets another.
const EVENTS: u32 = 500;

/// Events that follow each other in the log, of those that a reader wants.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The events, in the order of their positions. None when nothing came while it was waited for.
    pub events: Vec<EventView>,
    /// The position up to which the log was searched: the place to go on.
    pub position: u64,
    /// The last position of the log.
    pub head: u64,
}

/// Reads the log from a position on: see [`Client::log_after`].
#[derive(Clone, Debug)]
#[must_use = "it reads when `next` is called"]
pub struct LogReader {
    client: Client,
    position: u64,
    filter: Vec<(&'static str, String)>,
    limit: u32,
    wait: Duration,
}

impl LogReader {
    /// Reads only events of this type; `order.*` for all types that begin with `order.`.
    pub fn event_type(mut self, event_type: impl Into<String>) -> LogReader {
        self.filter.push(("type", event_type.into()));
        self
    }

    /// Reads only events of this stream.
    pub fn stream(mut self, stream: impl Into<String>) -> LogReader {
        self.filter.push(("stream", stream.into()));
        self
    }

    /// Reads at most so many events in a batch, 1 to 1,000; 500 without it.
    pub fn limit(mut self, events: u32) -> LogReader {
        self.limit = events;
        self
    }

    /// Sets the longest wait for a batch, at most 30 s; 20 s by default.
    pub fn wait(mut self, wait: Duration) -> LogReader {
        self.wait = wait;
        self
    }

    /// Returns the position after which it goes on.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Reads the next events, waiting for the first of them. The next call goes on after them.
    ///
    /// # Errors
    /// A problem `position_past_retention` with `oldest_position`.
    pub async fn next(&mut self) -> Result<Batch, ClientError> {
        let path = self.client.place(&["events"]);
        let query = [
            ("after", self.position.to_string()),
            ("limit", self.limit.to_string()),
            ("wait", Span::from(self.wait).to_string()),
        ];
        let request = self.client.get(&path)?.query(&query).query(&self.filter);
        let request = request.timeout(ANSWER_WITHIN + self.wait);
        let page: EventPage = read(self.client.send(request).await?)?;
        self.position = page.next;
        Ok(Batch { events: page.items, position: page.next, head: page.head })
    }
}

/// Reads the log from a cursor on that the server keeps: see [`Client::consumer`].
#[derive(Clone, Debug)]
pub struct Consumer {
    name: String,
    reader: LogReader,
    /// Position of the cursor; `None` if it does not exist.
    committed: Option<u64>,
}

impl Consumer {
    /// Says what it reads: `consumer.reads(|log| log.event_type("order.*"))`.
    #[must_use]
    pub fn reads(mut self, change: impl FnOnce(LogReader) -> LogReader) -> Consumer {
        self.reader = change(self.reader);
        self
    }

    /// Reads the next events, and waits for the first of them. Those of before come again, after a restart, unless they
    /// were committed.
    ///
    /// # Errors
    /// A problem `position_past_retention` with `oldest_position`.
    pub async fn next(&mut self) -> Result<Batch, ClientError> {
        self.reader.next().await
    }

    /// Moves the cursor behind a batch that was processed.
    ///
    /// # Errors
    /// A problem `cursor_conflict` when another consumer moved it: what this one has done since is done twice. It goes
    /// on from the cursor after [`Consumer::reload`].
    pub async fn commit(&mut self, batch: &Batch) -> Result<(), ClientError> {
        if self.committed == Some(batch.position) {
            return Ok(());
        }
        let moved = MoveCursor { position: batch.position, expected: self.committed };
        let cursor = self.reader.client.move_cursor(&self.name, &moved).await?;
        self.committed = Some(cursor.position);
        Ok(())
    }

    /// Goes on from where the cursor is.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn reload(&mut self) -> Result<(), ClientError> {
        self.committed = self.reader.client.cursor_position(&self.name).await?;
        self.reader.position = self.committed.unwrap_or(0);
        Ok(())
    }

    /// Returns the position up to which it has committed.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed.unwrap_or(0)
    }
}

impl Client {
    /// Reads the log after a position that the reader keeps, 0 for all of it. An application that stores what it makes
    /// of events stores [`Batch::position`] with it, in the same transaction: then each event counts once, whatever
    /// dies.
    pub fn log_after(&self, position: u64) -> LogReader {
        LogReader { client: self.clone(), position, filter: Vec::new(), limit: EVENTS, wait: WAIT }
    }

    /// Reads the log from the cursor `name` on, or from its beginning when there is none yet. Each event comes at least
    /// once: it comes again when the consumer dies before it commits.
    ///
    /// # Errors
    /// A [`ClientError`].
    pub async fn consumer(&self, name: &str) -> Result<Consumer, ClientError> {
        let reader = self.log_after(0);
        let mut consumer = Consumer { name: name.to_owned(), reader, committed: None };
        consumer.reload().await?;
        Ok(consumer)
    }

    /// Moves a cursor that is where it is thought to be, or creates it.
    ///
    /// # Errors
    /// A problem `cursor_conflict` or `unknown_cursor`.
    pub async fn move_cursor(
        &self,
        name: &str,
        moved: &MoveCursor,
    ) -> Result<CursorView, ClientError> {
        let path = self.place(&["cursors", name]);
        read(self.send(self.request(Method::PUT, &path)?.json(moved)).await?)
    }

    /// Returns the position of a cursor; `None` when there is none of the name.
    async fn cursor_position(&self, name: &str) -> Result<Option<u64>, ClientError> {
        let found = self.read_from::<CursorView>(&self.place(&["cursors", name])).await;
        match found {
            Ok(cursor) => Ok(Some(cursor.position)),
            Err(error) if error.code() == Some("unknown_cursor") => Ok(None),
            Err(error) => Err(error),
        }
    }
}
