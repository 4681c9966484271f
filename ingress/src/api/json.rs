//! JSON that callers send, as a tree.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// With its feature `raw_value`, serde_json (1.0.154, `value/de.rs`) parses what stands under this key of a [`Value`]
/// once more, on the same stack and as deep as it allows anew.
const PARSED_AGAIN: &str = "$serde_json::private::RawValue";

/// Any JSON whose depth is bounded by its parser, whatever its keys are.
#[derive(Debug)]
pub struct Tree(pub Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor).map(Self)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = vec![];
        while let Some(Tree(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if name == PARSED_AGAIN {
                return Err(A::Error::custom(format!("`{name}` is no name for a field")));
            }
            let Tree(value) = fields.next_value()?;
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(text: &str) -> Result<Value, String> {
        let parsed = serde_json::from_str::<Tree>(text);
        parsed
            .map(|Tree(value)| value)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_in_a_body_is_parsed_a_second_time() {
        let hidden = format!(r#"[{{"{PARSED_AGAIN}": "1"}}]"#);
        assert!(
            tree(&hidden)
                .unwrap_err()
                .contains("is no name for a field")
        );
        // However it is written.
        let escaped = hidden.replace('$', r"\u0024");
        assert!(tree(&escaped).is_err());
        let text = format!(r#"["{PARSED_AGAIN}"]"#);
        assert!(tree(&text).is_ok(), "as a text it is one");
    }

    #[test]
    fn a_body_is_as_deep_as_the_parser_lets_it_be() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(tree(&nested(127)).is_ok());
        assert!(tree(&nested(128)).unwrap_err().contains("recursion limit"));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e300..1e300).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((".{0,4}", inner), 0..5)
                    .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_what_serde_json_makes_of_it(value in json()) {
            let text = value.to_string();
            prop_assert_eq!(tree(&text).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
        }
    }
}
