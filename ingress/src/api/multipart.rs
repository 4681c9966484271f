//! Uploads: multipart bodies, however they are labelled, streamed on as they come.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use multer::{Field, Multipart};
use proto::{
    blob::Blob,
    file::{DirectoryPath, FilePath},
    limits,
};
use utoipa::ToSchema;

use super::{coding, file_name};
use crate::{
    error::{ApiError, ErrorCode},
    service::{Service, ServiceError, Session},
};

/// Longest silence of a sender in the middle of a body.
const SILENCE: Duration = Duration::from_secs(30);
/// A boundary has at most 70 characters (RFC 2046 §5.1.1); its line stands within these bytes.
const SNIFFED: usize = 256;
/// Bytes between the content of one part and that of the next.
const BETWEEN_PARTS: usize = 64 * 1024;
/// Most files in one request.
pub const FILES: usize = 64;

/// A form with one file.
#[derive(Debug, ToSchema)]
pub struct Upload {
    /// The file. Its `filename` is its path below the directory.
    #[schema(value_type = String, format = Binary)]
    pub file: Vec<u8>,
}

/// A form with files, at most 64 of them, all in parts called `file`.
#[derive(Debug, ToSchema)]
pub struct Uploads {
    /// The files. Their `filename`s are their paths below the directory.
    #[schema(value_type = Vec<String>, format = Binary, min_items = 1, max_items = 64)]
    pub file: Vec<Vec<u8>>,
}

/// One file of an upload: its place, and its bytes inline or staged.
pub type Received = (FilePath, Blob);

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, axum::Error>> + Send>>;

/// Bytes that may still arrive. The parser keeps whatever comes until it has found the next part, so
/// between two parts only as much may come as the header of a part can need.
#[derive(Clone, Debug, Default)]
struct Room(Arc<AtomicUsize>);

impl Room {
    fn for_a_header(&self) {
        self.0.store(BETWEEN_PARTS, Ordering::Relaxed);
    }

    /// Content is passed on as it comes and bounded there.
    fn for_content(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }

    /// The chunks for as long as there is room, one at a time: the parser takes whatever is there before it looks
    /// for a part, so that it rests after each and meets no end of room in the middle of a content. The last chunk
    /// may be larger than the room: it is here already.
    fn bound<S>(&self, chunks: S) -> impl Stream<Item = Result<Bytes, axum::Error>> + use<S>
    where
        S: Stream<Item = Result<Bytes, axum::Error>>,
    {
        let mut chunks = Box::pin(chunks);
        let (room, mut rests) = (self.0.clone(), false);
        stream::poll_fn(move |context| {
            if rests {
                rests = false;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(chunk) = ready!(chunks.as_mut().poll_next(context)) else {
                return Poll::Ready(None);
            };
            let left = room.load(Ordering::Relaxed);
            if left == 0 && chunk.is_ok() {
                return Poll::Ready(Some(Err(axum::Error::new(coding::NoPart))));
            }
            let length = chunk.as_ref().map_or(0, Bytes::len);
            room.store(left.saturating_sub(length), Ordering::Relaxed);
            rests = true;
            Poll::Ready(Some(chunk))
        })
    }
}

/// Reads the parts called `file`, staging long ones. What was received before a failure is received all the same.
///
/// # Errors
/// Not a multipart body, no or a badly named file, a file above the limit, or a slow sender.
pub async fn receive(
    headers: &HeaderMap,
    body: Body,
    directory: &DirectoryPath,
    (service, session): (&Service, &Session),
    received: &mut Vec<Received>,
) -> Result<(), ApiError> {
    let room = Room::default();
    let mut parts = open(headers, body, &room).await?;
    loop {
        room.for_a_header();
        let Some(field) = in_time(parts.next_field()).await? else {
            break;
        };
        if field.name() != Some("file") {
            continue;
        }
        let name = file_name::of_part(field.headers(), headers.get(header::USER_AGENT))?;
        let path = FilePath::in_directory(directory, &name)?;
        if received.iter().any(|(other, _)| *other == path) {
            let message = "two files of the body have the same name";
            return Err(ApiError::invalid(message));
        }
        if received.len() == FILES {
            let message = format!("the body has more than {FILES} files");
            return Err(ApiError::invalid(message));
        }
        room.for_content();
        let content = content(field, service, session).await?;
        received.push((path, content));
    }
    if received.is_empty() {
        return Err(ApiError::invalid("the body has no part called `file`"));
    }
    Ok(())
}

/// One file's bytes: kept while they are few, staged from then on.
async fn content(
    mut field: Field<'static>,
    service: &Service,
    session: &Session,
) -> Result<Blob, ApiError> {
    let mut few = BytesMut::new();
    while let Some(chunk) = in_time(field.chunk()).await? {
        few.extend_from_slice(&chunk);
        if !Blob::fits_inline(few.len() as u64) {
            let mut upload = service.begin_upload(session).await?;
            let copied = copy(few.freeze(), field, &mut upload).await;
            if let Err(error) = copied {
                upload.abort().await;
                return Err(error);
            }
            let staged = upload.finish().await.map_err(ServiceError::from)?;
            return Ok(Blob::Staged(staged));
        }
    }
    Ok(Blob::Inline(few.into()))
}

async fn copy(
    first: Bytes,
    mut field: Field<'static>,
    upload: &mut store::Upload,
) -> Result<(), ApiError> {
    let mut size = first.len() as u64;
    upload.write(first).await.map_err(ServiceError::from)?;
    while let Some(chunk) = in_time(field.chunk()).await? {
        size += chunk.len() as u64;
        if size > limits::UPLOAD_BYTES {
            let message = format!("a file has more than {} bytes", limits::UPLOAD_BYTES);
            return Err(ApiError::new(ErrorCode::RequestTooLarge, message));
        }
        upload.write(chunk).await.map_err(ServiceError::from)?;
    }
    Ok(())
}

async fn in_time<T>(
    step: impl Future<Output = Result<Option<T>, multer::Error>>,
) -> Result<Option<T>, ApiError> {
    match tokio::time::timeout(SILENCE, step).await {
        Ok(Ok(step)) => Ok(step),
        Ok(Err(multer::Error::StreamReadFailed(error))) => Err(coding::unreadable(&*error)),
        Ok(Err(error)) => Err(ApiError::invalid(format!(
            "the multipart body is malformed: {error}"
        ))),
        Err(_) => Err(stopped()),
    }
}

fn stopped() -> ApiError {
    ApiError::new(ErrorCode::RequestTimeout, "the body stopped arriving")
}

/// Finds the boundary in the header or, where a client mislabels its body, in the first line.
async fn open(
    headers: &HeaderMap,
    body: Body,
    room: &Room,
) -> Result<Multipart<'static>, ApiError> {
    let labelled = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| multer::parse_boundary(value).ok());
    let chunks = body.into_data_stream();
    match labelled {
        Some(boundary) => Ok(Multipart::new(room.bound(chunks), boundary)),
        None => {
            let (boundary, chunks) = sniff(chunks).await?;
            Ok(Multipart::new(room.bound(chunks), boundary))
        }
    }
}

async fn sniff(mut chunks: BodyDataStream) -> Result<(String, Chunks), ApiError> {
    let mut head = BytesMut::new();
    loop {
        if let Some(boundary) = first_line(&head) {
            let all = stream::iter([Ok(head.freeze())]).chain(chunks);
            return Ok((boundary, Box::pin(all)));
        }
        let next = tokio::time::timeout(SILENCE, chunks.next()).await;
        match next {
            Ok(Some(Ok(chunk))) if head.len() < SNIFFED => head.extend_from_slice(&chunk),
            Err(_) => return Err(stopped()),
            Ok(Some(Err(error))) => return Err(coding::unreadable(&error)),
            Ok(_) => return Err(ApiError::invalid("the body is not multipart/form-data")),
        }
    }
}

/// The boundary, if the text starts with a whole line that can be one.
fn first_line(head: &[u8]) -> Option<String> {
    let head = head.get(..SNIFFED.min(head.len()))?;
    let end = head.windows(2).position(|pair| pair == b"\r\n")?;
    let boundary = head.get(..end)?.strip_prefix(b"--")?;
    let fits = (1..=70).contains(&boundary.len()) && boundary.iter().all(u8::is_ascii_graphic);
    fits.then(|| String::from_utf8_lossy(boundary).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(text: &str, cut: usize) -> Body {
        let chunks: Vec<_> = text
            .as_bytes()
            .chunks(cut.max(1))
            .map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk)))
            .collect();
        Body::from_stream(stream::iter(chunks))
    }

    fn form(content: &str) -> String {
        format!(
            "--b0undary\r\nContent-Disposition: form-data; name=\"file\"; \
             filename=\"x.txt\"\r\nContent-Type: application/json\r\n\r\n{content}\r\n\
             --b0undary--\r\n"
        )
    }

    async fn first_file(headers: &HeaderMap, body: Body) -> Result<(String, Bytes), ApiError> {
        let room = Room::default();
        let mut parts = open(headers, body, &room).await?;
        room.for_a_header();
        let field = in_time(parts.next_field())
            .await?
            .ok_or_else(|| ApiError::invalid("none"))?;
        room.for_content();
        let name = field.file_name().unwrap_or_default().to_owned();
        let bytes = field
            .bytes()
            .await
            .map_err(|error| ApiError::invalid(error.to_string()))?;
        Ok((name, bytes))
    }

    #[tokio::test]
    async fn a_multipart_body_that_is_labelled_json_is_read_all_the_same() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        let (name, bytes) = first_file(&headers, body(&form("hello"), 7)).await.unwrap();
        assert_eq!(
            (name.as_str(), bytes.as_ref()),
            ("x.txt", b"hello".as_slice())
        );
    }

    #[tokio::test]
    async fn a_body_that_never_comes_to_a_part_is_cut_off() {
        let mut headers = HeaderMap::new();
        let label = "multipart/form-data; boundary=b0undary".parse().unwrap();
        headers.insert(header::CONTENT_TYPE, label);
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        let endless = stream::repeat_with(move || {
            counted.fetch_add(1024, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1024]))
        });
        let refused = first_file(&headers, Body::from_stream(endless)).await;
        assert_eq!(refused.unwrap_err().code.status().as_u16(), 400);
        assert!(sent.load(Ordering::Relaxed) <= BETWEEN_PARTS + 2048);
    }

    /// As HTTP/2 and packed bodies are.
    #[tokio::test]
    async fn a_body_that_is_here_at_once_is_read_whole() {
        let content: String = (0..300_000).map(|n| format!("{n},")).collect();
        for cut in [1000, 16_384, 100_000] {
            let (_, bytes) = first_file(&HeaderMap::new(), body(&form(&content), cut))
                .await
                .unwrap();
            assert!(
                bytes == content.as_bytes(),
                "{} of {}",
                bytes.len(),
                content.len()
            );
        }
    }

    #[tokio::test]
    async fn what_is_no_multipart_is_refused() {
        for text in [
            "",
            "{}",
            "--",
            "--b0undary",
            "no boundary\r\n",
            &"x".repeat(1000),
        ] {
            let refused = first_file(&HeaderMap::new(), body(text, 100))
                .await
                .unwrap_err();
            assert_eq!(refused.code.status().as_u16(), 400, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_cut_of_the_chunks_does_not_matter(content in "[ -~]{0,200}", cut in 1_usize..60) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let read = runtime.unwrap().block_on(async {
                first_file(&HeaderMap::new(), body(&form(&content), cut)).await
            });
            prop_assert_eq!(read.unwrap().1, content.as_bytes());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in "\\PC{0,200}", cut in 1_usize..60) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            drop(runtime.unwrap().block_on(first_file(&HeaderMap::new(), body(&bytes, cut))));
        }
    }
}
