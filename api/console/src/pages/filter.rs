//! Lists with a search: the filter in the address, the request that it becomes, and the link to the next page.

use super::runs::query;
use crate::ask::Ask;

/// Filter of a list, as in the address of the page.
pub(crate) struct Filter {
    pairs: Vec<(String, String)>,
    after: Option<String>,
}

impl Filter {
    /// Returns the filter of a page whose `parameters` are those of the API by the same names.
    pub(crate) fn of(ask: &Ask, parameters: &[&str]) -> Filter {
        let known = |(name, value): &&(String, String)| {
            parameters.contains(&name.as_str()) && !value.is_empty()
        };
        let pairs = ask.query.iter().filter(known).cloned().collect();
        Filter { pairs, after: ask.param("after").map(str::to_owned) }
    }

    /// Returns the same with these names alone.
    pub(crate) fn kept(&self, names: &[&str]) -> Filter {
        let kept = self.pairs.iter().filter(|(name, _)| names.contains(&name.as_str()));
        Filter { pairs: kept.cloned().collect(), after: self.after.clone() }
    }

    /// Returns the same from the beginning of the list.
    pub(crate) fn first(self) -> Filter {
        Filter { after: None, ..self }
    }

    /// Returns the place in the list alone.
    pub(crate) fn only_after(&self) -> Filter {
        self.kept(&[])
    }

    /// Returns the value of `name` in the filter; empty if there is none.
    pub(crate) fn value(&self, name: &str) -> &str {
        let found = self.pairs.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Returns the query of another page that is searched by the same.
    pub(crate) fn query(&self) -> String {
        query(&self.pairs)
    }

    /// Returns the query of a request, with what holds where nothing else is asked for.
    pub(crate) fn asked(&self, otherwise: &[(&str, &str)]) -> String {
        let mut pairs = self.pairs.clone();
        let missing = otherwise.iter().filter(|(name, _)| self.value(name).is_empty());
        pairs.extend(missing.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        pairs.extend(self.after.iter().map(|after| ("after".to_owned(), after.clone())));
        query(&pairs)
    }

    /// Returns the address of the part of `page` that follows, if `next` is its cursor.
    pub(crate) fn next(&self, page: &str, next: Option<String>) -> Option<String> {
        next.map(|next| {
            let mut pairs = self.pairs.clone();
            pairs.push(("after".to_owned(), next));
            format!("{page}?{}", query(&pairs))
        })
    }
}
