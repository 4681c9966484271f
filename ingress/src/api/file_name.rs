//! What an uploaded file is called, and under which names it may have been stored by senders that were not
//! understood. The plain name of a part can hold no more than ASCII by the letter of the standards, and
//! senders get around that in different ways; none of them says which.

use axum::http::{HeaderMap, HeaderValue, header};
use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::link::UNRESERVED;
use crate::{error::ApiError, headers::split_unquoted};

/// What aiohttp calls itself, before its version.
const AIOHTTP: &str = "aiohttp/";

/// Why the file of a part has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Bytes that are no UTF-8.
    #[error("the file name is not UTF-8 text")]
    NotText,
    /// Who looked at the name on its way saw one file, and another would be written.
    #[error(
        "the file name holds an encoded `/`: name the directory in the query parameter `path`, or send \
         the name unencoded (in aiohttp: `FormData(quote_fields=False)`)"
    )]
    EncodedSeparator,
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::invalid(error.to_string())
    }
}

/// The name of the file in a part with these headers; empty where it has none.
///
/// # Errors
/// It is no text, or an encoded name of several parts.
pub fn of_part(part: &HeaderMap, user_agent: Option<&HeaderValue>) -> Result<String, NameError> {
    let Some(disposition) = part.get(header::CONTENT_DISPOSITION) else {
        return Ok(String::new());
    };
    // The plain name beside an extended one may be in any character set.
    let text = String::from_utf8_lossy(disposition.as_bytes());
    if let Some(name) = extended(&text) {
        return Ok(name);
    }
    if std::str::from_utf8(disposition.as_bytes()).is_err() {
        return Err(NameError::NotText);
    }
    let name = plain(&text);
    if is_from_aiohttp(user_agent) {
        decoded(name)
    } else {
        Ok(name)
    }
}

/// The name in its extended form (RFC 8187). .NET sends it beside a plain one that it garbles when it is
/// not ASCII, older senders instead of it. None but UTF-8 is in use.
fn extended(disposition: &str) -> Option<String> {
    split_unquoted(disposition, ';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let mut parts = value.trim().splitn(3, '\'');
        let (charset, _language, encoded) = (parts.next()?, parts.next()?, parts.next()?);
        let fits = name.trim().eq_ignore_ascii_case("filename*");
        let decoded = percent_decode_str(encoded).decode_utf8().ok()?;
        (fits && charset.eq_ignore_ascii_case("utf-8")).then(|| decoded.into_owned())
    })
}

/// The plain name as it stands, without its quotes.
fn plain(disposition: &str) -> String {
    let value = split_unquoted(disposition, ';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let fits = name.trim().eq_ignore_ascii_case("filename");
        fits.then(|| value.trim())
    });
    let value = value.unwrap_or_default();
    match value.strip_prefix('"') {
        Some(quoted) => unquoted(quoted),
        None => value.split(' ').next().unwrap_or_default().to_owned(),
    }
}

/// What stands before the closing quote. Go, httpx and older curls put a backslash before `"` and `\`;
/// browsers, undici and requests put it before nothing, so that elsewhere it is a part of the name.
fn unquoted(quoted: &str) -> String {
    let mut name = String::new();
    let mut rest = quoted.chars();
    while let Some(character) = rest.next() {
        match (character, rest.as_str().chars().next()) {
            ('"', _) => break,
            // The last quote closes, whatever is before it.
            ('\\', Some('"')) if rest.as_str().len() == 1 => {
                name.push('\\');
                break;
            }
            ('\\', Some(escaped @ ('"' | '\\'))) => {
                name.push(escaped);
                rest.next();
            }
            _ => name.push(character),
        }
    }
    name
}

/// aiohttp percent-encodes plain names (RFC 7578 §2 allows it), nobody else in use does. To all others
/// `%20` is a part of the name.
fn is_from_aiohttp(user_agent: Option<&HeaderValue>) -> bool {
    let products = user_agent.and_then(|value| value.to_str().ok());
    let mut products = products.unwrap_or_default().split_whitespace();
    products.any(|product| {
        let name = product.get(..AIOHTTP.len());
        name.is_some_and(|name| name.eq_ignore_ascii_case(AIOHTTP))
    })
}

/// Only a name that is exactly such an encoding is decoded: aiohttp can be told not to encode.
fn decoded(name: String) -> Result<String, NameError> {
    match percent_decode_str(&name).decode_utf8() {
        Ok(decoded) if encoded(&decoded) == name => {
            if decoded.contains('/') {
                return Err(NameError::EncodedSeparator);
            }
            Ok(decoded.into_owned())
        }
        _ => Ok(name),
    }
}

/// As aiohttp encodes it.
fn encoded(name: &str) -> String {
    utf8_percent_encode(name, UNRESERVED).to_string()
}

/// Under which names a file is looked for that is asked for as `raw`, which reads `exact` when it is decoded;
/// the likeliest first. A sender whose name was encoded in a way that only it knows asks for the name that it
/// had, and some paste names into addresses as they are.
#[must_use]
pub fn candidates(exact: &str, raw: &str) -> Vec<String> {
    let (directory, name) = match exact.rsplit_once('/') {
        Some((directory, name)) => (Some(directory), name),
        None => (None, exact),
    };
    let encoded = match directory {
        Some(directory) => format!("{directory}/{}", encoded(name)),
        None => encoded(name),
    };
    // Browsers, undici, requests, httpx and curl send a quote so.
    let without_quotes = exact.replace('"', "%22");
    let mut names = vec![exact.to_owned()];
    for other in [raw.to_owned(), without_quotes, encoded] {
        if !names.contains(&other) {
            names.push(other);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &str = "python-requests/2.34.2";
    const ENCODING: &str = "Python/3.13 aiohttp/3.14.5";

    fn name(disposition: &[u8], user_agent: &'static str) -> Result<String, NameError> {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(disposition).unwrap();
        headers.insert(header::CONTENT_DISPOSITION, value);
        of_part(&headers, Some(&HeaderValue::from_static(user_agent)))
    }

    fn plain_name(value: &str, user_agent: &'static str) -> Result<String, NameError> {
        let disposition = format!("form-data; name=\"file\"; filename={value}");
        name(disposition.as_bytes(), user_agent)
    }

    #[test]
    fn a_percent_sign_is_a_part_of_the_name_unless_its_sender_encodes() {
        for (sent, literal, decoded) in [
            (
                "my%20file%20%C3%A9.txt",
                "my%20file%20%C3%A9.txt",
                "my file é.txt",
            ),
            (
                "report%20final.csv",
                "report%20final.csv",
                "report final.csv",
            ),
            ("100%25.txt", "100%25.txt", "100%.txt"),
            ("a%22b.txt", "a%22b.txt", "a\"b.txt"),
            ("plain.txt", "plain.txt", "plain.txt"),
            // What is no encoding, or not aiohttp's, stays for it as well.
            ("my file.txt", "my file.txt", "my file.txt"),
            ("100%.txt", "100%.txt", "100%.txt"),
            ("50%20 off", "50%20 off", "50%20 off"),
            ("%c3%a9", "%c3%a9", "%c3%a9"),
            ("%FF", "%FF", "%FF"),
        ] {
            let quoted = format!("\"{sent}\"");
            assert_eq!(plain_name(&quoted, PLAIN).unwrap(), literal);
            assert_eq!(plain_name(&quoted, ENCODING).unwrap(), decoded);
        }
    }

    #[test]
    fn an_encoding_sender_is_known_by_its_product() {
        let of = |agent: &'static str| is_from_aiohttp(Some(&HeaderValue::from_static(agent)));
        assert!(of("Python/3.13 aiohttp/3.14.5") && of("my-app/1 AioHTTP/3"));
        for other in ["", "aiohttp", "not-aiohttp/3", "node", "my-aiohttp/1 (x)"] {
            assert!(!of(other), "{other}");
        }
        assert!(!is_from_aiohttp(None));
    }

    #[test]
    fn a_separator_that_only_decoding_shows_is_refused() {
        for sent in ["\"sub%2Fx.txt\"", "\"%2Fmnt%2Fdata%2Fx.txt\"", "\"..%2Fx\""] {
            let refused = plain_name(sent, ENCODING);
            assert_eq!(refused, Err(NameError::EncodedSeparator), "{sent}");
            assert!(plain_name(sent, PLAIN).unwrap().contains("%2F"), "{sent}");
        }
        assert_eq!(plain_name("\"sub/x.txt\"", ENCODING).unwrap(), "sub/x.txt");
    }

    #[test]
    fn quotes_and_backslashes_are_read_as_every_sender_writes_them() {
        for (sent, own) in [
            (r#""a\"b.txt""#, r#"a"b.txt"#),
            (r#""a\\b.txt""#, r"a\b.txt"),
            (r#""a\b.txt""#, r"a\b.txt"),
            (r#""a\\""#, r"a\"),
            (r#""a\""#, r"a\"),
            (r#""semi;c.txt""#, "semi;c.txt"),
            (r#""a; filename=b""#, "a; filename=b"),
            ("token.txt", "token.txt"),
            ("token.txt; x=y", "token.txt"),
            ("\"open", "open"),
            ("\"\"", ""),
            ("", ""),
        ] {
            assert_eq!(plain_name(sent, PLAIN).unwrap(), own, "{sent}");
        }
        assert_eq!(name(b"form-data; name=\"file\"", PLAIN).unwrap(), "");
        assert_eq!(of_part(&HeaderMap::new(), None).unwrap(), "");
    }

    #[test]
    fn a_name_in_another_character_set_is_refused_unless_an_extended_one_is_there() {
        let latin = b"form-data; name=\"file\"; filename=\"R\xe9sum\xe9.txt\"";
        assert_eq!(name(latin, PLAIN), Err(NameError::NotText));
        let both = [latin.as_slice(), b"; filename*=utf-8''R%C3%A9sum%C3%A9.txt"].concat();
        assert_eq!(name(&both, PLAIN).unwrap(), "Résumé.txt");
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
            assert_eq!(extended(disposition).as_deref(), name, "{disposition}");
        }
    }

    #[test]
    fn the_exact_name_is_looked_for_first_and_then_what_senders_make_of_it() {
        let names = |exact, raw| candidates(exact, raw);
        assert_eq!(names("a.txt", "a.txt"), ["a.txt"]);
        assert_eq!(
            names("report final.csv", "report%20final.csv"),
            ["report final.csv", "report%20final.csv"]
        );
        assert_eq!(
            names("sub dir/a\"b c", "sub%20dir/a%22b%20c"),
            [
                "sub dir/a\"b c",
                "sub%20dir/a%22b%20c",
                "sub dir/a%22b c",
                "sub dir/a%22b%20c"
            ]
        );
    }

    proptest! {
        #[test]
        fn a_name_in_both_forms_is_read_whole(own in "\\PC{1,20}") {
            let encoded = utf8_percent_encode(&own, UNRESERVED);
            let disposition = format!("form-data; name=file; filename=\"x\"; filename*=utf-8''{encoded}");
            prop_assert_eq!(name(disposition.as_bytes(), PLAIN), Ok(own));
        }

        #[test]
        fn an_encoding_senders_name_is_its_own(own in "[^/\\p{C}]{1,20}") {
            prop_assert_eq!(plain_name(&format!("\"{}\"", encoded(&own)), ENCODING), Ok(own));
        }

        #[test]
        fn a_name_with_escapes_is_its_own(own in "[^\\p{C}]{1,20}") {
            let escaped = own.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(plain_name(&format!("\"{escaped}\""), PLAIN), Ok(own));
        }

        #[test]
        fn any_header_has_a_name_or_none(text in "[ -~é]{0,60}") {
            drop(name(text.as_bytes(), ENCODING));
        }
    }
}
