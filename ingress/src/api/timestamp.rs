//! Times as the contracts write them.

use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

/// Seven fractional digits and `Z`, as the service being re-implemented writes times.
const SEVEN_DIGITS: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:7]Z");
/// RFC 9110 §5.6.7.
const HTTP_DATE: &[BorrowedFormatItem<'static>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// A time in nanoseconds since 1970.
#[must_use]
pub fn seven_digits(nanoseconds: i64) -> String {
    timestamp(at(nanoseconds))
}

/// A time.
#[must_use]
pub fn timestamp(at: OffsetDateTime) -> String {
    at.format(SEVEN_DIGITS).unwrap_or_default()
}

/// The same as HTTP writes it.
#[must_use]
pub fn http_date(nanoseconds: i64) -> String {
    at(nanoseconds).format(HTTP_DATE).unwrap_or_default()
}

/// A session may set any time on its files; what no calendar holds is 1970.
fn at(nanoseconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds.into())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_digits_of_the_contract() {
        let text = seven_digits(1_714_634_467_992_261_799);
        assert_eq!(text, "2024-05-02T07:21:07.9922617Z");
        assert_eq!(seven_digits(i64::MIN).len(), 28);
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
