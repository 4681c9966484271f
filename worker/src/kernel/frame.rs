//! Frames on a kernel's socket: a little-endian `u32` length and a JSON object of that length.
//! `worker/kernel/` holds the other side and the golden samples that both are tested against.

use std::{collections::BTreeMap, fmt};

use proto::{
    execution::Bundle,
    limits::{KERNEL_FRAME_BYTES, MIME_TYPES},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};

/// What the worker says to a kernel.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToKernel<'a> {
    /// Run a cell.
    Execute {
        /// Comes back in every frame about this cell.
        id: u64,
        /// Source text.
        code: &'a str,
    },
}

/// What a kernel says. None of it is trusted: it comes from inside the sandbox.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Flat")]
pub enum FromKernel {
    /// The interpreter waits for its first cell.
    Ready,
    /// A display output, as it happens.
    Display {
        /// The cell.
        id: u64,
        /// Mime type to content.
        data: Mime,
    },
    /// The cell has ended and everything it printed is in the pipes.
    Done {
        /// The cell.
        id: u64,
        /// The value of its last expression.
        result: Option<Mime>,
        /// Why it failed.
        error: Option<Raised>,
    },
}

/// A frame as it is written. An enum tagged inside would be read by way of a tree of whatever is in it,
/// many times the size of the frame; this has room for nothing unexpected.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flat {
    #[serde(rename = "type")]
    kind: Kind,
    id: Option<u64>,
    data: Option<Mime>,
    result: Option<Mime>,
    error: Option<Raised>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Ready,
    Display,
    Done,
}

impl TryFrom<Flat> for FromKernel {
    type Error = &'static str;

    fn try_from(flat: Flat) -> Result<Self, Self::Error> {
        match flat {
            Flat {
                kind: Kind::Ready, ..
            } => Ok(Self::Ready),
            Flat {
                kind: Kind::Display,
                id: Some(id),
                data: Some(data),
                ..
            } => Ok(Self::Display { id, data }),
            Flat {
                kind: Kind::Done,
                id: Some(id),
                result,
                error,
                ..
            } => Ok(Self::Done { id, result, error }),
            _ => Err("a field is missing"),
        }
    }
}

/// An exception in text form.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Raised {
    /// Class name.
    pub name: String,
    /// `str()` of it.
    pub message: String,
    /// Formatted traceback.
    pub traceback: String,
}

/// Mime type to content; at most [`MIME_TYPES`].
#[derive(Debug, PartialEq, Eq)]
pub struct Mime(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Mime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = Mime;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MIME_TYPES} texts by mime type")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Mime, A::Error> {
                let mut found = BTreeMap::new();
                while let Some((mime, content)) = map.next_entry()? {
                    found.insert(mime, content);
                    if found.len() > MIME_TYPES {
                        return Err(serde::de::Error::invalid_length(found.len(), &self));
                    }
                }
                Ok(Mime(found))
            }
        }
        deserializer.deserialize_map(Bounded)
    }
}

impl From<Mime> for Bundle {
    fn from(mime: Mime) -> Self {
        Self(mime.0.into_iter().collect())
    }
}

/// Why bytes are no frame. A kernel that sends such bytes is treated as crashed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`KERNEL_FRAME_BYTES`].
    #[error("frame of {0} bytes, at most {KERNEL_FRAME_BYTES} are allowed")]
    TooLong(usize),
    /// Not a JSON object of a known shape.
    #[error("frame is malformed")]
    Malformed(#[from] serde_json::Error),
}

/// Encodes a frame with its length in front.
///
/// # Errors
/// Code that makes the frame longer than [`KERNEL_FRAME_BYTES`].
pub fn encode(frame: &ToKernel<'_>) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, frame)?;
    let length = bytes.len() - 4;
    match u32::try_from(length) {
        Ok(prefix) if length <= KERNEL_FRAME_BYTES => {
            bytes.splice(..4, prefix.to_le_bytes());
            Ok(bytes)
        }
        _ => Err(FrameError::TooLong(length)),
    }
}

/// Takes the first whole frame off `buffer`; `None` means that more bytes are needed.
///
/// # Errors
/// Bytes that can never become a frame.
pub fn take(buffer: &mut bytes::BytesMut) -> Result<Option<FromKernel>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
    if length > KERNEL_FRAME_BYTES {
        return Err(FrameError::TooLong(length));
    }
    if buffer.len() - 4 < length {
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    let frame = buffer.split_to(4 + length);
    let (_, body) = frame.split_at(4);
    Ok(Some(serde_json::from_slice(body)?))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn framed(body: &str) -> BytesMut {
        let mut bytes = BytesMut::from(&u32::try_from(body.len()).unwrap().to_le_bytes()[..]);
        bytes.extend_from_slice(body.as_bytes());
        bytes
    }

    #[test]
    fn a_frame_arrives_in_pieces() {
        let whole = framed(r#"{"type":"ready"}"#);
        let mut buffer = BytesMut::new();
        for byte in whole.iter().take(whole.len() - 1) {
            buffer.extend_from_slice(&[*byte]);
            assert!(take(&mut buffer).unwrap().is_none());
        }
        buffer.extend_from_slice(&whole[whole.len() - 1..]);
        assert_eq!(take(&mut buffer).unwrap(), Some(FromKernel::Ready));
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_hostile_length_is_refused_before_it_is_believed() {
        let mut buffer = BytesMut::from(&[0xff; 8][..]);
        assert!(matches!(take(&mut buffer), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn an_unknown_frame_is_malformed() {
        assert!(matches!(
            take(&mut framed(r#"{"type":"own"}"#)),
            Err(FrameError::Malformed(_))
        ));
    }

    #[test]
    fn a_frame_with_room_for_anything_else_is_malformed() {
        for hostile in [
            r#"{"type":"display","id":1,"data":{},"x":[0,0,0]}"#.to_owned(),
            r#"{"type":"display","id":1}"#.to_owned(),
            r#"{"type":"done"}"#.to_owned(),
            format!(
                r#"{{"type":"display","id":1,"data":{{{}}}}}"#,
                (0..100)
                    .map(|n| format!(r#""{n}":"""#))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
        ] {
            let read = take(&mut framed(&hostile));
            assert!(matches!(read, Err(FrameError::Malformed(_))), "{hostile}");
        }
    }

    /// The samples that the kernel's own tests read and write too.
    fn golden(direction: &str) -> Vec<(serde_json::Value, Vec<u8>)> {
        let text = include_str!("../../kernel/tests/frames.golden.json");
        let golden: serde_json::Value = serde_json::from_str(text).unwrap();
        let samples = golden[direction].as_array().unwrap().iter();
        let hex = |sample: &serde_json::Value| {
            HEXLOWER
                .decode(sample["hex"].as_str().unwrap().as_bytes())
                .unwrap()
        };
        samples
            .map(|sample| (sample["frame"].clone(), hex(sample)))
            .collect()
    }

    #[test]
    fn what_the_kernel_says_is_understood() {
        for (frame, bytes) in golden("from_kernel") {
            let mut buffer = BytesMut::from(&bytes[..]);
            let expected: FromKernel = serde_json::from_value(frame).unwrap();
            assert_eq!(take(&mut buffer).unwrap(), Some(expected));
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn the_kernel_is_told_what_it_understands() {
        for (frame, bytes) in golden("to_kernel") {
            let (id, code) = (
                frame["id"].as_u64().unwrap(),
                frame["code"].as_str().unwrap(),
            );
            assert_eq!(encode(&ToKernel::Execute { id, code }).unwrap(), bytes);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_frame_an_error_or_a_wait(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take(&mut buffer) {}
        }

        #[test]
        fn code_survives_the_way_to_the_kernel(code in "\\PC*") {
            let bytes = encode(&ToKernel::Execute { id: 7, code: &code }).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&bytes[4..]).unwrap();
            prop_assert_eq!(u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len() - 4);
            prop_assert_eq!(value["code"].as_str(), Some(code.as_str()));
        }
    }
}
