//! Which ranges of a file are kept, and in which pieces. What is left out is a hole.

use std::{io, ops::Range, os::fd::BorrowedFd};

use rustix::{fs::SeekFrom, io::Errno};
use store::log::commit::PIECE_BYTES;

use super::tree::Limit;

/// Shorter gaps are kept as the zeros that they read as: a piece more costs more than they do.
const HOLE_BYTES: u64 = 64 * 1024;

/// Why a file cannot be cut.
#[derive(Debug, thiserror::Error)]
pub(super) enum CutError {
    #[error(transparent)]
    Limit(#[from] Limit),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A range of a file that is kept as one: offset and length.
pub(super) type Piece = (u64, u32);

/// The pieces of a file of this size that has no holes.
pub(super) fn solid(size: u64, most: usize) -> Result<Vec<Piece>, Limit> {
    let mut cutter = Cutter::new(most);
    cutter.data(0..size);
    cutter.finish()
}

/// The pieces of a file of this size that has holes. Moves the file's position.
pub(super) fn sparse(file: BorrowedFd<'_>, size: u64, most: usize) -> Result<Vec<Piece>, CutError> {
    let mut cutter = Cutter::new(most);
    let mut at = 0;
    while at < size && !cutter.full() {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            start => start.map_err(io::Error::from)?,
        };
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            // It was cut meanwhile.
            Err(Errno::NXIO) => break,
            end => end.map_err(io::Error::from)?,
        };
        at = end.min(size).max(at);
        cutter.data(start.min(size)..at);
    }
    Ok(cutter.finish()?)
}

/// Joins runs of data over short gaps and cuts them at multiples of [`PIECE_BYTES`].
struct Cutter {
    run: Range<u64>,
    pieces: Vec<Piece>,
    most: usize,
}

impl Cutter {
    fn new(most: usize) -> Self {
        Self {
            run: 0..0,
            pieces: Vec::new(),
            most,
        }
    }

    /// The next run of data; runs come by rising offset.
    fn data(&mut self, run: Range<u64>) {
        if !self.run.is_empty() && run.start < self.run.end.saturating_add(HOLE_BYTES) {
            self.run.end = run.end;
        } else {
            self.cut();
            self.run = run;
        }
    }

    fn full(&self) -> bool {
        self.pieces.len() > self.most
    }

    fn cut(&mut self) {
        let piece = u64::from(PIECE_BYTES);
        while !self.run.is_empty() && !self.full() {
            let start = self.run.start;
            let end = self.run.end.min((start / piece + 1).saturating_mul(piece));
            self.run.start = end;
            // No longer than a piece.
            let length = u32::try_from(end - start).unwrap_or(PIECE_BYTES);
            self.pieces.push((start, length));
        }
    }

    fn finish(mut self) -> Result<Vec<Piece>, Limit> {
        self.cut();
        if self.full() {
            Err(Limit::Extents)
        } else {
            Ok(self.pieces)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd, unix::fs::FileExt};

    use proptest::prelude::*;

    use super::*;

    const P: u64 = PIECE_BYTES as u64;

    #[test]
    fn an_empty_file_has_no_pieces() {
        assert_eq!(solid(0, 1), Ok(vec![]));
    }

    #[test]
    fn more_pieces_than_may_be_are_refused() {
        assert_eq!(solid(3 * P, 3).unwrap().len(), 3);
        assert_eq!(solid(3 * P + 1, 3), Err(Limit::Extents));
    }

    #[test]
    fn holes_of_a_real_file_are_left_out() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * P).unwrap();
        file.write_all_at(&[1; 4096], P + 4096).unwrap();
        file.write_all_at(&[1; 4096], P + 4096 * 8).unwrap();
        file.write_all_at(&[1; 4096], 2 * P - 4096).unwrap();
        let pieces = sparse(file.as_fd(), 3 * P, 9).unwrap();
        assert_eq!(pieces, [(P + 4096, 4096 * 8), (2 * P - 4096, 4096)]);
    }

    proptest! {
        #[test]
        fn pieces_cover_all_data_in_order_and_cross_no_boundary(
            gaps in prop::collection::vec((1..200_000_u64, 1..9_000_000_u64), 0..20),
        ) {
            let mut cutter = Cutter::new(usize::MAX - 1);
            let (mut at, mut runs) = (0, vec![]);
            for (gap, length) in gaps {
                let run = at + gap..at + gap + length;
                at = run.end;
                cutter.data(run.clone());
                runs.push(run);
            }
            let pieces = cutter.finish().unwrap();
            let inside = |byte: u64| {
                pieces.iter().any(|&(at, len)| (at..at + u64::from(len)).contains(&byte))
            };
            for run in &runs {
                prop_assert!(inside(run.start) && inside(run.end - 1));
            }
            for (&(at, len), next) in pieces.iter().zip(pieces.iter().skip(1)) {
                prop_assert!(at + u64::from(len) <= next.0);
            }
            for &(at, len) in &pieces {
                prop_assert!(len > 0 && at / P == (at + u64::from(len) - 1) / P);
            }
            for pair in runs.windows(2) {
                let hole = pair[0].end..pair[1].start;
                let kept = inside(hole.start);
                prop_assert_eq!(kept, hole.end - hole.start < HOLE_BYTES);
            }
        }
    }
}
