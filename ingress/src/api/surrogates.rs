//! Halves of surrogate pairs in JSON. Some languages keep them in their texts and write them as `\\ud83d`; they
//! stand for no character, and no UTF-8 can hold them. A parser's own words for them are hard to understand.

use std::fmt;

/// A half without its other half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lone {
    /// As it is written.
    written: String,
    /// Where it begins, counted from 1.
    pub line: usize,
    /// In bytes, counted from 1.
    pub column: usize,
}

impl fmt::Display for Lone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            written,
            line,
            column,
        } = self;
        write!(
            f,
            "the body has a lone surrogate, `{written}`, at line {line} column {column}: it is half of a \
             character, and text is made of whole ones"
        )
    }
}

/// The first one in a JSON text, as an escape or as bytes that only look like UTF-8.
#[must_use]
pub fn first_lone(json: &[u8]) -> Option<Lone> {
    let (mut at, mut in_text) = (0, false);
    while let Some(rest) = json.get(at..).filter(|rest| !rest.is_empty()) {
        let length = match rest {
            [b'"', ..] => {
                in_text = !in_text;
                1
            }
            [b'\\', b'u', ..] if in_text => {
                let half = escape(rest);
                let other = rest.get(6..).and_then(escape);
                match (half, other) {
                    (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
                    (Some(0xd800..=0xdfff), _) => {
                        let written = rest.get(..6).unwrap_or_default();
                        return Some(found(
                            json,
                            at,
                            String::from_utf8_lossy(written).into_owned(),
                        ));
                    }
                    _ => 2,
                }
            }
            [b'\\', _, ..] if in_text => 2,
            [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
                let written = format!("ED {second:02X} {third:02X}");
                return Some(found(json, at, written));
            }
            _ => 1,
        };
        at += length;
    }
    None
}

/// The code unit of the escape that a text begins with.
fn escape(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok()?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u16::from_str_radix(digits, 16).ok())?
}

fn found(json: &[u8], at: usize, written: String) -> Lone {
    let before = json.get(..at).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count();
    let column = before.iter().rev().take_while(|byte| **byte != b'\n');
    Lone {
        written,
        line: line + 1,
        column: column.count() + 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first(json: &[u8]) -> Option<(String, usize, usize)> {
        first_lone(json).map(|lone| (lone.written, lone.line, lone.column))
    }

    #[test]
    fn a_half_is_found_where_it_stands() {
        for (json, written, line, column) in [
            (&b"\"\\ud800\""[..], "\\ud800", 1, 2),
            (b"{\n\"a\": \"b\\uDFFF\"}", "\\uDFFF", 2, 8),
            (b"\"\\ud83d\\ud83d\\ude00\"", "\\ud83d", 1, 2),
            (b"\"\\ud83d\\ude00\\ude00\"", "\\ude00", 1, 14),
            (b"\"\xed\xb0\x80\"", "ED B0 80", 1, 2),
            (b"\"\\\\\\ud800\"", "\\ud800", 1, 4),
        ] {
            let found = (written.to_owned(), line, column);
            assert_eq!(first(json), Some(found), "{}", json.escape_ascii());
        }
    }

    #[test]
    fn whole_characters_and_other_texts_have_none() {
        for json in [
            &b"\"\\ud83d\\ude00\""[..],
            b"\"\\\\ud800\"",
            b"\\ud800",
            b"\"\\u00e9\xc3\xa9\xed\x9f\xbf\"",
            b"\"\\ud8",
            b"\"\\u+123\"",
            b"",
        ] {
            assert_eq!(first(json), None, "{}", json.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn what_parses_has_none(text in "\\PC{0,20}") {
            let json = serde_json::to_vec(&text).unwrap();
            prop_assert_eq!(first_lone(&json), None);
        }

        #[test]
        fn any_bytes_are_looked_through(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _any = first_lone(&bytes);
        }
    }
}
