//! Standard output and error of a cell, bounded while they are read.

use std::sync::Arc;

use bytes::BytesMut;

use crate::outlet::{Outlet, Stream};

/// Bytes of each stream that are kept of what is printed between two executions.
const BETWEEN_BYTES: u64 = 64 * 1024;
/// Stands before them.
const BETWEEN: &str = "[printed between executions]\n";
/// Stands before what the execution itself prints.
const NOW: &str = "[printed by this execution]\n";

/// Room for what is printed between two executions.
pub(super) fn between() -> Output {
    Output::new(BETWEEN_BYTES)
}

/// What came out of both pipes.
#[derive(Debug)]
pub struct Output {
    /// Standard output.
    pub stdout: Captured,
    /// Standard error.
    pub stderr: Captured,
}

impl Output {
    /// Keeps at most `limit` bytes of each.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            stdout: Captured::new(limit),
            stderr: Captured::new(limit),
        }
    }

    /// Begins with what was printed between two executions, and says so.
    pub(super) fn begin_with(&mut self, between: Self) {
        self.stdout.begin_with(between.stdout);
        self.stderr.begin_with(between.stderr);
    }

    /// Takes back what was printed so far. An outlet is told by whoever takes back the displays.
    pub(super) fn clear(&mut self) {
        self.stdout.clear();
        self.stderr.clear();
    }

    /// Also lets an outlet have everything.
    #[must_use]
    pub fn through(self, outlet: Option<&Arc<Outlet>>) -> Self {
        Self {
            stdout: self.stdout.through(outlet, Stream::Stdout),
            stderr: self.stderr.through(outlet, Stream::Stderr),
        }
    }
}

/// The first bytes of a stream up to a limit; the rest is counted and dropped.
#[derive(Debug)]
pub struct Captured {
    kept: BytesMut,
    limit: usize,
    dropped: u64,
    /// Whoever reads along.
    outlet: Option<(Arc<Outlet>, Stream)>,
}

impl Captured {
    /// Keeps at most `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            kept: BytesMut::new(),
            limit,
            dropped: 0,
            outlet: None,
        }
    }

    fn begin_with(&mut self, between: Self) {
        if between.kept.is_empty() {
            return;
        }
        let (mut text, _) = between.into_text();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        self.push(format!("{BETWEEN}{text}{NOW}").as_bytes());
    }

    fn clear(&mut self) {
        self.kept.clear();
        self.dropped = 0;
    }

    fn through(self, outlet: Option<&Arc<Outlet>>, stream: Stream) -> Self {
        Self {
            outlet: outlet.map(|outlet| (outlet.clone(), stream)),
            ..self
        }
    }

    /// Keeps at most `limit` bytes of what was taken: the traceback needs room, too.
    pub fn shrink(&mut self, limit: u64) {
        self.limit = usize::try_from(limit).unwrap_or(usize::MAX).min(self.limit);
        let excess = self.kept.len().saturating_sub(self.limit);
        self.kept.truncate(self.limit);
        self.dropped = self.dropped.saturating_add(excess as u64);
    }

    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        if let Some((outlet, stream)) = &self.outlet {
            outlet.text(*stream, bytes);
        }
        let room = self.limit - self.kept.len();
        let (kept, dropped) = bytes.split_at(room.min(bytes.len()));
        self.kept.extend_from_slice(kept);
        self.dropped = self.dropped.saturating_add(dropped.len() as u64);
    }

    /// The text, with a last line that says how much is missing, if anything is; and how much that is.
    /// What is no text becomes longer than it was, so it is measured as text, too.
    #[must_use]
    pub fn into_text(self) -> (String, u64) {
        if let Some((outlet, stream)) = &self.outlet {
            outlet.end(*stream);
        }
        let (limit, mut dropped) = (self.limit, self.dropped);
        let mut text = String::from_utf8_lossy(&self.kept).into_owned();
        if dropped > 0 {
            // A cut may fall inside a character; the half of it is not the user's output.
            if text.ends_with(char::REPLACEMENT_CHARACTER) {
                text.pop();
            }
        }
        if text.len() > limit {
            let kept = text.floor_char_boundary(limit);
            dropped = dropped.saturating_add((text.len() - kept) as u64);
            text.truncate(kept);
        }
        if dropped > 0 {
            text.push_str(&format!(
                "\n[output truncated after {limit} bytes; {dropped} more]\n"
            ));
        }
        (text, dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_up_to_the_limit_is_untouched() {
        let mut captured = Captured::new(5);
        captured.push(b"ab");
        captured.push(b"cde");
        assert_eq!(captured.into_text(), ("abcde".to_owned(), 0));
    }

    #[test]
    fn a_flood_is_cut_and_says_so() {
        let mut captured = Captured::new(4);
        captured.push("žžž".as_bytes());
        captured.push(b"more");
        assert_eq!(
            captured.into_text(),
            (
                "žž\n[output truncated after 4 bytes; 6 more]\n".to_owned(),
                6
            )
        );
    }

    #[test]
    fn what_was_printed_between_two_executions_comes_first_and_is_marked() {
        let mut earlier = between();
        earlier.stdout.push(b"late");
        let mut output = Output::new(1000);
        output.begin_with(earlier);
        output.stdout.push(b"now");
        output.stderr.push(b"now");
        let expected = "[printed between executions]\nlate\n[printed by this execution]\nnow";
        assert_eq!(output.stdout.into_text().0, expected);
        assert_eq!(output.stderr.into_text().0, "now");
    }

    #[test]
    fn what_was_printed_between_two_executions_is_bounded_twice() {
        let mut earlier = between();
        earlier.stdout.push(&vec![b'x'; 1 << 20]);
        assert!(earlier.stdout.kept.len() <= 64 * 1024);
        let mut output = Output::new(100);
        output.begin_with(earlier);
        assert_eq!(output.stdout.kept.len(), 100);
    }

    #[test]
    fn what_is_taken_back_leaves_all_the_room() {
        let mut output = Output::new(4);
        output.stdout.push(b"too much");
        output.clear();
        output.stdout.push(b"new");
        assert_eq!(output.stdout.into_text(), ("new".to_owned(), 0));
    }

    #[test]
    fn bytes_that_are_no_text_do_not_break_the_answer() {
        let mut captured = Captured::new(10);
        captured.push(b"a\xffb");
        assert_eq!(captured.into_text().0, "a\u{fffd}b");
    }

    #[test]
    fn bytes_that_are_no_text_stay_within_the_limit_as_text() {
        let mut captured = Captured::new(10);
        captured.push(&[0xff; 10]);
        let (text, dropped) = captured.into_text();
        assert!(text.starts_with("\u{fffd}\u{fffd}\u{fffd}\n[output truncated after 10 bytes"));
        assert_eq!(dropped, 21);
    }

    #[test]
    fn what_was_kept_can_be_cut_again() {
        let mut captured = Captured::new(10);
        captured.push(b"0123456789ab");
        captured.shrink(4);
        captured.shrink(100);
        assert_eq!(
            captured.into_text(),
            (
                "0123\n[output truncated after 4 bytes; 8 more]\n".to_owned(),
                8
            )
        );
    }
}
