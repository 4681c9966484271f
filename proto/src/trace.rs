//! The id under which a request is followed from its caller to its session: W3C Trace Context
//! (<https://www.w3.org/TR/trace-context/>), of which only `traceparent` is read.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

/// A `traceparent`: which trace a request belongs to, and which step of it asked. 55 characters as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    parent: u64,
    flags: u8,
}

/// A text is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct NotATraceContext;

/// The flag that says that the caller may have recorded the trace.
const SAMPLED: u8 = 1;

impl TraceContext {
    /// A new trace.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            trace: new_id().0,
            parent: new_parent(),
            flags: SAMPLED,
        }
    }

    /// A new step of this trace.
    #[must_use]
    pub fn step(self) -> Self {
        Self {
            parent: new_parent(),
            ..self
        }
    }

    /// A step of a trace, as somebody else counts them; `None` if one of the ids is zero, which means "none".
    #[must_use]
    pub fn new(trace: u128, parent: u64, flags: u8) -> Option<Self> {
        (trace != 0 && parent != 0).then_some(Self {
            trace,
            parent,
            flags,
        })
    }

    /// The trace, the step that asked, and the flags.
    #[must_use]
    pub fn parts(self) -> (u128, u64, u8) {
        (self.trace, self.parent, self.flags)
    }

    /// The trace's id: 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing is decided by the id of a trace, which is for whoever reads logs and spans"
)]
fn new_id() -> Ulid {
    Ulid::new()
}

/// The random part of a new ULID; never zero, which means "none".
fn new_parent() -> u64 {
    let [.., a, b, c, d, e, f, g, h] = new_id().to_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1)
}

impl FromStr for TraceContext {
    type Err = NotATraceContext;

    /// Reads version 00, and of later ones what they have in common with it.
    fn from_str(text: &str) -> Result<Self, NotATraceContext> {
        let mut parts = text.split('-');
        let mut next = |digits: usize| {
            let part = parts.next().filter(|part| {
                let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                part.len() == digits && part.bytes().all(lower)
            });
            part.ok_or(NotATraceContext)
        };
        let version = next(2)?;
        let (trace, parent, flags) = (next(32)?, next(16)?, next(2)?);
        let more = parts.next().is_some();
        if version == "ff" || (version == "00" && more) {
            return Err(NotATraceContext);
        }
        Self::new(
            u128::from_str_radix(trace, 16).map_err(|_| NotATraceContext)?,
            u64::from_str_radix(parent, 16).map_err(|_| NotATraceContext)?,
            u8::from_str_radix(flags, 16).map_err(|_| NotATraceContext)?,
        )
        .ok_or(NotATraceContext)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace,
            parent,
            flags,
        } = self;
        write!(formatter, "00-{trace:032x}-{parent:016x}-{flags:02x}")
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads a trace for a message that is worth more than its trace.
///
/// # Errors
/// There is something else than a text.
pub fn read_or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<TraceContext>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let read: TraceContext = EXAMPLE.parse().unwrap();
        assert_eq!(read.to_string(), EXAMPLE);
        assert_eq!(read.trace_id(), "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn a_step_stays_in_its_trace() {
        let read: TraceContext = EXAMPLE.parse().unwrap();
        let step = read.step();
        assert_eq!(step.trace_id(), read.trace_id());
        assert_ne!(step, read);
        let begun = TraceContext::begin();
        assert_eq!(begun.to_string().parse(), Ok(begun));
        assert_ne!(begun.trace_id(), TraceContext::begin().trace_id());
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = EXAMPLE.replacen("00", "cc", 1) + "-what-will-be";
        let read: TraceContext = later.parse().unwrap();
        assert_eq!(read.to_string(), EXAMPLE);
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        for text in [
            "",
            "00",
            &EXAMPLE.to_uppercase(),
            &EXAMPLE[..54],
            &format!("{EXAMPLE}-more"),
            &EXAMPLE.replacen("00", "ff", 1),
            &EXAMPLE.replace("b7ad6b7169203331", "0000000000000000"),
            &EXAMPLE.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &EXAMPLE.replace("0af7", "+af7"),
            &EXAMPLE.replace('-', "_"),
        ] {
            assert_eq!(
                text.parse::<TraceContext>(),
                Err(NotATraceContext),
                "{text}"
            );
        }
    }
}
