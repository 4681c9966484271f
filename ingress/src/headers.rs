//! Headers that a request has once. Of two, this server and a proxy in front of it might read different
//! ones, so two are refused, be they equal.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

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

#[cfg(test)]
mod tests {
    use super::*;

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
