//! What makes an object store and a bus one fleet: both keep the same generation. A bus that lost its data
//! would otherwise look like that of a new fleet, and every session would silently begin anew.
//!
//! [`judge`] decides and is pure; the crate `fleet` reads, writes and watches.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{IdError, text_id};

text_id!(
    /// An object store's name for itself: a ULID that its first worker gives it.
    StoreId,
    is_ulid
);

text_id!(
    /// One life of a fleet's bus: a ULID. Store and bus keep it, and a bus that lost its data gets another
    /// one only from an operator.
    Generation,
    is_ulid
);

fn is_ulid(text: &str) -> Result<(), IdError> {
    let canonical = ulid::Ulid::from_string(text).is_ok_and(|ulid| ulid.to_string() == text);
    if canonical {
        Ok(())
    } else {
        Err(IdError::Ulid)
    }
}

/// What store and bus both keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetRecord {
    /// The store.
    pub store: StoreId,
    /// The life of the bus.
    pub generation: Generation,
    /// The generation that an operator replaced by this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Generation>,
}

/// What the store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Which bus it belongs to.
    pub record: FleetRecord,
    /// Sequence of the last mark on the bus that was noted. Without one the bus was never seen with this
    /// generation.
    pub mark: Option<u64>,
}

/// What the bus holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No stream of the fleet.
    NoStream,
    /// The stream without a generation.
    NoRecord,
    /// The generation, and the sequence of the last mark, 0 for none.
    Record(FleetRecord, u64),
}

/// What store and bus say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They belong together.
    Same(FleetRecord),
    /// Neither has a generation: a new fleet, or one that was written before there were generations.
    New,
    /// The store has one that was never seen on a bus: whoever made it did not finish.
    Begun(FleetRecord),
    /// The bus lost its data.
    Lost(Loss),
    /// The bus belongs to another store.
    OtherStore {
        /// The store that this process has.
        ours: Option<StoreId>,
        /// The one that the bus belongs to.
        theirs: StoreId,
    },
}

/// How a bus lost its data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// It has no generation.
    #[error(
        "the bus has no generation; the store knows generation {expected} up to mark {mark}: \
         the bus's data was lost"
    )]
    Younger {
        /// The store's.
        expected: Generation,
        /// The store's.
        mark: u64,
    },
    /// It was put back to an earlier time.
    #[error(
        "the bus is at mark {found} of generation {expected}; the store knows mark {mark}: \
         the bus's data is from an earlier time"
    )]
    Older {
        /// Of both.
        expected: Generation,
        /// The store's.
        mark: u64,
        /// The bus's.
        found: u64,
    },
    /// It has another generation.
    #[error(
        "the bus has generation {found}; the store knows generation {expected}: it is another bus"
    )]
    Another {
        /// The store's.
        expected: Generation,
        /// The bus's.
        found: Generation,
    },
    /// A stream is not there that was.
    #[error("the bus lost its stream {stream} in generation {expected}")]
    Stream {
        /// The store's.
        expected: Generation,
        /// Which.
        stream: String,
    },
}

/// Compares what the store knows with what the bus holds. The store must have been read first: marks rise.
#[must_use]
pub fn judge(known: Option<&Known>, found: &Found) -> Verdict {
    match (known, found) {
        (None, Found::NoStream | Found::NoRecord) => Verdict::New,
        (None, Found::Record(record, _)) => Verdict::OtherStore {
            ours: None,
            theirs: record.store.clone(),
        },
        (Some(Known { record, mark }), Found::NoStream | Found::NoRecord) => match mark {
            None => Verdict::Begun(record.clone()),
            Some(mark) => Verdict::Lost(Loss::Younger {
                expected: record.generation.clone(),
                mark: *mark,
            }),
        },
        (Some(Known { record, mark }), Found::Record(found, last)) => {
            let expected = record.generation.clone();
            if record.store != found.store {
                Verdict::OtherStore {
                    ours: Some(record.store.clone()),
                    theirs: found.store.clone(),
                }
            } else if record.generation != found.generation {
                let found = found.generation.clone();
                Verdict::Lost(Loss::Another { expected, found })
            } else {
                match mark {
                    Some(mark) if last < mark => Verdict::Lost(Loss::Older {
                        expected,
                        mark: *mark,
                        found: *last,
                    }),
                    Some(_) | None => Verdict::Same(record.clone()),
                }
            }
        }
    }
}

text_id!(
    /// What a cluster key can be told by without being known: 32 hexadecimal digits of an HMAC.
    KeyFingerprint,
    |text| hexadecimal(text, 32)
);

text_id!(
    /// Digest of those settings of a pool that ingress and workers must agree on: 16 hexadecimal digits.
    PoolDigest,
    |text| hexadecimal(text, 16)
);

impl KeyFingerprint {
    /// The first of these hexadecimal digits.
    pub(crate) fn of_digits(digits: &str) -> Self {
        Self(digits.chars().take(32).collect::<String>().into())
    }
}

impl PoolDigest {
    /// The first of these hexadecimal digits.
    pub(crate) fn of_digits(digits: &str) -> Self {
        Self(digits.chars().take(16).collect::<String>().into())
    }
}

fn hexadecimal(text: &str, digits: usize) -> Result<(), IdError> {
    let fits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() == digits && text.bytes().all(fits) {
        Ok(())
    } else {
        Err(IdError::Fingerprint)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(record) => write!(f, "generation {}", record.generation),
            Self::New => f.write_str("neither store nor bus has a generation"),
            Self::Begun(record) => write!(f, "generation {} was begun", record.generation),
            Self::Lost(loss) => loss.fmt(f),
            Self::OtherStore { ours, theirs } => {
                let ours = ours.as_ref().map_or("none", |ours| ours.as_str());
                write!(
                    f,
                    "the bus belongs to store {theirs}; this process has store {ours}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id<T: std::str::FromStr>(last: char) -> T
    where
        T::Err: std::fmt::Debug,
    {
        format!("01JDE1KZ00000000000000000{last}").parse().unwrap()
    }

    fn record(store: char, generation: char) -> FleetRecord {
        FleetRecord {
            store: id(store),
            generation: id(generation),
            previous: None,
        }
    }

    #[test]
    fn a_bus_is_taken_for_lost_only_when_the_store_knows_more_of_it() {
        let known = |mark| Known {
            record: record('A', '1'),
            mark,
        };
        let same = Verdict::Same(record('A', '1'));
        let at = |store, generation, last| Found::Record(record(store, generation), last);
        let younger = Verdict::Lost(Loss::Younger {
            expected: id('1'),
            mark: 7,
        });
        let older = Verdict::Lost(Loss::Older {
            expected: id('1'),
            mark: 7,
            found: 6,
        });
        let another = Verdict::Lost(Loss::Another {
            expected: id('1'),
            found: id('2'),
        });
        let other = |ours: Option<char>| Verdict::OtherStore {
            ours: ours.map(id),
            theirs: id('B'),
        };
        let begun = Verdict::Begun(record('A', '1'));
        for (known, found, verdict) in [
            (None, Found::NoStream, Verdict::New),
            (None, Found::NoRecord, Verdict::New),
            (None, at('B', '1', 9), other(None)),
            (Some(known(None)), Found::NoStream, begun.clone()),
            (Some(known(None)), Found::NoRecord, begun),
            (Some(known(None)), at('A', '1', 1), same.clone()),
            (Some(known(Some(7))), Found::NoStream, younger.clone()),
            (Some(known(Some(7))), Found::NoRecord, younger),
            (Some(known(Some(7))), at('A', '1', 6), older),
            (Some(known(Some(7))), at('A', '1', 7), same.clone()),
            (Some(known(Some(7))), at('A', '1', 8), same),
            (Some(known(Some(7))), at('A', '2', 8), another),
            (Some(known(Some(7))), at('B', '1', 8), other(Some('A'))),
        ] {
            assert_eq!(
                judge(known.as_ref(), &found),
                verdict,
                "{known:?} {found:?}"
            );
        }
    }

    #[test]
    fn a_loss_names_both_generations() {
        let loss = Loss::Another {
            expected: id('1'),
            found: id('2'),
        };
        let text = loss.to_string();
        for generation in ["01JDE1KZ000000000000000001", "01JDE1KZ000000000000000002"] {
            assert!(text.contains(generation), "{text}");
        }
    }
}
