//! Reading headers. Of two where one decides, this server and a proxy in front of it might read different ones,
//! so two are refused, be they equal.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Name of the header that repeats the code of an error.
pub const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// How bodies may be packed, as it is written in `Accept-Encoding`.
pub const UNDERSTOOD: &str = "gzip, deflate";

/// A header is there several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is more than one header `{0}`")]
pub struct Repeated(pub &'static str);

/// The value of a header that may be left out.
///
/// # Errors
/// It is there several times.
pub fn single<'h>(
    headers: &'h HeaderMap,
    name: &'static str,
) -> Result<Option<&'h HeaderValue>, Repeated> {
    let mut values = headers.get_all(HeaderName::from_static(name)).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        _ => Err(Repeated(name)),
    }
}

/// What stands between the separators that are not in quotes.
pub fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character| {
        let ends = character == separator && !quoted;
        quoted ^= character == '"' && !escaped;
        escaped = character == '\\' && quoted && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_quotes_separate_nothing() {
        let parts = |text| split_unquoted(text, ',').collect::<Vec<_>>();
        assert_eq!(parts(r#"a;x="1,2",b"#), [r#"a;x="1,2""#, "b"]);
        assert_eq!(parts(r#"a;x="\",",b"#), [r#"a;x="\",""#, "b"]);
        assert_eq!(parts(""), [""]);
    }

    #[test]
    fn two_headers_are_refused_even_if_they_are_equal() {
        let mut headers = HeaderMap::new();
        assert_eq!(single(&headers, "range"), Ok(None));
        headers.append("Range", HeaderValue::from_static("a"));
        let value = HeaderValue::from_static("a");
        assert_eq!(single(&headers, "range"), Ok(Some(&value)));
        headers.append("range", value);
        assert_eq!(single(&headers, "range"), Err(Repeated("range")));
    }
}
