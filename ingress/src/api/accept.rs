//! What a caller accepts (RFC 9110 §12.5.1): an answer in one piece, or as it happens.

use std::cmp::Ordering;

use axum::http::{HeaderMap, header};

use crate::headers::split_unquoted;

/// Type of answers as they happen.
pub const EVENT_STREAM: &str = "text/event-stream";
/// Type of all others.
const JSON: &str = "application/json";
/// The weight of what has none.
const FULL: u16 = 1000;

/// How much a caller wants a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Preference {
    /// In thousandths; 0 is not acceptable.
    weight: u16,
    /// The type is named, not only a range that it is in.
    named: bool,
}

/// Whether the caller prefers events. Of two types that are as welcome as each other events are sent to who
/// names them: none but those who can read them do. Who accepts neither gets JSON, as who says nothing.
#[must_use]
pub fn prefers_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter();
    let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    let (events, json) = (preference(&values, EVENT_STREAM), preference(&values, JSON));
    if events.weight == 0 {
        return false;
    }
    match events.weight.cmp(&json.weight) {
        Ordering::Less => false,
        Ordering::Equal => events.named,
        // A wildcard alone never changes what an answer looks like for who takes JSON as well.
        Ordering::Greater => events.named || json.weight == 0,
    }
}

/// That of the most specific range that the type is in, the highest of several.
fn preference(values: &[&str], kind: &str) -> Preference {
    let group = kind.split('/').next().unwrap_or_default();
    let ranges = values.iter().flat_map(|value| split_unquoted(value, ','));
    let fitting = ranges.filter_map(|range| {
        let mut parts = split_unquoted(range, ';');
        let own = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let specificity = match own.split_once('/') {
            Some(_) if own == kind => 2,
            Some((own_group, "*")) if own_group == group => 1,
            Some(("*", "*")) => 0,
            _ => return None,
        };
        Some((specificity, weight(parts)?))
    });
    fitting
        .max()
        .map_or_else(Preference::default, |(specificity, weight)| Preference {
            weight,
            named: specificity == 2,
        })
}

/// The weight among a range's parameters; none if it is no weight.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a str>) -> Option<u16> {
    let weight = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
    });
    let Some(weight) = weight else {
        return Some(FULL);
    };
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = fraction.bytes().all(|digit| digit.is_ascii_digit());
    if !digits || weight == "." {
        return None;
    }
    match whole {
        "1" if fraction.bytes().all(|digit| digit == b'0') => Some(FULL),
        // Java writes `.2`. What is less than a thousandth still is not 0.
        "0" | "" if !weight.is_empty() => {
            let thousandths = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
            let more = fraction.bytes().any(|digit| digit != b'0');
            Some(if more { u16::max(thousandths, 1) } else { 0 })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefers(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT, value.parse().unwrap());
        }
        prefers_events(&headers)
    }

    #[test]
    fn events_are_for_who_prefers_them_or_names_them_as_welcome() {
        for accept in [
            "text/event-stream",
            "Text/Event-Stream; q=1",
            "text/event-stream;q=0.001",
            "text/event-stream;charset=utf-8",
            "text/event-stream; Q=0.5",
            "text/event-stream,",
            "application/json;q=0.1, Text/Event-Stream; q=1",
            "application/json, text/event-stream",
            "text/event-stream, */*",
            "*/*;q=0.5, text/event-stream;q=0.8",
            "application/*;q=0.2, text/event-stream;q=0.3",
            "text/plain, text/event-stream;q=0.1",
            "text/*",
            "application/json;q=0, */*",
            "text/event-stream;x=\"a,b;q=0\"",
            "text/*;q=0, text/event-stream",
        ] {
            assert!(prefers(&[accept]), "{accept}");
        }
        assert!(prefers(&["application/json;q=0.5", "text/event-stream"]));
    }

    #[test]
    fn json_is_for_all_others() {
        for accept in [
            "",
            "*/*",
            "application/json",
            "text/event-stream;q=0",
            "text/event-stream;q=0.000",
            "text/event-stream; q = 0 , */*",
            "text/event-stream;q=0, text/*",
            "text/event-stream;charset=utf-8;q=0",
            "text/event-stream;q=0.5, application/json",
            "text/event-stream;q=0.5, */*",
            "text/event-stream;q=0.5, application/*;q=0.9",
            "text/*, */*;q=0.1",
            "text/*;q=0.9, */*;q=0.8",
            "text/html, image/gif, *; q=.2, */*; q=.2",
            "image/png",
            "text/event-streams",
            "text/event-stream;q=x",
            "text/event-stream;q=2",
            "text/event-stream;q=-1",
            "text/event-stream;q=",
            "application/json;x=\", text/event-stream\"",
        ] {
            assert!(!prefers(&[accept]), "{accept}");
        }
        assert!(!prefers(&[]));
        assert!(!prefers(&["text/event-stream;q=0", "application/json"]));
    }

    #[test]
    fn weights_are_thousandths() {
        let of = |text| weight([text].into_iter());
        for (text, expected) in [
            ("q=1", Some(1000)),
            ("q=1.000", Some(1000)),
            ("q=0.8", Some(800)),
            ("q=0.123", Some(123)),
            ("q=.2", Some(200)),
            ("q=0.0009", Some(1)),
            ("q=0", Some(0)),
            ("q=0.", Some(0)),
            ("x=5", Some(1000)),
            ("q=1.001", None),
            ("q=.", None),
            ("q=0.5x", None),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read(text in "[ -~]{0,60}") {
            let _either = prefers(&[&text]);
        }
    }
}
