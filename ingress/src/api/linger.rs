//! Bodies that are refused before their end. A server that closes a connection on which a client still sends
//! has the client's system drop what was answered, so the client sees a broken connection and no error
//! (RFC 9112 §9.6). So what nobody reads any more is read and dropped, within bounds.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, Bytes, HttpBody},
    extract::Request,
    http::header,
};
use futures_util::StreamExt;
use http_body::{Frame, SizeHint};
use tokio::time::timeout;

/// Most bytes that are read and dropped: twice the longest file.
const BYTES: u64 = 2 * proto::limits::UPLOAD_BYTES;
/// Longest that this takes,
const WITHIN: Duration = Duration::from_secs(30);
/// and longest silence of the sender meanwhile.
const SILENCE: Duration = Duration::from_secs(5);

/// Has what is left of the request's body read and dropped when the body itself is dropped.
pub fn over_rest(request: Request) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    let awaits_word = request.headers().contains_key(header::EXPECT);
    request.map(|body| Body::new(Lingering { body, awaits_word }))
}

struct Lingering {
    body: Body,
    /// The client sends nothing until it is asked to go on, which reading does.
    awaits_word: bool,
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.awaits_word = false;
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.awaits_word || self.body.is_end_stream() {
            return;
        }
        // Without a runtime the server is gone.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let rest = mem::take(&mut self.body).into_data_stream();
            runtime.spawn(timeout(WITHIN, drop_all(rest)));
        }
    }
}

async fn drop_all(mut rest: BodyDataStream) {
    let mut left = BYTES;
    while let Ok(Some(Ok(chunk))) = timeout(SILENCE, rest.next()).await {
        left = left.saturating_sub(chunk.len() as u64);
        if left == 0 {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures_util::stream;
    use tokio::sync::mpsc;

    use super::*;

    const CHUNK: usize = 1 << 20;

    /// A body of `chunks` chunks, and what is told of its end.
    fn body(chunks: usize) -> (Body, Arc<AtomicUsize>, mpsc::Receiver<()>) {
        let (read, (open, closed)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel(1));
        let counted = read.clone();
        let stream = stream::iter(0..chunks).map(move |_| {
            let _open = &open;
            counted.fetch_add(CHUNK, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_static(&[0; CHUNK]))
        });
        (Body::from_stream(stream), read, closed)
    }

    fn drop_unread(request: Request) {
        drop(over_rest(request));
    }

    #[tokio::test]
    async fn what_nobody_reads_is_read_and_dropped() {
        let (body, read, mut closed) = body(7);
        drop_unread(Request::new(body));
        assert_eq!(closed.recv().await, None);
        assert_eq!(read.load(Ordering::Relaxed), 7 * CHUNK);
    }

    #[tokio::test]
    async fn a_body_without_end_is_cut_off() {
        let (body, read, mut closed) = body(usize::MAX);
        drop_unread(Request::new(body));
        assert_eq!(closed.recv().await, None);
        assert_eq!(read.load(Ordering::Relaxed) as u64, BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_sender_is_cut_off() {
        let (open, closed) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let silent = stream::unfold(closed, async |mut closed| {
            closed.recv().await.map(|chunk| (chunk, closed))
        });
        let began = tokio::time::Instant::now();
        drop_unread(Request::new(Body::from_stream(silent)));
        open.closed().await;
        assert_eq!(began.elapsed().as_secs(), SILENCE.as_secs());
    }

    #[tokio::test]
    async fn who_waits_to_be_asked_is_not_asked_in_vain() {
        let (body, read, mut closed) = body(7);
        let request = Request::builder().header(header::EXPECT, "100-continue");
        drop_unread(request.body(body).unwrap());
        assert_eq!(closed.recv().await, None);
        assert_eq!(read.load(Ordering::Relaxed), 0);
    }
}
