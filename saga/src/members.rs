//! The members of a JSON object as they are written in its text.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Members of an object in the order in which they were written, duplicates included.
#[derive(Debug)]
pub struct WrittenMembers<V = Box<RawValue>>(pub Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for WrittenMembers<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for InOrder<V> {
            type Value = WrittenMembers<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(WrittenMembers(members))
            }
        }
        deserializer.deserialize_map(InOrder(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_those_that_stand_twice() {
        let text = r#"{"b":1,"a":{"x": 2},"b":3}"#;
        let WrittenMembers::<Box<RawValue>>(members) = serde_json::from_str(text).unwrap();
        let members: Vec<(&str, &str)> =
            members.iter().map(|(name, value)| (name.as_str(), value.get())).collect();
        assert_eq!(members, [("b", "1"), ("a", r#"{"x": 2}"#), ("b", "3")]);
        assert!(serde_json::from_str::<WrittenMembers>("[]").is_err());
    }
}
