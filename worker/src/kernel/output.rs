//! Standard output and error of a cell, bounded while they are read.

use std::sync::Arc;

use bytes::BytesMut;

use crate::outlet::{Outlet, Stream};

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

    /// Also lets an outlet have everything.
    #[must_use]
    pub fn through(self, outlet: Option<&Arc<Outlet>>, stream: Stream) -> Self {
        Self {
            outlet: outlet.map(|outlet| (outlet.clone(), stream)),
            ..self
        }
    }

    /// Bytes that were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
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

    /// The text, with a last line that says how much is missing, if anything is.
    #[must_use]
    pub fn into_text(self) -> String {
        if let Some((outlet, stream)) = &self.outlet {
            outlet.end(*stream);
        }
        let mut text = String::from_utf8_lossy(&self.kept).into_owned();
        if self.dropped > 0 {
            // A cut may fall inside a character; the half of it is not the user's output.
            while text.ends_with(char::REPLACEMENT_CHARACTER) {
                text.pop();
            }
            let (limit, dropped) = (self.limit, self.dropped);
            text.push_str(&format!(
                "\n[output truncated after {limit} bytes; {dropped} more]\n"
            ));
        }
        text
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
        assert_eq!(captured.into_text(), "abcde");
    }

    #[test]
    fn a_flood_is_cut_and_says_so() {
        let mut captured = Captured::new(4);
        captured.push("žžž".as_bytes());
        captured.push(b"more");
        assert_eq!(
            captured.into_text(),
            "žž\n[output truncated after 4 bytes; 6 more]\n"
        );
    }

    #[test]
    fn bytes_that_are_no_text_do_not_break_the_answer() {
        let mut captured = Captured::new(10);
        captured.push(b"a\xffb");
        assert_eq!(captured.into_text(), "a\u{fffd}b");
    }
}
