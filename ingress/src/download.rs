//! A file on its way to its reader, whole or in part.

use std::ops::Range;

use futures_util::{Stream, StreamExt, TryStreamExt, future::ready, stream, stream::BoxStream};
use proto::{blob::Staged, file::FileEntry};
use store::{
    Store, StoreError,
    log::{commit::File, content, key::LogKey},
};

/// A file's bytes, as they arrive.
pub type Content =
    BoxStream<'static, Result<bytes::Bytes, Box<dyn std::error::Error + Send + Sync>>>;

/// Where a file's bytes are.
#[derive(Debug)]
pub enum Bytes {
    /// Here.
    Inline(bytes::Bytes),
    /// In a staging object that was made for this reader.
    Staged(Staged),
    /// In the session's log.
    Logged(LogKey, File),
}

/// A file that was found and can be read.
#[derive(Debug)]
pub struct Download {
    /// What is told of it.
    pub entry: FileEntry,
    store: Store,
    bytes: Bytes,
}

impl Download {
    pub(crate) fn new(store: Store, entry: FileEntry, bytes: Bytes) -> Self {
        Self {
            entry,
            store,
            bytes,
        }
    }

    /// The bytes of `range`, which lies in the file.
    ///
    /// # Errors
    /// The store failed before the first byte.
    pub async fn read(self, range: Range<u64>) -> Result<Content, StoreError> {
        match self.bytes {
            Bytes::Inline(bytes) => {
                let all = stream::iter([Ok(bytes)]);
                Ok(cut(all, range).boxed())
            }
            Bytes::Staged(staged) => {
                let all = self.store.read(staged).await?.map_err(Into::into);
                Ok(cut(all, range).boxed())
            }
            Bytes::Logged(place, file) => {
                let part = content::read(&self.store, &place, &file, range);
                Ok(part.map_err(Into::into).boxed())
            }
        }
    }

    /// Gives up reading: nothing that was made for it stays.
    pub async fn give_up(self) {
        if let Bytes::Staged(staged) = &self.bytes {
            self.store.discard(staged).await;
        }
    }
}

/// The part of a stream that lies in `range`.
fn cut<E>(
    whole: impl Stream<Item = Result<bytes::Bytes, E>>,
    range: Range<u64>,
) -> impl Stream<Item = Result<bytes::Bytes, E>> {
    let length = range.end.saturating_sub(range.start);
    whole.scan((range.start, length), |(skip, left), chunk| {
        let cut = (*left > 0).then(|| {
            chunk.map(|mut chunk| {
                let skipped = clamp(*skip, chunk.len());
                let mut kept = chunk.split_off(skipped);
                kept.truncate(clamp(*left, kept.len()));
                *skip -= skipped as u64;
                *left -= kept.len() as u64;
                kept
            })
        });
        ready(cut)
    })
}

fn clamp(wanted: u64, there: usize) -> usize {
    usize::try_from(wanted).map_or(there, |wanted| wanted.min(there))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn cut_of(chunks: &[Vec<u8>], range: Range<u64>) -> Vec<u8> {
        let chunks = chunks.iter().map(|chunk| Ok::<_, ()>(chunk.clone().into()));
        let whole = stream::iter(chunks.collect::<Vec<_>>());
        let parts: Vec<bytes::Bytes> = cut(whole, range).try_collect().await.unwrap();
        parts.concat()
    }

    proptest! {
        #[test]
        fn a_cut_is_the_slice_of_the_whole(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9),
            (a, b) in (0..70_u64, 0..70_u64),
        ) {
            let whole = chunks.concat();
            let (start, end) = (a.min(b), a.max(b));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let got = runtime.block_on(cut_of(&chunks, start..end));
            let slice = |at: u64| usize::try_from(at).unwrap().min(whole.len());
            prop_assert_eq!(&got, &whole[slice(start)..slice(end)]);
        }
    }
}
