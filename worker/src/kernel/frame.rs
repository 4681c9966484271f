//! Frames on a kernel's socket: a little-endian `u32` length and a JSON object of that length.
//! `worker/kernel/` holds the other side and the golden samples that both are tested against.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, display::Base64Display, engine::general_purpose::STANDARD as BASE64};
use proto::{
    execution::Bundle,
    limits::{
        KERNEL_FRAME_BYTES, LOST_NAME_CHARS, LOST_NAMES, MIME_TYPE_BYTES, MIME_TYPES,
        SNAPSHOT_BYTES,
    },
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
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
        /// Environment variables of this cell alone.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        environment: &'a BTreeMap<String, String>,
    },
    /// Run a shell command.
    Command {
        /// Comes back in the frame about its end.
        id: u64,
        /// What the shell reads.
        command: &'a str,
        /// Environment variables of this command alone.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        environment: &'a BTreeMap<String, String>,
    },
    /// Nothing: a kernel that waits takes it off its socket, one that runs code does not.
    Probe,
    /// Tell the session's variables.
    Snapshot {
        /// As many bytes of them as there may be.
        max_bytes: usize,
        /// After this time what was not reached yet is left out.
        within_ms: u64,
    },
    /// Take variables over, before the first cell.
    Restore {
        /// What another kernel told. Nobody outside a sandbox reads it.
        #[serde(serialize_with = "as_base64")]
        variables: &'a [u8],
        /// After this time what was not reached yet is left out.
        within_ms: u64,
    },
}

impl ToKernel<'_> {
    /// Length of what it carries, in bytes, as far as that may be much.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        match self {
            Self::Execute { code, .. } => code.len(),
            Self::Command { command, .. } => command.len(),
            Self::Restore { variables, .. } => variables.len(),
            Self::Probe | Self::Snapshot { .. } => 0,
        }
    }
}

fn as_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Base64Display::new(bytes, &BASE64))
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
        /// By what an update of it refers to it, if one may.
        name: Option<u32>,
        /// Mime type to content.
        data: Mime,
    },
    /// A display output that replaces those of its name.
    Update {
        /// The cell.
        id: u64,
        /// Their name.
        name: Option<u32>,
        /// Mime type to content.
        data: Mime,
    },
    /// Everything that the cell has shown so far is taken back.
    Clear {
        /// The cell.
        id: u64,
    },
    /// An interrupt has ended the cell's own code; what remains is to tell so.
    Interrupted {
        /// The cell.
        id: u64,
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
    /// The command has ended and everything it printed is in the pipes.
    Exited {
        /// The command.
        id: u64,
        /// Its exit status as a shell tells it.
        status: u8,
    },
    /// The session's variables.
    Snapshot {
        /// Those that can be carried, in the kernel's own encoding.
        variables: Variables,
        /// Those that cannot.
        lost: Lost,
    },
    /// Variables were taken over.
    Restored {
        /// All but these.
        lost: Lost,
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
    name: Option<u32>,
    data: Option<Mime>,
    result: Option<Mime>,
    error: Option<Raised>,
    status: Option<u8>,
    variables: Option<Variables>,
    lost: Option<Lost>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Ready,
    Display,
    Update,
    Clear,
    Interrupted,
    Done,
    Exited,
    Snapshot,
    Restored,
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
                name,
                data: Some(data),
                ..
            } => Ok(Self::Display { id, name, data }),
            Flat {
                kind: Kind::Update,
                id: Some(id),
                name,
                data: Some(data),
                ..
            } => Ok(Self::Update { id, name, data }),
            Flat {
                kind: Kind::Clear,
                id: Some(id),
                ..
            } => Ok(Self::Clear { id }),
            Flat {
                kind: Kind::Interrupted,
                id: Some(id),
                ..
            } => Ok(Self::Interrupted { id }),
            Flat {
                kind: Kind::Done,
                id: Some(id),
                result,
                error,
                ..
            } => Ok(Self::Done { id, result, error }),
            Flat {
                kind: Kind::Exited,
                id: Some(id),
                status: Some(status),
                ..
            } => Ok(Self::Exited { id, status }),
            Flat {
                kind: Kind::Snapshot,
                variables: Some(variables),
                lost: Some(lost),
                ..
            } => Ok(Self::Snapshot { variables, lost }),
            Flat {
                kind: Kind::Restored,
                lost: Some(lost),
                ..
            } => Ok(Self::Restored { lost }),
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

/// Mime type to content; at most [`MIME_TYPES`] of at most [`MIME_TYPE_BYTES`] each.
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
                while let Some((mime, content)) = map.next_entry::<String, _>()? {
                    let is_short = mime.len() <= MIME_TYPE_BYTES;
                    found.insert(mime, content);
                    if found.len() > MIME_TYPES || !is_short {
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

/// Pickled variables; at most [`SNAPSHOT_BYTES`].
#[derive(PartialEq, Eq)]
pub struct Variables(pub Vec<u8>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variables({} bytes)", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl Visitor<'_> for Bounded {
            type Value = Variables;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "base64 of at most {SNAPSHOT_BYTES} bytes")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Variables, E> {
                match BASE64.decode(text) {
                    Ok(bytes) if bytes.len() <= SNAPSHOT_BYTES => Ok(Variables(bytes)),
                    _ => Err(E::invalid_length(text.len(), &self)),
                }
            }
        }
        deserializer.deserialize_str(Bounded)
    }
}

/// Names of lost variables as a user may be told them: at most [`LOST_NAMES`], each of at most
/// [`LOST_NAME_CHARS`] characters and none of them a control character.
#[derive(PartialEq, Eq)]
pub struct Lost(pub Vec<String>);

impl fmt::Debug for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lost({} names)", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Lost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = Lost;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    "at most {LOST_NAMES} names of {LOST_NAME_CHARS} characters"
                )
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Lost, A::Error> {
                let mut lost = Vec::new();
                while let Some(name) = names.next_element::<String>()? {
                    let is_short = name.chars().nth(LOST_NAME_CHARS).is_none();
                    if lost.len() == LOST_NAMES || !is_short || name.contains(char::is_control) {
                        return Err(serde::de::Error::invalid_length(lost.len(), &self));
                    }
                    lost.push(name);
                }
                Ok(Lost(lost))
            }
        }
        deserializer.deserialize_seq(Bounded)
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
/// Code or variables that make the frame longer than [`KERNEL_FRAME_BYTES`].
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

/// The length of the first frame, in bytes, if all of it is in `buffer`.
///
/// # Errors
/// A length that no frame has.
pub fn first(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    let length = announced(buffer)?;
    Ok(length.filter(|length| buffer.len() - 4 >= *length))
}

/// The length of the first frame as its beginning says it.
fn announced(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
    if length > KERNEL_FRAME_BYTES {
        return Err(FrameError::TooLong(length));
    }
    Ok(Some(length))
}

/// Takes the first whole frame off `buffer`; `None` means that more bytes are needed.
///
/// # Errors
/// Bytes that can never become a frame.
pub fn take(buffer: &mut bytes::BytesMut) -> Result<Option<FromKernel>, FrameError> {
    let Some(length) = announced(buffer)? else {
        return Ok(None);
    };
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
            assert_eq!(first(&buffer).unwrap(), None);
        }
        buffer.extend_from_slice(&whole[whole.len() - 1..]);
        assert_eq!(first(&buffer).unwrap(), Some(whole.len() - 4));
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
            r#"{"type":"update","id":1}"#.to_owned(),
            r#"{"type":"clear"}"#.to_owned(),
            r#"{"type":"interrupted"}"#.to_owned(),
            r#"{"type":"display","id":1,"name":4294967296,"data":{}}"#.to_owned(),
            r#"{"type":"snapshot","variables":""}"#.to_owned(),
            r#"{"type":"snapshot","lost":[]}"#.to_owned(),
            r#"{"type":"snapshot","variables":{},"lost":[]}"#.to_owned(),
            r#"{"type":"snapshot","variables":"not base64","lost":[]}"#.to_owned(),
            r#"{"type":"restored","lost":[{}]}"#.to_owned(),
            r#"{"type":"restored"}"#.to_owned(),
            format!(
                r#"{{"type":"display","id":1,"data":{{"{}":""}}}}"#,
                "m".repeat(MIME_TYPE_BYTES + 1)
            ),
            r#"{"type":"display","id":1,"data":{"text/plain":"\ud800"}}"#.to_owned(),
            r#"{"type":"exited","id":1,"status":256}"#.to_owned(),
            r#"{"type":"display","id":1,"id":2,"data":{}}"#.to_owned(),
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

    #[test]
    fn variables_and_names_are_bounded() {
        let snapshot = |bytes: usize, lost: &[&str]| {
            let variables = BASE64.encode(vec![0; bytes]);
            let lost = serde_json::to_string(lost).unwrap();
            take(&mut framed(&format!(
                r#"{{"type":"snapshot","variables":"{variables}","lost":{lost}}}"#
            )))
        };
        let long = "ž".repeat(LOST_NAME_CHARS);
        let too_long = format!("{long}x");
        let most = vec![long.as_str(); LOST_NAMES];
        let Some(FromKernel::Snapshot { variables, lost }) =
            snapshot(SNAPSHOT_BYTES, &most).unwrap()
        else {
            panic!("no snapshot");
        };
        assert_eq!(
            (variables.0.len(), lost.0.len()),
            (SNAPSHOT_BYTES, LOST_NAMES)
        );
        for (bytes, lost) in [
            (SNAPSHOT_BYTES + 1, vec![]),
            (0, vec![too_long.as_str()]),
            (0, vec!["line\nbreak"]),
            (0, vec![""; LOST_NAMES + 1]),
        ] {
            let read = snapshot(bytes, &lost);
            assert!(matches!(read, Err(FrameError::Malformed(_))), "{lost:?}");
        }
    }

    #[test]
    fn the_kernel_keeps_to_the_same_bounds() {
        let python = include_str!("../../kernel/hearth_variables.py");
        for line in [
            format!("\nLOST_NAMES = {LOST_NAMES}\n"),
            format!("\nLOST_NAME_CHARS = {LOST_NAME_CHARS}\n"),
        ] {
            assert!(python.contains(&line), "{line}");
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
            let number = |field: &str| frame[field].as_u64().unwrap();
            let text = |field: &str| frame[field].as_str().unwrap();
            let variables;
            let environment = frame.get("environment").cloned().unwrap_or_default();
            let environment = serde_json::from_value::<Option<BTreeMap<_, _>>>(environment)
                .unwrap()
                .unwrap_or_default();
            let told = match text("type") {
                "execute" => ToKernel::Execute {
                    id: number("id"),
                    code: text("code"),
                    environment: &environment,
                },
                "command" => ToKernel::Command {
                    id: number("id"),
                    command: text("command"),
                    environment: &environment,
                },
                "probe" => ToKernel::Probe,
                "snapshot" => ToKernel::Snapshot {
                    max_bytes: usize::try_from(number("max_bytes")).unwrap(),
                    within_ms: number("within_ms"),
                },
                "restore" => {
                    variables = BASE64.decode(text("variables")).unwrap();
                    ToKernel::Restore {
                        variables: &variables,
                        within_ms: number("within_ms"),
                    }
                }
                other => panic!("{other}"),
            };
            assert_eq!(encode(&told).unwrap(), bytes);
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
            let bytes = encode(&ToKernel::Execute { id: 7, code: &code, environment: &BTreeMap::new() }).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&bytes[4..]).unwrap();
            prop_assert_eq!(u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len() - 4);
            prop_assert_eq!(value["code"].as_str(), Some(code.as_str()));
        }

        #[test]
        fn variables_survive_the_way_to_the_next_kernel(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let told = encode(&ToKernel::Restore { variables: &bytes, within_ms: 1 }).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&told[4..]).unwrap();
            let snapshot = serde_json::json!({"type": "snapshot", "variables": value["variables"], "lost": []});
            let read = take(&mut framed(&snapshot.to_string())).unwrap();
            let expected = FromKernel::Snapshot { variables: Variables(bytes), lost: Lost(Vec::new()) };
            prop_assert_eq!(read, Some(expected));
        }
    }
}
