//! Where a request goes: a pool's address and the operation below it.

use percent_encoding::percent_decode_str;

/// A path below a pool, such as `/subscriptions/s/resourceGroups/g/sessionPools/p/code/execute`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Decoded.
    pub subscription: String,
    /// Decoded.
    pub resource_group: String,
    /// Decoded.
    pub pool: String,
    /// Decoded; of `/identifier/{id}` after the pool, as the oldest documentation has it.
    pub identifier: Option<String>,
    /// The rest as it was sent, with one leading slash and single slashes.
    pub operation: String,
}

impl Address {
    /// Takes a raw path apart. Repeated and trailing slashes mean nothing, and the fixed words are
    /// compared without regard to case.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let mut after = |word: &str| {
            let fits = parts.next()?.eq_ignore_ascii_case(word);
            if fits { decode(parts.next()?) } else { None }
        };
        let subscription = after("subscriptions")?;
        let resource_group = after("resourceGroups")?;
        let pool = after("sessionPools")?;
        let mut rest: Vec<&str> = parts.collect();
        let identifier = match rest.as_slice() {
            [word, identifier, ..] if word.eq_ignore_ascii_case("identifier") => {
                let identifier = decode(identifier)?;
                rest.drain(..2);
                Some(identifier)
            }
            _ => None,
        };
        let operation = format!("/{}", rest.join("/"));
        Some(Self {
            subscription,
            resource_group,
            pool,
            identifier,
            operation,
        })
    }
}

fn decode(part: &str) -> Option<String> {
    percent_decode_str(part)
        .decode_utf8()
        .ok()
        .map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn operation(path: &str) -> String {
        Address::parse(path).unwrap().operation
    }

    #[test]
    fn slashes_and_case_do_not_matter() {
        let plain = Address::parse("/subscriptions/s/resourceGroups/g/sessionPools/p/files");
        let odd = Address::parse("//SUBSCRIPTIONS/s/resourcegroups//g/sessionPools/p///files/");
        assert_eq!(plain, odd);
        assert_eq!(plain.unwrap().operation, "/files");
        assert_eq!(
            operation("/subscriptions/s/resourceGroups/g/sessionPools/p"),
            "/"
        );
    }

    #[test]
    fn the_oldest_spelling_has_the_identifier_in_the_path() {
        let base = "/subscriptions/s/resourceGroups/g/sessionPools/p";
        let address = Address::parse(&format!("{base}/identifier/a%7Cbc/code/execute")).unwrap();
        assert_eq!(address.identifier.as_deref(), Some("a|bc"));
        assert_eq!(address.operation, "/code/execute");
    }

    #[test]
    fn encoded_slashes_stay_inside_their_part() {
        let base = "/subscriptions/s/resourceGroups/g/sessionPools/p";
        assert_eq!(
            operation(&format!("{base}/files/content/a%2Fb")),
            "/files/content/a%2Fb"
        );
    }

    #[test]
    fn anything_else_is_no_address() {
        for path in [
            "",
            "/",
            "/healthz",
            "/subscriptions/s",
            "/subscriptions/s/x/g/sessionPools/p",
        ] {
            assert_eq!(Address::parse(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_taken_apart_or_refused(path in "\\PC{0,80}") {
            if let Some(address) = Address::parse(&path) {
                prop_assert!(address.operation.starts_with('/'));
                prop_assert!(!address.operation.contains("//"));
            }
        }
    }
}
