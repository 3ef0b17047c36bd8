//! Places at which two bodies differ.

use crate::document::{Pointer, Value};

/// The most places that are listed; with more, the places above them are listed instead.
pub const MOST_CHANGED: usize = 200;

/// Returns the places at which `after` differs from `before`: members that came, went or changed, elements of lists of
/// the same length, and lists whose length changed. Numbers are compared by value.
#[must_use]
pub fn changed(before: &Value, after: &Value) -> Vec<Pointer> {
    // From the finest view to the coarsest, until the list is short enough.
    for depth in [usize::MAX, 3, 2, 1, 0] {
        let mut found = Vec::new();
        collect(before, after, depth, &mut Pointer::default(), &mut found);
        if found.len() <= MOST_CHANGED {
            return found;
        }
    }
    vec![Pointer::default()]
}

fn collect(
    before: &Value,
    after: &Value,
    depth: usize,
    at: &mut Pointer,
    found: &mut Vec<Pointer>,
) {
    if found.len() > MOST_CHANGED {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) if depth > 0 => {
            let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
            for name in names {
                at.push(name);
                match (old.get(name), new.get(name)) {
                    (Some(old), Some(new)) => collect(old, new, depth - 1, at, found),
                    _ => found.push(at.clone()),
                }
                at.pop();
            }
        }
        (Value::Array(old), Value::Array(new)) if depth > 0 && old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                at.push(&index.to_string());
                collect(old, new, depth - 1, at, found);
                at.pop();
            }
        }
        _ if before == after => {}
        _ => found.push(at.clone()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::document::read;

    fn value(text: &str) -> Value {
        read(text.as_bytes(), 1_000_000).unwrap().1
    }

    fn places(before: &str, after: &str) -> String {
        let found = changed(&value(before), &value(after));
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_deepest_places_that_differ_are_listed() {
        for (before, after, expected) in [
            (r#"{"a":1}"#, r#"{"a":1.0}"#, ""),
            (r#"{"a":1,"b":2}"#, r#"{"a":1,"c":2}"#, "/b /c"),
            (r#"{"a":{"b":[1,2,{"c":3}]}}"#, r#"{"a":{"b":[1,2,{"c":4}]}}"#, "/a/b/2/c"),
            (r#"{"a":[1,2]}"#, r#"{"a":[1]}"#, "/a"),
            (r#"{"a":{"b":1}}"#, r#"{"a":7}"#, "/a"),
            (r#"{"a":null}"#, "{}", "/a"),
            ("1", "2", ""),
            (r#"{"a/b":1}"#, r#"{"a/b":2}"#, "/a~1b"),
        ] {
            let expected_count = usize::from(before == "1")
                + expected.split(' ').filter(|one| !one.is_empty()).count();
            assert_eq!(places(before, after), expected);
            assert_eq!(changed(&value(before), &value(after)).len(), expected_count);
        }
    }

    #[test]
    fn too_many_places_are_listed_from_above() {
        let list = |from: u32| {
            let elements: Vec<String> =
                (from..from + 1_000).map(|number| format!(r#"{{"n":{number}}}"#)).collect();
            format!(r#"{{"list":[{}],"other":1}}"#, elements.join(","))
        };
        assert_eq!(places(&list(0), &list(1)), "/list");
        let wide = |value: u8| {
            let members: Vec<String> =
                (0..1_000).map(|index| format!(r#""m{index}":{value}"#)).collect();
            format!("{{{}}}", members.join(","))
        };
        assert_eq!(changed(&value(&wide(0)), &value(&wide(1))), [Pointer::default()]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_changed_if_and_only_if_the_bodies_are_equal(
            one in "[{\\[][1-3\"a:,{}\\[\\]]{0,12}", other in "[{\\[][1-3\"a:,{}\\[\\]]{0,12}",
        ) {
            if let (Ok(one), Ok(other)) = (read(one.as_bytes(), 100), read(other.as_bytes(), 100)) {
                prop_assert_eq!(changed(&one.1, &other.1).is_empty(), one.1 == other.1);
            }
        }
    }
}
