//! The members of a JSON object as they stand in its text.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Members of an object in the order in which they were written, those that stand twice included.
#[derive(Debug)]
pub struct WrittenMembers(pub Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for WrittenMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WrittenMembers, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = WrittenMembers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WrittenMembers, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(WrittenMembers(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_those_that_stand_twice() {
        let text = r#"{"b":1,"a":{"x": 2},"b":3}"#;
        let WrittenMembers(members) = serde_json::from_str(text).unwrap();
        let members: Vec<(&str, &str)> =
            members.iter().map(|(name, value)| (name.as_str(), value.get())).collect();
        assert_eq!(members, [("b", "1"), ("a", r#"{"x": 2}"#), ("b", "3")]);
        assert!(serde_json::from_str::<WrittenMembers>("[]").is_err());
    }
}
