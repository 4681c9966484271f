//! What an uploaded file is called. The plain name of a part can hold no more than ASCII by the letter of
//! the standards, and senders get around that in different ways.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What senders of encoded plain names encode.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The name that the sender of a part with these headers and this plain name means.
#[must_use]
pub fn of_part<'a>(headers: &HeaderMap, plain: &'a str) -> Cow<'a, str> {
    match extended(headers) {
        Some(name) => Cow::Owned(name),
        None => decoded(plain),
    }
}

/// The name in its extended form (RFC 8187). .NET sends it beside a plain one that it garbles when it is
/// not ASCII, older senders instead of it. None but UTF-8 is in use.
fn extended(headers: &HeaderMap) -> Option<String> {
    let disposition = headers.get(header::CONTENT_DISPOSITION)?;
    let disposition = std::str::from_utf8(disposition.as_bytes()).ok()?;
    parameters(disposition).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let mut parts = value.trim().splitn(3, '\'');
        let (charset, _language, encoded) = (parts.next()?, parts.next()?, parts.next()?);
        let fits = name.trim().eq_ignore_ascii_case("filename*");
        let decoded = percent_decode_str(encoded).decode_utf8().ok()?;
        (fits && charset.eq_ignore_ascii_case("utf-8")).then(|| decoded.into_owned())
    })
}

/// What stands between the semicolons that are not in quotes.
fn parameters(disposition: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    disposition.split(move |character| {
        let ends = character == ';' && !quoted;
        quoted ^= character == '"' && !escaped;
        escaped = character == '\\' && quoted && !escaped;
        ends
    })
}

/// Some, aiohttp among them, percent-encode what is not plain ASCII (RFC 7578 §2 allows it) and later ask
/// for the name itself. Only a name that is exactly such an encoding is decoded: `100%.txt` or `a%2fb c`
/// are names as they stand.
fn decoded(name: &str) -> Cow<'_, str> {
    let decoded = percent_decode_str(name).decode_utf8();
    match decoded {
        Ok(decoded) if utf8_percent_encode(&decoded, QUOTED).to_string() == name => decoded,
        _ => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(disposition: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(disposition.as_bytes()).unwrap();
        headers.insert(header::CONTENT_DISPOSITION, value);
        extended(&headers)
    }

    #[test]
    fn only_a_name_that_is_an_exact_encoding_is_decoded() {
        for (sent, meant) in [
            ("my%20file%20%C3%A9.txt", "my file é.txt"),
            ("plain.txt", "plain.txt"),
            ("my file.txt", "my file.txt"),
            ("100%.txt", "100%.txt"),
            ("50%20 off", "50%20 off"),
            ("%c3%a9", "%c3%a9"),
            ("%FF", "%FF"),
        ] {
            assert_eq!(decoded(sent), meant);
        }
    }

    #[test]
    fn the_extended_name_is_found_where_it_is_a_parameter() {
        for (disposition, name) in [
            (
                "form-data; name=file; filename=a; filename*=utf-8''%C3%A9.txt",
                Some("é.txt"),
            ),
            (
                "form-data; FileName* = UTF-8'en'a%20b ; name=\"file\"",
                Some("a b"),
            ),
            ("form-data; filename*=utf-8''it's", Some("it's")),
            ("form-data; filename=\"a; filename*=utf-8''b\"", None),
            ("form-data; filename=\"a\\\"; filename*=utf-8''b\"", None),
            (
                "form-data; filename=\"a\\\\\"; filename*=utf-8''b",
                Some("b"),
            ),
            ("form-data; filename*=iso-8859-1''%E9", None),
            ("form-data; filename*=utf-8''%FF", None),
            ("form-data; filename*=b", None),
            (
                "form-data; name=\"filename*=utf-8''b\"; filename=\"é\"",
                None,
            ),
        ] {
            assert_eq!(of(disposition).as_deref(), name, "{disposition}");
        }
    }

    proptest! {
        #[test]
        fn a_name_in_both_forms_is_read_whole(name in "\\PC{1,20}") {
            let encoded = utf8_percent_encode(&name, QUOTED);
            let disposition = format!("form-data; name=file; filename=\"x\"; filename*=utf-8''{encoded}");
            prop_assert_eq!(of(&disposition), Some(name));
        }

        #[test]
        fn any_header_has_a_name_or_none(text in "[ -~é]{0,60}") {
            drop(of(&text));
        }
    }
}
