//! Which JSON every caller's parser takes. Code chooses the text of its result, and a text that only some
//! parsers take would break the others on the whole answer.

use std::{collections::HashSet, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

/// How deep arrays and objects may nest. Some parsers take 64 levels, of which an answer needs a few
/// around it.
const DEPTH: usize = 48;
/// Longest number in characters. Some parsers convert no longer ones.
const NUMBER_CHARS: usize = 1024;

/// Whether a text is JSON without anything that a strict parser refuses: deep nesting, numbers that are
/// not finite as 64-bit floats, half surrogate pairs, two fields of one name.
#[must_use]
pub fn is_json(text: &str) -> bool {
    let mut parser = serde_json::Deserializer::from_str(text);
    let read = Strict { left: DEPTH }.deserialize(&mut parser);
    read.is_ok() && parser.end().is_ok() && has_short_numbers(text)
}

/// Whether no number of this JSON is too long.
fn has_short_numbers(json: &str) -> bool {
    if json.len() <= NUMBER_CHARS {
        return true;
    }
    let (mut in_text, mut escaped, mut run) = (false, false, 0);
    json.bytes().all(|byte| {
        run = match byte {
            _ if in_text => 0,
            b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E' => run + 1,
            _ => 0,
        };
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            _ => {}
        }
        run <= NUMBER_CHARS
    })
}

/// Reads a value with so many levels left, and keeps nothing of it.
#[derive(Clone, Copy)]
struct Strict {
    left: usize,
}

impl Strict {
    fn below<E: Error>(self) -> Result<Self, E> {
        let left = self.left.checked_sub(1);
        left.map(|left| Self { left })
            .ok_or_else(|| E::custom("nested too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON that every parser takes")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        let finite = number.is_finite();
        finite.then_some(()).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let below = self.below()?;
        while items.next_element_seed(below)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let below = self.below()?;
        let mut names = HashSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("two fields of one name"));
            }
            fields.next_value_seed(below)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn plain_json_is_taken() {
        for text in [
            "42",
            "-0.0",
            "1e308",
            "1e-999",
            "123456789012345678901234567890",
            " [1, {\"a\": null, \"b\": [true]}] ",
            "\"\\ud83d\\ude00\"",
            &nested(DEPTH),
            &format!("[\"\\\"{}\", 1]", "0".repeat(NUMBER_CHARS * 2)),
        ] {
            assert!(is_json(text), "{text}");
        }
    }

    #[test]
    fn what_some_parsers_refuse_is_not() {
        for text in [
            "",
            "nan",
            "NaN",
            "Infinity",
            "1e999",
            "-1e999",
            "[1, 1e400]",
            &"9".repeat(400),
            &format!("0.{}1", "0".repeat(5000)),
            &format!("[\"\\\\\", 0.{}1]", "0".repeat(5000)),
            "\"\\ud800\"",
            "{\"\\udc00\": 1}",
            "{\"a\": 1, \"a\": 2}",
            "{\"a\": 1, \"\\u0061\": 2}",
            "[{\"b\": {\"a\": 1, \"a\": 2}}]",
            &nested(DEPTH + 1),
            &nested(60_000),
            "1 2",
            "[1,]",
        ] {
            assert!(!is_json(text), "{}", text.get(..80).unwrap_or(text));
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_parses(text in "[\\[\\]{}:,\"0-9eE.+\\- a-c\\\\u]{0,24}") {
            if is_json(&text) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            }
        }
    }
}
