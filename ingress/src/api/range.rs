//! Parts of files (RFC 9110 §14): one range of bytes. Several at once, other units and conditions are
//! answered with the whole file, as the RFC allows.

use std::ops::Range;

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use http_range_header::parse_range_header;

use crate::error::{ApiError, ErrorCode};

/// What a caller wants of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    /// These bytes of it; never empty.
    Part(Range<u64>),
}

/// Reads the header for a file of `size` bytes.
///
/// # Errors
/// No byte of the range is in the file.
pub fn wanted(headers: &HeaderMap, size: u64) -> Result<Wanted, ApiError> {
    let Some(asked) = headers
        .get(header::RANGE)
        .filter(|_| is_unconditional(headers))
    else {
        return Ok(Wanted::Whole);
    };
    let parsed = asked.to_str().ok().map(parse_range_header);
    // What cannot be read is as if it were not there.
    let Some(Ok(ranges)) = parsed else {
        return Ok(Wanted::Whole);
    };
    match ranges.validate(size).as_deref() {
        Ok([range]) => Ok(Wanted::Part(*range.start()..range.end() + 1)),
        Ok(_) => Ok(Wanted::Whole),
        Err(_) => {
            let message = format!("the range is not in the file, which has {size} bytes");
            Err(ApiError::new(ErrorCode::RangeNotSatisfiable, message))
        }
    }
}

/// A part of a file that may have changed since would be put together with another file's.
fn is_unconditional(headers: &HeaderMap) -> bool {
    !headers.contains_key(header::IF_RANGE)
}

impl Wanted {
    /// The bytes of a file of `size` bytes.
    #[must_use]
    pub fn bytes(&self, size: u64) -> Range<u64> {
        match self {
            Self::Whole => 0..size,
            Self::Part(range) => range.clone(),
        }
    }

    /// Says in the answer which part it is.
    pub fn describe(&self, response: &mut Response, size: u64) {
        let headers = response.headers_mut();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Self::Part(range) = self {
            let last = range.end.saturating_sub(1);
            let told = format!("bytes {}-{last}/{size}", range.start);
            if let Ok(told) = told.parse() {
                headers.insert(header::CONTENT_RANGE, told);
            }
            let length = range.end - range.start;
            headers.insert(header::CONTENT_LENGTH, length.into());
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
    }
}

/// Says in a refusal how long the file is.
pub fn describe_refusal(response: &mut Response, size: u64) {
    if let Ok(told) = format!("bytes */{size}").parse() {
        response.headers_mut().insert(header::CONTENT_RANGE, told);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(range: &str, size: u64) -> Result<Wanted, ErrorCode> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        wanted(&headers, size).map_err(|error| error.code)
    }

    #[test]
    fn one_range_is_a_part_and_anything_else_the_whole() {
        let table = [
            ("bytes=0-4", Ok(Wanted::Part(0..5))),
            ("bytes=4-", Ok(Wanted::Part(4..10))),
            ("bytes=-3", Ok(Wanted::Part(7..10))),
            ("bytes=5-100", Ok(Wanted::Part(5..10))),
            ("bytes=10-", Err(ErrorCode::RangeNotSatisfiable)),
            ("bytes=0-1,3-4", Ok(Wanted::Whole)),
            ("lines=1-2", Ok(Wanted::Whole)),
            ("bytes=x-y", Ok(Wanted::Whole)),
            ("bytes=4-2", Ok(Wanted::Whole)),
        ];
        for (range, expected) in table {
            assert_eq!(of(range, 10), expected, "{range}");
        }
    }

    #[test]
    fn a_condition_makes_it_the_whole() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=0-4".parse().unwrap());
        headers.insert(header::IF_RANGE, "\"etag\"".parse().unwrap());
        assert_eq!(wanted(&headers, 10).unwrap(), Wanted::Whole);
    }

    proptest! {
        #[test]
        fn a_part_lies_in_the_file(range in "bytes=[0-9]{0,22}-[0-9]{0,22}", size in 0..u64::MAX) {
            if let Ok(Wanted::Part(part)) = of(&range, size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }
    }
}
