//! Bodies that arrive packed (`Content-Encoding`, RFC 9110 §8.4), unpacked as they come, and what became of a
//! body that could not be read.

use std::{error::Error, io::Write, mem};

use axum::{
    body::{Body, BodyDataStream, HttpBody as _},
    http::{HeaderMap, header},
};
use bytes::{Buf, Bytes};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use futures_util::{StreamExt, stream};
use proto::limits;

use crate::{
    error::{ApiError, ErrorCode},
    headers::UNDERSTOOD,
};

/// Most bytes of a packed body and of what is in it: the longest file and what is around it. The bounds of what
/// reads the body apply as well.
const MOST: u64 = limits::UPLOAD_BYTES + (1 << 20);
/// Packed bytes that are unpacked at once. They may become a thousand times as many.
const SLICE: usize = 1024;
/// Unpacked bytes that are worth passing on.
const ENOUGH: usize = 16 * 1024;

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, or 1951 without it: senders disagree about what the word means.
    Deflate,
}

/// Why a packed body cannot be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// Not what its header says, or not all of it.
    #[error("the body is not the {0} that its `Content-Encoding` says, or was cut off")]
    Malformed(&'static str),
    /// More than any body may have.
    #[error("the body has more than {MOST} bytes when it is unpacked")]
    TooLong,
}

/// There is no part where one must be, in a body of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the multipart body has no part where one must be")]
pub struct NoPart;

impl Coding {
    /// How the body of a request with these headers is packed, if it is.
    ///
    /// # Errors
    /// In a way that is not understood, or in several.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let values = headers.get_all(header::CONTENT_ENCODING).iter();
        let mut codings = vec![];
        for value in values {
            let listed = value.to_str().unwrap_or("?").split(',').map(str::trim);
            codings.extend(listed.map(str::to_ascii_lowercase));
        }
        codings.retain(|coding| !coding.is_empty() && coding != "identity");
        let codings: Vec<&str> = codings.iter().map(String::as_str).collect();
        match codings.as_slice() {
            [] => Ok(None),
            ["gzip" | "x-gzip"] => Ok(Some(Self::Gzip)),
            ["deflate"] => Ok(Some(Self::Deflate)),
            _ => {
                let message = format!(
                    "the body's `Content-Encoding` is not understood; understood is one of {UNDERSTOOD}"
                );
                Err(ApiError::new(
                    ErrorCode::UnsupportedContentEncoding,
                    message,
                ))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

/// The body of a request with these headers, unpacked while it is read.
///
/// # Errors
/// It is packed in a way that is not understood.
pub fn unpacked(headers: &HeaderMap, body: Body) -> Result<Body, ApiError> {
    if body.is_end_stream() {
        return Ok(body);
    }
    let Some(coding) = Coding::of(headers)? else {
        return Ok(body);
    };
    let unpacking = Unpacking {
        packed: body.into_data_stream(),
        chunk: Bytes::new(),
        read: 0,
        told: 0,
        unpacker: Some(Unpacker::new(coding)),
        coding,
    };
    let pieces = stream::try_unfold(unpacking, |mut unpacking| async move {
        let piece = unpacking.next().await?;
        Ok::<_, axum::Error>(piece.map(|piece| (piece, unpacking)))
    });
    Ok(Body::from_stream(pieces))
}

/// Why a body could not be read to its end, for its caller.
#[must_use]
pub fn unreadable(error: &(dyn Error + 'static)) -> ApiError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<UnpackError>() {
            Some(UnpackError::TooLong) => {
                return ApiError::new(ErrorCode::RequestTooLarge, error.to_string());
            }
            Some(UnpackError::Malformed(_)) => return ApiError::invalid(error.to_string()),
            None if error.is::<NoPart>() => return ApiError::invalid(error.to_string()),
            None => cause = error.source(),
        }
    }
    ApiError::invalid("the body is not framed as its head says, or was cut off")
}

/// A body on its way.
struct Unpacking {
    packed: BodyDataStream,
    /// What of it is here and not unpacked yet.
    chunk: Bytes,
    read: u64,
    told: u64,
    /// None once all is said.
    unpacker: Option<Unpacker>,
    coding: Coding,
}

impl Unpacking {
    async fn next(&mut self) -> Result<Option<Bytes>, axum::Error> {
        while let Some(unpacker) = &mut self.unpacker {
            let mut ended = false;
            if self.chunk.is_empty() {
                match self.packed.next().await {
                    Some(chunk) => {
                        self.chunk = chunk?;
                        self.read += self.chunk.len() as u64;
                    }
                    None => ended = true,
                }
            }
            let malformed = UnpackError::Malformed(self.coding.name());
            let piece = if ended {
                unpacker.finish()
            } else {
                unpacker.take(&mut self.chunk)
            };
            let piece = piece.map_err(|_| axum::Error::new(malformed))?;
            if ended {
                self.unpacker = None;
            }
            self.told += piece.len() as u64;
            if self.told > MOST || self.read > MOST {
                return Err(axum::Error::new(UnpackError::TooLong));
            }
            if !piece.is_empty() {
                return Ok(Some(piece.into()));
            }
        }
        Ok(None)
    }
}

/// Unpacks what it is given.
enum Unpacker {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    /// Before the first two bytes are there, which tell the two apart.
    Undecided(Vec<u8>),
    Zlib(ZlibDecoder<Vec<u8>>),
    Raw(DeflateDecoder<Vec<u8>>),
}

impl Unpacker {
    fn new(coding: Coding) -> Self {
        match coding {
            Coding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(vec![]))),
            Coding::Deflate => Self::Undecided(vec![]),
        }
    }

    /// Unpacks from the front of a chunk until there is enough, or nothing is left of it.
    fn take(&mut self, chunk: &mut Bytes) -> std::io::Result<Vec<u8>> {
        let mut piece = vec![];
        while piece.len() < ENOUGH && !chunk.is_empty() {
            let slice = chunk.split_to(SLICE.min(chunk.remaining()));
            self.write(&slice)?;
            piece.append(&mut self.written());
        }
        Ok(piece)
    }

    fn write(&mut self, slice: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.write_all(slice),
            Self::Zlib(decoder) => decoder.write_all(slice),
            Self::Raw(decoder) => decoder.write_all(slice),
            Self::Undecided(first) => {
                first.extend_from_slice(slice);
                let [one, other, ..] = first.as_slice() else {
                    return Ok(());
                };
                let is_zlib =
                    one & 15 == 8 && u16::from_be_bytes([*one, *other]).is_multiple_of(31);
                let first = mem::take(first);
                *self = if is_zlib {
                    Self::Zlib(ZlibDecoder::new(vec![]))
                } else {
                    Self::Raw(DeflateDecoder::new(vec![]))
                };
                self.write(&first)
            }
        }
    }

    fn written(&mut self) -> Vec<u8> {
        match self {
            Self::Gzip(decoder) => mem::take(decoder.get_mut()),
            Self::Zlib(decoder) => mem::take(decoder.get_mut()),
            Self::Raw(decoder) => mem::take(decoder.get_mut()),
            Self::Undecided(_) => vec![],
        }
    }

    /// What was held back. Nothing may be written after it.
    fn finish(&mut self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Gzip(decoder) => decoder.try_finish()?,
            Self::Zlib(decoder) => decoder.try_finish()?,
            Self::Raw(decoder) => decoder.try_finish()?,
            Self::Undecided(_) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(self.written())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(vec![], Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(vec![], Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(vec![], Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn headers(codings: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for coding in codings {
            headers.append(header::CONTENT_ENCODING, coding.parse().unwrap());
        }
        headers
    }

    fn body(bytes: &[u8], cut: usize) -> Body {
        let chunks: Vec<_> = bytes
            .chunks(cut.max(1))
            .map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk)))
            .collect();
        Body::from_stream(stream::iter(chunks))
    }

    async fn read(coding: &str, bytes: &[u8], cut: usize) -> Result<Bytes, ApiError> {
        let body = unpacked(&headers(&[coding]), body(bytes, cut))?;
        to_bytes(body, usize::MAX)
            .await
            .map_err(|error| unreadable(&error))
    }

    #[test]
    fn a_coding_is_read_or_refused() {
        let of = |codings: &[&str]| Coding::of(&headers(codings)).map_err(|error| error.code);
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["identity"]), Ok(None));
        assert_eq!(of(&["GZip"]), Ok(Some(Coding::Gzip)));
        assert_eq!(of(&["identity, x-gzip"]), Ok(Some(Coding::Gzip)));
        assert_eq!(of(&["deflate"]), Ok(Some(Coding::Deflate)));
        let refused = Err(ErrorCode::UnsupportedContentEncoding);
        for wrong in [
            &["br"][..],
            &["gzip, gzip"],
            &["gzip", "deflate"],
            &["\"gzip\""],
        ] {
            assert_eq!(of(wrong), refused, "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_what_it_says_or_not_whole_is_refused() {
        let text = b"some text that is packed, some text that is packed";
        let mut wrong_sum = gzip(text);
        let at = wrong_sum.len() - 6;
        wrong_sum[at] ^= 1;
        let (whole, packed) = (gzip(text), zlib(text));
        let trailing = [packed.as_slice(), b"more"].concat();
        for (coding, bytes) in [
            ("gzip", text.as_slice()),
            ("gzip", &wrong_sum),
            ("gzip", &whole[..whole.len() - 1]),
            ("gzip", &whole[..5]),
            ("gzip", &[whole.as_slice(), b"more"].concat()),
            ("deflate", text),
            ("deflate", &packed[..packed.len() - 5]),
            ("deflate", &raw(text)[..10]),
            ("deflate", &trailing),
            ("deflate", b"x"),
        ] {
            let refused = read(coding, bytes, 7).await.unwrap_err();
            assert_eq!(refused.code.status().as_u16(), 400, "{coding} {bytes:?}");
            assert!(refused.message.contains(coding), "{}", refused.message);
        }
    }

    #[tokio::test]
    async fn a_bomb_is_given_up_in_small_pieces() {
        let most = usize::try_from(MOST).unwrap();
        let mebibyte = gzip(&vec![0; 1 << 20]);
        for (coding, bomb) in [
            ("gzip", mebibyte.repeat((most >> 20) + 1)),
            ("deflate", raw(&vec![0; most + 1])),
        ] {
            let refused = read(coding, &bomb, 5000).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::RequestTooLarge);
            let unpacked = unpacked(&headers(&[coding]), body(&bomb, 5000)).unwrap();
            let mut pieces = unpacked.into_data_stream();
            while let Some(Ok(piece)) = pieces.next().await {
                assert!(piece.len() <= SLICE * 1100 + ENOUGH, "{}", piece.len());
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_no_body_that_is_too_long() {
        let broken = stream::iter([
            Ok(Bytes::from_static(b"{")),
            Err(std::io::Error::other("invalid chunk size")),
        ]);
        let error = to_bytes(Body::from_stream(broken), usize::MAX)
            .await
            .unwrap_err();
        assert_eq!(unreadable(&error).code.status().as_u16(), 400);
    }

    #[tokio::test]
    async fn nothing_is_packed_in_no_body() {
        let body = unpacked(&headers(&["br"]), Body::empty()).unwrap();
        assert_eq!(to_bytes(body, 10).await.unwrap(), b"".as_slice());
    }

    proptest! {
        #[test]
        fn what_was_packed_is_read_however_it_is_cut(
            bytes in proptest::collection::vec(any::<u8>(), 0..5000), cut in 1_usize..3000
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let two_members = [gzip(&bytes), gzip(b"more")].concat();
            let both = [bytes.as_slice(), b"more"].concat();
            for (coding, packed, expected) in [
                ("gzip", gzip(&bytes), &bytes),
                ("gzip", two_members, &both),
                ("deflate", zlib(&bytes), &bytes),
                ("deflate", raw(&bytes), &bytes),
            ] {
                let read = runtime.block_on(read(coding, &packed, cut)).unwrap();
                prop_assert_eq!(read.as_ref(), expected.as_slice());
            }
        }

        #[test]
        fn any_bytes_are_unpacked_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 1_usize..50
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            drop(runtime.block_on(read("gzip", &bytes, cut)));
            drop(runtime.block_on(read("deflate", &bytes, cut)));
        }
    }
}
