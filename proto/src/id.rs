//! Identifiers. Each is parsed once at the edge and then trusted: `FromStr` is the only way in.

use std::{fmt, str::FromStr};

use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use ulid::Ulid;

use crate::{fleet::KeyFingerprint, limits};

/// Why a piece of text is not an identifier of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A session identifier outside 4..=128 characters.
    #[error("a session identifier has 4 to 128 characters, not {0}")]
    IdentifierLength(usize),
    /// A session identifier with a space, a control or a non-ASCII character.
    #[error("a session identifier holds printable ASCII characters without spaces only")]
    IdentifierCharacter,
    /// An operation id outside 1..=128 characters of printable ASCII.
    #[error("an operation id is 1 to 128 printable ASCII characters")]
    Operation,
    /// A pool name that is not `[a-z][a-z0-9-]{2,62}`.
    #[error("a pool name is 3 to 63 lower-case letters, digits or `-`, and starts with a letter")]
    PoolName,
    /// A worker id that is not `[a-z0-9][a-z0-9-]{0,31}`.
    #[error("a worker id is 1 to 32 lower-case letters, digits or `-`, not starting with `-`")]
    Worker,
    /// Not 26 characters of Crockford base32.
    #[error("not a ULID")]
    Ulid,
    /// Not 26 characters of lower-case base32.
    #[error("not a session key")]
    SessionKey,
    /// Not 26 characters of lower-case base32.
    #[error("not an execution's key")]
    RecordKey,
    /// Not 64 lower-case hexadecimal digits.
    #[error("not the digest of a request")]
    BodyDigest,
    /// Not 64 hexadecimal digits.
    #[error("a cluster key is 64 hexadecimal digits")]
    ClusterKey,
    /// Not the expected number of lower-case hexadecimal digits.
    #[error("not a fingerprint")]
    Fingerprint,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The text as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::id::IdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let check: fn(&str) -> Result<(), Self::Err> = $check;
                check(text).map(|()| Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::id::IdError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into()
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
pub(crate) use text_id;

text_id!(
    /// What a caller names a session: 4 to 128 printable ASCII characters without spaces (the
    /// character set of the contract's published pattern). Never part of a subject, key or path:
    /// see [`SessionKey`].
    Identifier,
    |text| {
        let characters = text.chars().count();
        if !limits::IDENTIFIER_CHARS.contains(&characters) {
            return Err(IdError::IdentifierLength(characters));
        }
        if text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(())
        } else {
            Err(IdError::IdentifierCharacter)
        }
    }
);

text_id!(
    /// Names one execution or file operation: the caller's `operation-id` header or a ULID.
    OperationId,
    |text| {
        let fits = (1..=limits::OPERATION_CHARS).contains(&text.len());
        if fits && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            Ok(())
        } else {
            Err(IdError::Operation)
        }
    }
);

text_id!(
    /// Last part of a pool's address.
    PoolName,
    |text| {
        let fits = (3..=63).contains(&text.len());
        let starts = text.starts_with(|first: char| first.is_ascii_lowercase());
        if fits && starts && text.bytes().all(is_label) { Ok(()) } else { Err(IdError::PoolName) }
    }
);

text_id!(
    /// A worker. Its operator names it, uniquely in the fleet and the same over restarts; on the bus
    /// every run of it has a name of its own, [`WorkerId::of_run`].
    WorkerId,
    |text| {
        let fits = (1..=48).contains(&text.len()) && !text.starts_with('-');
        if fits && text.bytes().all(is_label) { Ok(()) } else { Err(IdError::Worker) }
    }
);

impl WorkerId {
    /// Name of one run of this worker. A run that ended must not be taken for the one that came
    /// after it: the sessions of the old one are gone.
    ///
    /// # Errors
    /// The name is longer than 39 characters.
    pub fn of_run(&self, run: Ulid) -> Result<Self, IdError> {
        let text = run.to_string().to_ascii_lowercase();
        let (_, tail) = text.split_at(text.len() - 8);
        format!("{self}-{tail}").parse()
    }
}

text_id!(
    /// Internal name of a pool: a ULID given at creation, so that a re-created pool never sees old
    /// data.
    PoolId,
    |text| {
        let canonical = Ulid::from_string(text).is_ok_and(|ulid| ulid.to_string() == text);
        if canonical { Ok(()) } else { Err(IdError::Ulid) }
    }
);

text_id!(
    /// Internal name of a session: 26 characters of lower-case base32, derived under the cluster's
    /// key, so that raw identifiers never enter a subject, key or path.
    SessionKey,
    |text| {
        let digits = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
        if text.len() == 26 && text.bytes().all(digits) { Ok(()) } else { Err(IdError::SessionKey) }
    }
);

fn is_label(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

impl PoolId {
    /// Milliseconds since 1970 at which the pool was given it.
    #[must_use]
    pub fn given_ms(&self) -> u64 {
        Ulid::from_string(&self.0).map_or(0, |ulid| ulid.timestamp_ms())
    }
}

impl OperationId {
    /// A fresh id for a caller who sent none.
    #[must_use]
    pub fn from_ulid(ulid: Ulid) -> Self {
        Self(ulid.to_string().into())
    }
}

impl SessionKey {
    /// base32 of the first 16 bytes of HMAC-SHA256(cluster key, pool ‖ 0 ‖ identifier).
    #[must_use]
    pub fn derive(key: &ClusterKey, pool: &PoolId, identifier: &Identifier) -> Self {
        let mut mac = key.mac();
        mac.update(pool.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(identifier.as_str().as_bytes());
        let digest = mac.finalize().into_bytes();
        let (head, _) = digest.split_at(16);
        Self(BASE32_NOPAD.encode(head).to_ascii_lowercase().into())
    }
}

/// Secret of the fleet under which session keys are derived. Has no `Display`, and `Debug` hides it.
#[derive(Clone)]
pub struct ClusterKey([u8; 32]);

impl ClusterKey {
    /// A key for one purpose that tells nothing of this one.
    #[must_use]
    pub fn subkey(&self, purpose: &str) -> [u8; 32] {
        let mut mac = self.mac();
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// What this key can be told by without being known.
    #[must_use]
    pub fn fingerprint(&self) -> KeyFingerprint {
        let digest = HEXLOWER.encode(&self.subkey("hearth cluster key fingerprint v1"));
        KeyFingerprint::of_digits(&digest)
    }

    pub(crate) fn mac(&self) -> Hmac<Sha256> {
        // HMAC takes a key of any length (RFC 2104 §2), so the error cannot happen.
        #[expect(clippy::expect_used, reason = "RFC 2104: every key length is valid")]
        Hmac::new_from_slice(&self.0).expect("HMAC takes keys of any length")
    }
}

impl FromStr for ClusterKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes());
        let bytes = bytes.map_err(|_| IdError::ClusterKey)?;
        bytes.try_into().map(Self).map_err(|_| IdError::ClusterKey)
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

/// One life of a session, from allocation to cooldown or stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(Ulid);

impl Incarnation {
    /// The incarnation named by a fresh ULID.
    #[must_use]
    pub fn from_ulid(ulid: Ulid) -> Self {
        Self(ulid)
    }

    /// Milliseconds since 1970 at which it was allocated, by its worker's clock. For people only:
    /// ages that decide anything are counted by the bus.
    #[must_use]
    pub fn allocated_ms(self) -> u64 {
        self.0.timestamp_ms()
    }

    /// The id as the contracts write them: five groups of hexadecimal digits.
    #[must_use]
    pub fn guid(self) -> String {
        let digits = format!("{:032x}", self.0.0);
        let (a, rest) = digits.split_at(8);
        let (b, rest) = rest.split_at(4);
        let (c, rest) = rest.split_at(4);
        let (d, e) = rest.split_at(4);
        format!("{a}-{b}-{c}-{d}-{e}")
    }
}

impl TryFrom<String> for Incarnation {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Ulid::from_string(&text)
            .map(Self)
            .map_err(|_| IdError::Ulid)
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        incarnation.0.to_string()
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Fencing number of the ownership of a session: the larger wins, and it never goes back.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(u64);

impl Epoch {
    /// That of no owner: nobody comes after it.
    pub const LAST: Self = Self(u64::MAX);

    /// The epoch of this number, as it stands in a key.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The epoch of the next owner.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn identifiers_keep_the_contracts_bounds() {
        assert_eq!(
            "abc".parse::<Identifier>(),
            Err(IdError::IdentifierLength(3))
        );
        assert!("abcd".parse::<Identifier>().is_ok());
        assert!("a".repeat(128).parse::<Identifier>().is_ok());
        assert_eq!(
            "a".repeat(129).parse::<Identifier>(),
            Err(IdError::IdentifierLength(129))
        );
        assert!(
            "user|1-(a){b}[c];<>#&%^$_:\"'?/.,@*+=!~\\`"
                .parse::<Identifier>()
                .is_ok()
        );
        for bad in ["ab cd", "ab\ncd", "abc\0d", "žluť", "日本語日"] {
            assert_eq!(
                bad.parse::<Identifier>(),
                Err(IdError::IdentifierCharacter),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_session_key_depends_on_key_pool_and_identifier() {
        let key: ClusterKey = "00".repeat(32).parse().unwrap();
        let other: ClusterKey = "01".repeat(32).parse().unwrap();
        let pool: PoolId = "01JDE1KZ0000000000000000PY".parse().unwrap();
        let name: Identifier = "user-1".parse().unwrap();
        let derived = SessionKey::derive(&key, &pool, &name);
        assert_eq!(derived, SessionKey::derive(&key, &pool, &name));
        assert_eq!(
            derived.as_str().parse::<SessionKey>().as_ref(),
            Ok(&derived)
        );
        assert_ne!(derived, SessionKey::derive(&other, &pool, &name));
        assert_ne!(
            derived,
            SessionKey::derive(&key, &pool, &"user-2".parse().unwrap())
        );
    }

    #[test]
    fn an_incarnation_can_be_written_as_a_guid() {
        let ulid = Ulid::from_string("01JDE1KZ0000000000000000PX").unwrap();
        let guid = Incarnation::from_ulid(ulid).guid();
        assert_eq!(guid, "01935c19-fc00-0000-0000-0000000002dd");
    }

    #[test]
    fn a_cluster_keys_fingerprint_and_subkeys_differ_from_each_other() {
        let key: ClusterKey = "00".repeat(32).parse().unwrap();
        let other: ClusterKey = "01".repeat(32).parse().unwrap();
        assert_eq!(key.fingerprint(), key.fingerprint());
        assert_ne!(key.fingerprint(), other.fingerprint());
        assert_ne!(key.subkey("a"), key.subkey("b"));
        let printed = key.fingerprint().to_string();
        assert_eq!(printed.parse(), Ok(key.fingerprint()));
    }

    #[test]
    fn a_cluster_key_never_shows_itself() {
        let key: ClusterKey = "ab".repeat(32).parse().unwrap();
        assert!(!format!("{key:?}").contains("ab"));
    }

    proptest! {
        #[test]
        fn what_parses_is_safe_text(text in "\\PC{0,140}") {
            if let Ok(id) = text.parse::<Identifier>() {
                prop_assert!(id.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!((4..=128).contains(&id.as_str().len()));
            }
            if let Ok(worker) = text.parse::<WorkerId>() {
                prop_assert!(!worker.as_str().contains(['.', '*', '>', ' ', '/']));
            }
            if let Ok(name) = text.parse::<PoolName>() {
                prop_assert!(!name.as_str().contains(['.', '*', '>', ' ', '/']));
            }
        }

        #[test]
        fn session_keys_are_subject_tokens(id in "[!-~]{4,128}") {
            let key: ClusterKey = "07".repeat(32).parse().unwrap();
            let pool: PoolId = "01JDE1KZ0000000000000000PY".parse().unwrap();
            let derived = SessionKey::derive(&key, &pool, &id.parse().unwrap());
            prop_assert!(derived.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        }
    }
}
