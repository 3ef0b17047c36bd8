//! An index of filters: an event asks only those that could want it.
//!
//! Each filter is listed under the keys of one of its members, the one whose lists are shortest. An event has few keys
//! of its own, and looks nowhere else. So filters that want nothing of an event cost nothing, unless they agree with it
//! in the member that they are listed under; filters that want everything are asked each time.

use std::collections::HashMap;

use super::filter::{Facts, Filter, TypePattern, Verdict};
use crate::document::Pointer;

/// Filters with their ids.
#[derive(Debug, Default)]
pub struct Index {
    filters: HashMap<u64, (Filter, Vec<Key>)>,
    lists: HashMap<Key, Vec<u64>>,
}

/// Key of a list of filters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Label(String, String),
    Source(String),
    Type(String),
    Prefix(String),
    Op(&'static str),
    /// A place that a filter names.
    Place(Pointer),
    /// A place that contains one that a filter names.
    Above(Pointer),
    /// Nothing that could be looked up.
    Everything,
}

impl Index {
    /// Returns the number of filters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filters.len()
    }

    /// Returns whether there is no filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Adds a filter, or replaces the one with this id.
    pub fn insert(&mut self, id: u64, filter: Filter) {
        self.remove(id);
        // Few events change a whole object above the places of filters, and those that do want most filters there.
        let length = |key: &Key| match key {
            Key::Above(_) => 0,
            key => self.lists.get(key).map_or(0, Vec::len),
        };
        let choices = choices(&filter).into_iter();
        let keys = choices
            .min_by_key(|keys| keys.iter().map(length).max().unwrap_or_default())
            .unwrap_or_else(|| vec![Key::Everything]);
        for key in &keys {
            self.lists.entry(key.clone()).or_default().push(id);
        }
        self.filters.insert(id, (filter, keys));
    }

    /// Removes the filter with this id.
    pub fn remove(&mut self, id: u64) {
        let Some((_, keys)) = self.filters.remove(&id) else { return };
        for key in keys {
            if let Some(list) = self.lists.get_mut(&key) {
                list.retain(|listed| *listed != id);
                if list.is_empty() {
                    self.lists.remove(&key);
                }
            }
        }
    }

    /// Returns the filters that want an event, and those that would if it were trusted more, in the order of their ids.
    #[must_use]
    pub fn matches(&self, facts: &Facts<'_>) -> Vec<(u64, Verdict)> {
        let asked = self.candidates(facts);
        let verdicts = asked.into_iter().filter_map(|id| {
            let (filter, _) = self.filters.get(&id)?;
            Some((id, filter.matches(facts)))
        });
        verdicts.filter(|(_, verdict)| *verdict != Verdict::NoMatch).collect()
    }

    /// Returns the filters that an event asks, in the order of their ids.
    #[must_use]
    pub fn candidates(&self, facts: &Facts<'_>) -> Vec<u64> {
        let mut found = Vec::new();
        let mut look = |key: &Key| {
            if let Some(list) = self.lists.get(key) {
                found.extend_from_slice(list);
            }
        };
        look(&Key::Everything);
        look(&Key::Source(facts.source.to_owned()));
        look(&Key::Type(facts.event_type.to_owned()));
        for (at, _) in facts.event_type.match_indices('.') {
            look(&Key::Prefix(facts.event_type.get(..=at).unwrap_or_default().to_owned()));
        }
        if let Some(op) = facts.op {
            look(&Key::Op(op.letter()));
        }
        for (name, value) in facts.labels {
            look(&Key::Label(name.clone(), value.clone()));
        }
        for place in facts.changed {
            look(&Key::Above(place.clone()));
            for above in ancestors(place) {
                look(&Key::Place(above));
            }
            look(&Key::Place(place.clone()));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Returns the places that contain `place`, without itself.
fn ancestors(place: &Pointer) -> impl Iterator<Item = Pointer> + '_ {
    (0..place.tokens().len()).map(|count| place.first(count))
}

/// Returns the keys of each member by which a filter could be found. Of labels one is enough, so each is a choice.
fn choices(filter: &Filter) -> Vec<Vec<Key>> {
    let document = &filter.document;
    let labels =
        document.labels.iter().map(|(name, value)| vec![Key::Label(name.clone(), value.clone())]);
    let mut choices: Vec<Vec<Key>> = labels.collect();
    choices.push(document.sources.iter().cloned().map(Key::Source).collect());
    let types: Option<Vec<Key>> = filter
        .types
        .iter()
        .map(|pattern| match pattern {
            TypePattern::Any => None,
            TypePattern::Exact(name) => Some(Key::Type(name.clone())),
            TypePattern::Prefix(prefix) => Some(Key::Prefix(prefix.clone())),
        })
        .collect();
    choices.extend(types);
    let places = document
        .changed_any
        .iter()
        .flat_map(|place| ancestors(place).map(Key::Above).chain([Key::Place(place.clone())]));
    let mut places: Vec<Key> = places.collect();
    places.sort_by_cached_key(|key| format!("{key:?}"));
    places.dedup();
    choices.push(places);
    choices.push(document.ops.iter().map(|op| Key::Op(op.letter())).collect());
    choices.retain(|keys| !keys.is_empty());
    choices
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::events::{FilterDocument, Op, Trust};

    fn filter(text: &str) -> Filter {
        let document: FilterDocument = serde_json::from_str(text).unwrap();
        Filter::new(document).unwrap()
    }

    /// Returns an event that updates the address of a customer.
    fn asked<T>(ask: impl FnOnce(&Facts<'_>) -> T) -> T {
        let labels = BTreeMap::from([("region".to_owned(), "eu".to_owned())]);
        let changed = [Pointer::parse("/address/city").unwrap(), Pointer::parse("/tags").unwrap()];
        ask(&Facts {
            event_type: "customer.address.updated",
            op: Some(Op::Updated),
            changed: &changed,
            labels: &labels,
            source: "crm",
            trust: Trust::Authenticated,
        })
    }

    #[test]
    fn each_member_of_a_filter_says_what_it_wants() {
        use Verdict::{Match, NoMatch, TrustBelowMinimum};
        for (text, expected) in [
            ("{}", Match),
            (r#"{"types":["customer.address.updated"]}"#, Match),
            (r#"{"types":["customer.*"]}"#, Match),
            (r#"{"types":["customer.address.*"]}"#, Match),
            (r#"{"types":["customer.address.updated.*"]}"#, NoMatch),
            (r#"{"types":["custom.*"]}"#, NoMatch),
            (r#"{"types":["order.*","*"]}"#, Match),
            (r#"{"ops":["C","D"]}"#, NoMatch),
            (r#"{"ops":["U"]}"#, Match),
            (r#"{"changed_any":["/address"]}"#, Match),
            (r#"{"changed_any":["/address/city/name"]}"#, Match),
            (r#"{"changed_any":["/address/street"]}"#, NoMatch),
            (r#"{"changed_any":["/addr"]}"#, NoMatch),
            (r#"{"changed_any":["/email","/tags"]}"#, Match),
            (r#"{"labels":{"region":"eu"}}"#, Match),
            (r#"{"labels":{"region":"us"}}"#, NoMatch),
            (r#"{"labels":{"region":"eu","tier":"a"}}"#, NoMatch),
            (r#"{"sources":["crm","erp"]}"#, Match),
            (r#"{"source_not":["crm"]}"#, NoMatch),
            (r#"{"source_not":["erp"]}"#, Match),
            (r#"{"min_trust":"authenticated"}"#, Match),
            (r#"{"min_trust":"signed"}"#, TrustBelowMinimum),
            (r#"{"min_trust":"signed","ops":["C"]}"#, NoMatch),
        ] {
            assert_eq!(asked(|facts| filter(text).matches(facts)), expected, "{text}");
            let mut index = Index::default();
            index.insert(7, filter(text));
            let found = asked(|facts| index.matches(facts));
            let expected = if expected == NoMatch { vec![] } else { vec![(7, expected)] };
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_filter_that_is_not_one_is_refused() {
        for (text, place, code) in [
            (r#"{"types":["cust*mer"]}"#, "/types", "filter_not_valid"),
            (r#"{"types":[".*"]}"#, "/types", "filter_not_valid"),
            (r#"{"types":[""]}"#, "/types", "filter_not_valid"),
            (r#"{"labels":{"":"x"}}"#, "/labels", "filter_not_valid"),
            (r#"{"sources":["a"],"source_not":["a"]}"#, "/source_not", "filter_never_matches"),
        ] {
            let document: FilterDocument = serde_json::from_str(text).unwrap();
            let wrong = Filter::new(document).unwrap_err();
            assert_eq!(
                (wrong[0].pointer.as_str(), wrong[0].code.as_str()),
                (place, code),
                "{text}"
            );
        }
        assert!(serde_json::from_str::<FilterDocument>(r#"{"typs":[]}"#).is_err());
        let many =
            FilterDocument { sources: vec!["a".to_owned(); 101], ..FilterDocument::default() };
        assert!(Filter::new(many).is_err());
    }

    #[test]
    fn ten_thousand_filters_that_want_nothing_of_an_event_are_not_asked() {
        let mut index = Index::default();
        for id in 0..10_000_u64 {
            // All agree with the event in most members, and in one they do not.
            index.insert(id, filter(&match id % 5 {
                0 => format!(r#"{{"types":["customer.*"],"ops":["U"],"labels":{{"region":"eu","tenant":"t{id}"}}}}"#),
                1 => format!(r#"{{"types":["customer.*"],"sources":["s{id}"],"ops":["U"]}}"#),
                2 => format!(r#"{{"types":["customer.address.updated{id}"],"sources":["crm"]}}"#),
                3 => format!(r#"{{"types":["*"],"changed_any":["/address/zone{id}"],"ops":["U"]}}"#),
                _ => format!(r#"{{"types":["c{id}.*"],"labels":{{"region":"eu"}}}}"#),
            }));
        }
        // The first few of each kind were listed where the lists were still short.
        let candidates = asked(|facts| index.candidates(facts)).len();
        assert!(candidates <= 20, "{candidates}");
        assert_eq!(asked(|facts| index.matches(facts)), []);
        index.insert(10_000, filter(r#"{"types":["customer.*"],"min_trust":"signed"}"#));
        assert_eq!(asked(|facts| index.matches(facts)), [(10_000, Verdict::TrustBelowMinimum)]);
        for id in 0..=10_000 {
            index.remove(id);
        }
        assert!(index.is_empty() && index.lists.is_empty());
    }

    fn filters() -> impl Strategy<Value = FilterDocument> {
        let some = |texts: &[&str]| {
            prop::sample::subsequence(
                texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(),
                0..3,
            )
        };
        (
            some(&[
                "customer.*",
                "customer.address.*",
                "order.placed",
                "*",
                "customer.address.updated",
            ]),
            prop::sample::subsequence(vec![Op::Created, Op::Updated], 0..2),
            some(&["/address", "/address/city", "/tags/0", "/email", ""]),
            some(&["crm", "erp"]),
            prop::option::of(prop::sample::select(vec!["eu", "us"])),
        )
            .prop_map(|(types, ops, places, sources, region)| FilterDocument {
                types,
                ops,
                changed_any: places.iter().map(|place| Pointer::parse(place).unwrap()).collect(),
                sources,
                labels: region
                    .map(|region| ("region".to_owned(), region.to_owned()))
                    .into_iter()
                    .collect(),
                ..FilterDocument::default()
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_index_finds_what_asking_every_filter_finds(documents in proptest::collection::vec(filters(), 0..40)) {
            let filters: Vec<Filter> = documents.into_iter().map(|one| Filter::new(one).unwrap()).collect();
            let mut index = Index::default();
            for (id, filter) in (0_u64..).zip(&filters) {
                index.insert(id, filter.clone());
            }
            let expected: Vec<(u64, Verdict)> = asked(|facts| {
                let all = (0_u64..).zip(&filters).map(|(id, filter)| (id, filter.matches(facts)));
                all.filter(|(_, verdict)| *verdict != Verdict::NoMatch).collect()
            });
            prop_assert_eq!(asked(|facts| index.matches(facts)), expected);
        }
    }
}
