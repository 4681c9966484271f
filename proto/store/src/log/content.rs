//! A file's bytes as a stream, whole or in part.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use super::{
    commit::{Extent, File, Hash},
    key::LogKey,
    source::{self, SourceError},
};
use crate::Store;

/// Sources of one file that are fetched ahead of the reader; each takes as much memory as it holds.
const AHEAD: usize = 2;

/// What holes read as, a chunk at a time.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Why a file's bytes are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// A source of the file cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What is in the store is not what was hashed.
    #[error("contents differ from what was written")]
    Damaged,
}

/// The bytes of `range`, cut at the end of the file, in chunks of at most
/// [`super::commit::PIECE_BYTES`]. Holes read as zeros. Every extent is held against its hash.
pub fn read(
    store: &Store,
    place: &LogKey,
    file: &File,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, ContentError>> + Send + use<> {
    let (store, place) = (store.clone(), place.clone());
    stream::iter(runs(file, range))
        .map(move |run| bytes_of(store.clone(), place.clone(), run))
        .buffered(AHEAD)
        .try_flatten()
}

/// What a part of a file consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Run {
    /// So many zeros.
    Zeros(u64),
    /// Bytes of an extent.
    Data { extent: Extent, part: Range<u32> },
}

/// The runs that `range` consists of, in order.
fn runs(file: &File, range: Range<u64>) -> Vec<Run> {
    let end = range.end.min(file.size);
    let mut at = range.start;
    let mut runs = vec![];
    if at >= end {
        return runs;
    }
    for extent in &file.extents {
        let (Some(extent_end), true) = (extent.end(), extent.at < end) else {
            break;
        };
        if extent_end <= at {
            continue;
        }
        if at < extent.at {
            runs.push(Run::Zeros(extent.at - at));
            at = extent.at;
        }
        let until = extent_end.min(end);
        let within = |offset: u64| u32::try_from(offset - extent.at).unwrap_or(extent.len);
        runs.push(Run::Data {
            extent: extent.clone(),
            part: within(at)..within(until),
        });
        at = until;
    }
    if at < end {
        runs.push(Run::Zeros(end - at));
    }
    runs
}

type Chunks = stream::BoxStream<'static, Result<Bytes, ContentError>>;

async fn bytes_of(store: Store, place: LogKey, run: Run) -> Result<Chunks, ContentError> {
    match run {
        Run::Zeros(length) => Ok(zeros(length).map(Ok).boxed()),
        Run::Data { extent, part } => {
            let source = source::fetch(&store, &place, &extent.source).await?;
            let bytes = extent_of(&source, &extent)?;
            let (from, to) = (part.start as usize, part.end as usize);
            Ok(stream::iter([Ok(bytes.slice(from..to))]).boxed())
        }
    }
}

/// The bytes of an extent out of its source.
///
/// # Errors
/// The source is too short, or its bytes are not those that were hashed.
pub fn extent_of(source: &Bytes, extent: &Extent) -> Result<Bytes, ContentError> {
    let start = extent.start as usize;
    let end = start.saturating_add(extent.len as usize);
    if end > source.len() {
        return Err(ContentError::Damaged);
    }
    let bytes = source.slice(start..end);
    if Hash::of(&bytes) == extent.hash {
        Ok(bytes)
    } else {
        Err(ContentError::Damaged)
    }
}

fn zeros(length: u64) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(length, |left| async move {
        let chunk = usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        let bytes = Bytes::from_static(ZEROS.get(..chunk).filter(|bytes| !bytes.is_empty())?);
        Some((bytes, left - chunk as u64))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::generate::files;

    /// Which extent every byte of a range comes from, and which of its bytes that is.
    fn naive(file: &File, range: Range<u64>) -> Vec<Option<(usize, u64)>> {
        let end = range.end.min(file.size);
        let of = |at: u64| {
            let mut all = file.extents.iter().enumerate();
            let found = all
                .find(|(_, extent)| (extent.at..extent.at + u64::from(extent.len)).contains(&at));
            found.map(|(index, extent)| (index, at - extent.at))
        };
        (range.start..end).map(of).collect()
    }

    fn expanded(file: &File, runs: &[Run]) -> Vec<Option<(usize, u64)>> {
        let mut all = vec![];
        for run in runs {
            match run {
                Run::Zeros(length) => all.extend((0..*length).map(|_| None)),
                Run::Data { extent, part } => {
                    let index = file.extents.iter().position(|other| other == extent);
                    let index = index.unwrap();
                    all.extend(part.clone().map(|at| Some((index, u64::from(at)))));
                }
            }
        }
        all
    }

    proptest! {
        #[test]
        fn runs_are_exactly_the_bytes_of_the_range(
            file in files(),
            near in any::<prop::sample::Index>(),
            before in 0..2000_u64,
            length in 0..4000_u64,
        ) {
            // Most of a file is holes, so ranges begin near its extents.
            let mut starts: Vec<u64> = file.extents.iter().map(|extent| extent.at).collect();
            starts.extend([0, file.size]);
            let start = starts[near.index(starts.len())].saturating_sub(before);
            let range = start..start + length;
            let runs = runs(&file, range.clone());
            prop_assert_eq!(expanded(&file, &runs), naive(&file, range));
        }
    }

    #[tokio::test]
    async fn a_hole_of_any_length_costs_no_memory() {
        let length = 10 * ZEROS.len() as u64 + 3;
        let chunks: Vec<Bytes> = zeros(length).collect().await;
        assert_eq!(chunks.len(), 11);
        let sum: usize = chunks.iter().map(Bytes::len).sum();
        assert_eq!(sum as u64, length);
        assert!(chunks.iter().flatten().all(|byte| *byte == 0));
        assert_eq!(zeros(0).count().await, 0);
    }
}
