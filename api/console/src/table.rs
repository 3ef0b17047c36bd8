//! Pages that are lists and facts: tables with what can be done about each line, filters, and the way to what follows.
//! One home for what lists have in common.

use std::borrow::Borrow;

use askama::Template;
use backstitch_saga::Timestamp;
use backstitch_saga::protocol::Page;
use serde::de::DeserializeOwned;

use crate::ask::{Ask, Problem, encoded};
use crate::form::Deed;
use crate::page::{Frame, Shown, ok};
use crate::pages::filter::Filter;
use crate::show::{Badge, instant, moment, number};

/// Content of a cell.
#[derive(Default)]
pub(crate) struct Cell {
    pub(crate) badge: Option<Badge>,
    pub(crate) text: String,
    pub(crate) href: Option<String>,
    /// An instant, and the same for reading.
    pub(crate) at: Option<(String, String)>,
    /// Text below.
    pub(crate) below: String,
    pub(crate) is_number: bool,
    pub(crate) is_code: bool,
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), ..Cell::default() }
    }

    pub(crate) fn link(text: impl Into<String>, href: String) -> Cell {
        Cell { text: text.into(), href: Some(href), ..Cell::default() }
    }

    pub(crate) fn code(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), is_code: true, ..Cell::default() }
    }

    pub(crate) fn number(count: u64) -> Cell {
        Cell { text: number(count), is_number: true, ..Cell::default() }
    }

    pub(crate) fn at(at: Timestamp) -> Cell {
        Cell { at: Some((instant(at), moment(at))), ..Cell::default() }
    }

    pub(crate) fn badge(badge: Badge) -> Cell {
        Cell { badge: Some(badge), ..Cell::default() }
    }

    pub(crate) fn below(self, below: impl Into<String>) -> Cell {
        Cell { below: below.into(), ..self }
    }

    pub(crate) fn with(self, badge: Badge) -> Cell {
        Cell { badge: Some(badge), ..self }
    }
}

/// A line of a table, with what can be done about it.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) cells: Vec<Cell>,
    pub(crate) deeds: Vec<Deed>,
}

impl From<Vec<Cell>> for Row {
    fn from(cells: Vec<Cell>) -> Row {
        Row { cells, deeds: Vec::new() }
    }
}

/// A field that a list is searched by.
pub(crate) struct SearchField {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) value: String,
    pub(crate) choices: Vec<&'static str>,
}

impl SearchField {
    pub(crate) fn new(filter: &Filter, name: &'static str, label: &'static str) -> SearchField {
        SearchField { name, label, value: filter.value(name).to_owned(), choices: Vec::new() }
    }

    pub(crate) fn of(self, choices: &[&'static str]) -> SearchField {
        SearchField { choices: choices.to_vec(), ..self }
    }
}

/// A part of a page: a table under a title, its search, and the text for an empty table.
pub(crate) struct Part {
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    pub(crate) search: Vec<SearchField>,
    /// Labels of the buttons of the search.
    pub(crate) look: &'static str,
    pub(crate) look_at_all: &'static str,
    /// A sentence about the result of the search.
    pub(crate) found: String,
    pub(crate) heads: Vec<&'static str>,
    pub(crate) rows: Vec<Row>,
    pub(crate) empty: &'static str,
    /// The command that makes the first one.
    pub(crate) command: &'static str,
    /// The address of the page that follows.
    pub(crate) next: Option<String>,
    /// A document, instead of a table.
    pub(crate) document: Option<String>,
    pub(crate) deeds: Vec<Deed>,
}

impl Default for Part {
    fn default() -> Part {
        Part {
            title: "",
            about: "",
            search: Vec::new(),
            look: "Search",
            look_at_all: "All",
            found: String::new(),
            heads: Vec::new(),
            rows: Vec::new(),
            empty: "",
            command: "",
            next: None,
            document: None,
            deeds: Vec::new(),
        }
    }
}

impl Part {
    /// Returns whether a column has numbers.
    fn is_number(&self, column: impl Borrow<usize>) -> bool {
        let first = self.rows.first().and_then(|row| row.cells.get(*column.borrow()));
        first.is_some_and(|cell| cell.is_number)
    }

    fn has_deeds(&self) -> bool {
        self.rows.iter().any(|row| !row.deeds.is_empty())
    }
}

/// A page of facts and tables.
#[derive(Template)]
#[template(path = "table.html")]
pub(crate) struct TablePage {
    pub(crate) frame: Frame,
    /// The pages that it is below: name and address.
    pub(crate) crumbs: Vec<(String, String)>,
    /// Pages beside it: name and address.
    pub(crate) tabs: &'static [(&'static str, &'static str)],
    pub(crate) title: String,
    pub(crate) badge: Option<Badge>,
    pub(crate) sentence: String,
    pub(crate) warning: Option<String>,
    pub(crate) facts: Vec<(String, Cell)>,
    pub(crate) deeds: Vec<Deed>,
    pub(crate) parts: Vec<Part>,
    /// The address of the page, for what is searched.
    pub(crate) address: String,
    /// The mark by which changes are noticed; none if it does not change by itself.
    pub(crate) live: Option<u64>,
}

impl TablePage {
    pub(crate) fn new(frame: Frame, title: impl Into<String>) -> TablePage {
        let address = frame.place.split('?').next().unwrap_or_default().to_owned();
        TablePage {
            frame,
            crumbs: Vec::new(),
            tabs: &[],
            title: title.into(),
            badge: None,
            sentence: String::new(),
            warning: None,
            facts: Vec::new(),
            deeds: Vec::new(),
            parts: Vec::new(),
            address,
            live: None,
        }
    }

    pub(crate) fn below(mut self, name: impl Into<String>, href: impl Into<String>) -> TablePage {
        self.crumbs.push((name.into(), href.into()));
        self
    }

    pub(crate) fn fact(&mut self, name: impl Into<String>, cell: Cell) {
        self.facts.push((name.into(), cell));
    }
}

/// A part of a list as the API has it, with the address of the page that shows what follows.
pub(crate) struct Listed<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<String>,
}

impl Ask {
    /// Reads the part of a list that the address of this page asks for, at most `limit`, searched by `filter`.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        limit: u32,
        filter: &Filter,
    ) -> Result<Listed<T>, Problem> {
        let asked = filter.asked(&[]);
        let and = if asked.is_empty() { "" } else { "&" };
        let page: Page<T> = self.get(&format!("{path}?limit={limit}{and}{asked}")).await?;
        let here = self.place.split('?').next().unwrap_or_default();
        Ok(Listed { items: page.items, next: filter.next(here, page.next) })
    }

    /// Shows a page of facts and tables, or why it cannot be shown.
    pub(crate) async fn show(&self, page: Result<TablePage, Problem>) -> Shown {
        match page {
            Ok(page) => ok(&page),
            Err(problem) => Err(self.failed(problem).await),
        }
    }
}

/// Returns the address of a page about a thing of a name.
pub(crate) fn address(page: &str, name: &str) -> String {
    format!("/console/{page}/{}", encoded(name))
}
