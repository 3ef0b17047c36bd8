//! Work that a server does in the background, a part at a time, as one page: its progress, its author, and its end by a
//! person.

use backstitch_saga::Timestamp;
use serde::de::DeserializeOwned;

use crate::ask::{Ask, Problem};
use crate::form::Deed;
use crate::page::Frame;
use crate::show::Badge;
use crate::table::{Cell, TablePage};

/// A piece of work of any kind, for pages.
pub(super) struct Work<'a> {
    pub(super) badge: Badge,
    /// It is not over.
    pub(super) moves: bool,
    pub(super) waits_for: Option<String>,
    /// Counts, each with its name.
    pub(super) counts: &'a [(&'static str, u64)],
    /// The name of its beginning, and the instant.
    pub(super) begun: (&'static str, Timestamp),
    /// The role and name of its author.
    pub(super) by: Option<(&'static str, String)>,
    pub(super) ended_at: Option<Timestamp>,
    /// The form that stops it while it is not over.
    pub(super) stop: Option<Deed>,
}

impl Work<'_> {
    /// Adds it to a page that is live while the work goes on.
    pub(super) fn told_on(self, mut page: TablePage, mark: u64) -> TablePage {
        page.badge = Some(self.badge);
        page.warning = self.waits_for;
        page.live = self.moves.then_some(mark);
        for (name, count) in self.counts {
            page.fact(*name, Cell::number(*count));
        }
        let (name, at) = self.begun;
        page.fact(name, Cell::at(at));
        page.facts.extend(self.by.map(|(name, by)| (name.to_owned(), Cell::text(by))));
        page.facts.extend(self.ended_at.map(|at| ("Ended".to_owned(), Cell::at(at))));
        page.deeds.extend(self.stop.filter(|_| self.moves));
        page
    }
}

/// Reads one piece of work, with the mark of its changes, and the frame of its page.
pub(super) async fn read<T: DeserializeOwned>(
    ask: &Ask,
    path: &str,
    part: &'static str,
    title: &str,
) -> Result<(T, u64, Frame), Problem> {
    let who = ask.who().await?;
    let (one, mark) = ask.get_live(path).await?;
    Ok((one, mark, Frame::new(ask, who, part, title)))
}
