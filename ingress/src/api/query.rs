//! The query string. Values are percent-decoded and nothing more: some clients paste identifiers in
//! as they are, and then a `+` is a plus, not a space (which no identifier can hold).

use percent_encoding::percent_decode_str;

use super::contract::{API_VERSIONS, Contract, WITHDRAWN};
use crate::error::ApiError;

/// Decoded pairs in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a raw query.
    ///
    /// # Errors
    /// A value is not UTF-8 after decoding.
    pub fn parse(raw: &str) -> Result<Self, ApiError> {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The value of a parameter, named without regard to case.
    ///
    /// # Errors
    /// It is given twice with different values.
    pub fn get(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let mut values = self
            .0
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str());
        let first = values.next();
        match values.find(|other| Some(*other) != first) {
            Some(_) => Err(ApiError::invalid(format!(
                "the query has two values for `{name}`"
            ))),
            None => Ok(first),
        }
    }

    /// How many entries of a listing are left out at the start.
    ///
    /// # Errors
    /// It is no whole number that an `int64` can be.
    pub fn skip(&self) -> Result<u64, ApiError> {
        let Some(text) = self.get("skip")? else {
            return Ok(0);
        };
        let skip = text.parse::<i64>().ok();
        skip.and_then(|skip| u64::try_from(skip).ok())
            .ok_or_else(|| ApiError::invalid("`skip` is not a whole number of at least 0"))
    }

    /// The contract in which the caller is answered where both have the path.
    ///
    /// # Errors
    /// The api-version is given twice with different values.
    pub fn contract(&self) -> Result<Contract, ApiError> {
        let version = self.get("api-version")?;
        Ok(version.map_or(Contract::Old, Contract::of))
    }

    /// Whether the api-version is this one or a later one.
    ///
    /// # Errors
    /// It is given twice with different values.
    pub fn is_since(&self, version: &str) -> Result<bool, ApiError> {
        let own = self.get("api-version")?;
        Ok(own.is_some_and(|own| own >= version))
    }

    /// Checks the api-version of a request for an operation.
    ///
    /// # Errors
    /// It is unknown there, or missing where it is required.
    pub fn check_version(&self, operation: &str) -> Result<(), ApiError> {
        let is_oldest = operation.starts_with("/python/");
        let is_withdrawn = operation == "/execute" || operation.starts_with("/execute/");
        let wrong = match self.get("api-version")? {
            Some(version) if API_VERSIONS.contains(&version) => return Ok(()),
            Some(WITHDRAWN) if is_withdrawn => return Ok(()),
            None if is_oldest => return Ok(()),
            None => "the query parameter `api-version` is missing",
            Some(_) => "the api-version is unknown",
        };
        let known = API_VERSIONS.join(", ");
        Err(ApiError::invalid(format!("{wrong}; known are {known}")))
    }
}

fn decode(text: &str) -> Result<String, ApiError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| ApiError::invalid("the query is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::contract::{RECURSIVE, SHELL};

    #[test]
    fn values_are_decoded_and_a_plus_stays_a_plus() {
        let query = Query::parse("identifier=a%7Cb+c&api-version=2024-02-02-preview&x").unwrap();
        assert_eq!(query.get("identifier").unwrap(), Some("a|b+c"));
        assert_eq!(query.get("x").unwrap(), Some(""));
        assert_eq!(query.get("y").unwrap(), None);
        assert!(query.check_version("/files").is_ok());
    }

    #[test]
    fn versions_follow_each_other() {
        let since = |version: &str, first| {
            let query = Query::parse(&format!("api-version={version}")).unwrap();
            query.is_since(first).unwrap()
        };
        assert_eq!(Contract::of("2024-08-02-preview"), Contract::Old);
        assert_eq!(Contract::of("2024-10-02-preview"), Contract::New);
        assert!(!since("2024-10-02-preview", SHELL) && since("2025-02-02-preview", SHELL));
        assert!(!since("2025-02-02-preview", RECURSIVE));
        assert!(since("2025-10-02-preview", RECURSIVE));
        assert_eq!(Query::default().contract().unwrap(), Contract::Old);
    }

    #[test]
    fn what_is_left_out_is_counted_by_the_contracts_numbers() {
        let skip = |query: &str| Query::parse(query).unwrap().skip().ok();
        assert_eq!((skip(""), skip("skip=0")), (Some(0), Some(0)));
        assert_eq!(
            skip("skip=9223372036854775807"),
            Some(i64::MAX.unsigned_abs())
        );
        for wrong in [
            "skip=",
            "skip=-1",
            "skip=1.5",
            "skip=9223372036854775808",
            "skip=x",
        ] {
            assert_eq!(skip(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn two_different_values_are_refused() {
        let query = Query::parse("identifier=aaaa&identifier=bbbb&z=1&z=1").unwrap();
        assert!(query.get("identifier").is_err());
        assert_eq!(query.get("z").unwrap(), Some("1"));
    }

    #[test]
    fn a_missing_version_is_fine_only_where_it_is_optional() {
        let none = Query::default();
        assert!(none.check_version("/python/execute").is_ok());
        assert!(none.check_version("/code/execute").is_err());
        assert!(none.check_version("/execute").is_err());
        let unknown = Query::parse("api-version=2020-01-01").unwrap();
        assert!(unknown.check_version("/python/execute").is_err());
    }

    #[test]
    fn a_withdrawn_version_is_known_at_its_own_paths_alone() {
        let withdrawn = Query::parse("api-version=2024-09-01").unwrap();
        for (operation, known) in [
            ("/execute", true),
            ("/execute/some-id", true),
            ("/executions", false),
            ("/executed", false),
            ("/files", false),
        ] {
            let checked = withdrawn.check_version(operation);
            assert_eq!(checked.is_ok(), known, "{operation}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(identifier in "[!-~]{4,128}") {
            let encoded = percent_encoding::utf8_percent_encode(
                &identifier,
                percent_encoding::NON_ALPHANUMERIC,
            );
            let query = Query::parse(&format!("identifier={encoded}&api-version=v")).unwrap();
            prop_assert_eq!(query.get("identifier").unwrap(), Some(identifier.as_str()));
        }

        #[test]
        fn any_query_is_decoded_or_refused(raw in "\\PC{0,80}") {
            drop(Query::parse(&raw));
        }
    }
}
