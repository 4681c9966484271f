//! What waits for a reader, and how much of it may be on its way. Pure.

use std::collections::VecDeque;

use proto::{
    execution::{Bundle, Output, Truncated},
    limits::{STREAM_BACKLOG_BYTES, STREAM_FRAME_BYTES, STREAM_WINDOW_BYTES, STREAM_WINDOW_FRAMES},
    wire,
};

use super::Stream;

/// See [`super::Outlet`].
#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: VecDeque<Output>,
    /// What it costs together.
    cost: usize,
    stdout: Cut,
    stderr: Cut,
    /// What is on its way: frames, and what they cost.
    sent: (usize, usize),
}

/// Where a stream was cut: in the middle of a character, or by what was dropped.
#[derive(Debug, Default)]
struct Cut {
    /// The first bytes of a character.
    half: Vec<u8>,
    /// What came before was dropped, so the next bytes may be the end of a character.
    dropped: bool,
}

impl Backlog {
    pub(super) fn text(&mut self, stream: Stream, mut bytes: &[u8]) {
        let room = self.cost + bytes.len() <= STREAM_BACKLOG_BYTES;
        let cut = self.cut(stream);
        if !room {
            let lost = std::mem::take(&mut cut.half).len() + bytes.len();
            cut.dropped = true;
            return self.dropped(stream, lost);
        }
        if std::mem::take(&mut cut.dropped) {
            let rest = bytes.iter().take_while(|byte| is_continuation(**byte));
            let (rest, whole) = bytes.split_at(rest.count().min(3));
            bytes = whole;
            if !rest.is_empty() {
                let lost = rest.len();
                self.dropped(stream, lost);
            }
        }
        let cut = self.cut(stream);
        let mut all = std::mem::take(&mut cut.half);
        all.extend_from_slice(bytes);
        cut.half = all.split_off(all.len() - unfinished(&all));
        self.say(stream, &String::from_utf8_lossy(&all));
    }

    pub(super) fn end(&mut self, stream: Stream) {
        let half = std::mem::take(&mut self.cut(stream).half);
        self.say(stream, &String::from_utf8_lossy(&half));
    }

    pub(super) fn clear(&mut self) {
        // What waits is taken back as well. A code that shows and clears for ever fills nothing like this.
        self.waiting.clear();
        self.cost = 0;
        self.stdout.half.clear();
        self.stderr.half.clear();
        self.push(Output::Cleared);
    }

    pub(super) fn display(&mut self, bundle: &Bundle, name: Option<u32>, update: bool) {
        let encoded = wire::encode(bundle).unwrap_or_default();
        let fits = self.cost + encoded.len() <= STREAM_BACKLOG_BYTES;
        if encoded.is_empty() || !(fits || self.waiting.is_empty()) {
            return self.note(Truncated {
                displays: 1,
                ..Truncated::default()
            });
        }
        let parts = encoded.len().div_ceil(STREAM_FRAME_BYTES);
        for (part, number) in encoded.chunks(STREAM_FRAME_BYTES).zip(1..) {
            self.push(Output::Display {
                part: part.to_vec(),
                last: number == parts,
                name,
                update,
            });
        }
    }

    pub(super) fn credit(&mut self, frames: u32, bytes: u64) {
        let all = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        self.sent.0 = self.sent.0.saturating_sub(all(frames.into()));
        self.sent.1 = self.sent.1.saturating_sub(all(bytes));
    }

    pub(super) fn take(&mut self) -> Option<Output> {
        if !self.is_ready() {
            return None;
        }
        let output = self.waiting.pop_front()?;
        let cost = output.cost();
        self.cost -= cost;
        self.sent = (self.sent.0 + 1, self.sent.1 + cost);
        Some(output)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.waiting.front().is_some_and(|next| {
            self.sent.0 < STREAM_WINDOW_FRAMES && self.sent.1 + next.cost() <= STREAM_WINDOW_BYTES
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn give_up(&mut self) -> Option<Output> {
        let mut lost = Truncated::default();
        for output in std::mem::take(&mut self.waiting) {
            match output {
                Output::Stdout(text) => lost.stdout += text.len() as u64,
                Output::Stderr(text) => lost.stderr += text.len() as u64,
                Output::Display { last, .. } => lost.displays += u64::from(last),
                Output::Dropped(more) => add(&mut lost, more),
                Output::Cleared | Output::Unknown => {}
            }
        }
        self.cost = 0;
        (lost != Truncated::default()).then_some(Output::Dropped(lost))
    }

    fn cut(&mut self, stream: Stream) -> &mut Cut {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Puts in text, in frames, the first of which may be the last that waits.
    fn say(&mut self, stream: Stream, mut text: &str) {
        while !text.is_empty() {
            let filled = match (self.waiting.back(), stream) {
                (Some(Output::Stdout(last)), Stream::Stdout)
                | (Some(Output::Stderr(last)), Stream::Stderr) => last.len(),
                _ => 0,
            };
            let room = STREAM_FRAME_BYTES.saturating_sub(filled);
            let (now, later) = text.split_at(text.floor_char_boundary(room));
            match self.waiting.back_mut() {
                Some(Output::Stdout(last) | Output::Stderr(last))
                    if filled > 0 && !now.is_empty() =>
                {
                    last.push_str(now);
                    self.cost += now.len();
                    text = later;
                }
                _ => {
                    let most = text.floor_char_boundary(STREAM_FRAME_BYTES);
                    let (now, later) = text.split_at(most);
                    self.push(match stream {
                        Stream::Stdout => Output::Stdout(now.to_owned()),
                        Stream::Stderr => Output::Stderr(now.to_owned()),
                    });
                    text = later;
                }
            }
        }
    }

    fn push(&mut self, output: Output) {
        self.cost += output.cost();
        self.waiting.push_back(output);
    }

    fn dropped(&mut self, stream: Stream, bytes: usize) {
        let mut lost = Truncated::default();
        match stream {
            Stream::Stdout => lost.stdout = bytes as u64,
            Stream::Stderr => lost.stderr = bytes as u64,
        }
        self.note(lost);
    }

    /// Leaves word of it where it would have stood.
    fn note(&mut self, lost: Truncated) {
        match self.waiting.back_mut() {
            Some(Output::Dropped(known)) => add(known, lost),
            _ => self.push(Output::Dropped(lost)),
        }
    }
}

fn add(known: &mut Truncated, more: Truncated) {
    known.stdout = known.stdout.saturating_add(more.stdout);
    known.stderr = known.stderr.saturating_add(more.stderr);
    known.displays = known.displays.saturating_add(more.displays);
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// How many bytes at the end are the beginning of a character that goes on.
fn unfinished(bytes: &[u8]) -> usize {
    for (byte, count) in bytes.iter().rev().zip(1..=3) {
        let whole = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            byte if is_continuation(*byte) => continue,
            _ => return 0,
        };
        return if whole > count { count } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::limits::STREAM_PIECE_BYTES;

    use super::*;

    fn all(backlog: &mut Backlog) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(output) = backlog.take() {
            backlog.credit(1, output.cost() as u64);
            outputs.push(output);
        }
        outputs
    }

    fn stdout(outputs: &[Output]) -> String {
        let texts = outputs.iter().filter_map(|output| match output {
            Output::Stdout(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    #[test]
    fn what_is_taken_back_waits_for_nobody() {
        let mut backlog = Backlog::default();
        for _ in 0..100_000 {
            backlog.text(Stream::Stdout, b"step \xc5");
            backlog.clear();
        }
        backlog.text(Stream::Stdout, b"last");
        let expected = [Output::Cleared, Output::Stdout("last".to_owned())];
        assert_eq!(all(&mut backlog), expected);
    }

    #[test]
    fn order_is_kept_and_small_pieces_that_wait_are_joined() {
        let mut backlog = Backlog::default();
        backlog.text(Stream::Stdout, b"a");
        backlog.text(Stream::Stdout, b"b");
        backlog.text(Stream::Stderr, b"c");
        backlog.text(Stream::Stdout, b"d");
        let text = |text: &str| text.to_owned();
        let expected = [
            Output::Stdout(text("ab")),
            Output::Stderr(text("c")),
            Output::Stdout(text("d")),
        ];
        assert_eq!(all(&mut backlog), expected);
    }

    #[test]
    fn a_reader_that_takes_nothing_gets_a_window_and_what_comes_later_is_counted() {
        let mut backlog = Backlog::default();
        let chunk = vec![b'x'; 64 * 1024];
        let mut printed = 0;
        let mut sent = Vec::new();
        for _ in 0..1600 {
            backlog.text(Stream::Stdout, &chunk);
            printed += chunk.len();
            sent.extend(std::iter::from_fn(|| backlog.take()));
        }
        let on_its_way: usize = sent.iter().map(Output::cost).sum();
        assert!(on_its_way <= STREAM_WINDOW_BYTES && sent.len() <= STREAM_WINDOW_FRAMES);
        assert!(backlog.cost <= STREAM_BACKLOG_BYTES + STREAM_BACKLOG_BYTES / 8);
        backlog.credit(u32::MAX, u64::MAX);
        let rest = all(&mut backlog);
        let Some(Output::Dropped(lost)) = rest.last() else {
            panic!("nothing is said of what was dropped");
        };
        let told = stdout(&sent).len() + stdout(&rest).len();
        assert_eq!(told as u64 + lost.stdout, printed as u64);
    }

    #[test]
    fn a_long_display_is_one_in_parts() {
        let bundle = Bundle(vec![(
            "image/png".into(),
            "x".repeat(3 * STREAM_BACKLOG_BYTES),
        )]);
        let mut backlog = Backlog::default();
        backlog.display(&bundle, None, false);
        backlog.display(&bundle, None, false);
        let mut bytes = Vec::new();
        let mut lasts = 0;
        for output in all(&mut backlog) {
            match output {
                Output::Display { part, last, .. } => {
                    bytes.extend(part);
                    lasts += usize::from(last);
                }
                Output::Dropped(lost) => assert_eq!(lost.displays, 1),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(lasts, 1);
        assert_eq!(wire::decode::<Bundle>(&bytes).unwrap(), bundle);
    }

    #[test]
    fn what_is_given_up_is_counted() {
        let mut backlog = Backlog::default();
        backlog.text(Stream::Stderr, b"abc");
        backlog.display(&Bundle::default(), None, false);
        let lost = Truncated {
            stderr: 3,
            displays: 1,
            stdout: 0,
        };
        assert_eq!(backlog.give_up(), Some(Output::Dropped(lost)));
        assert!(backlog.is_empty() && backlog.give_up().is_none());
    }

    proptest! {
        #[test]
        fn characters_are_whole_wherever_they_were_cut(
            text in "[a-zž€😀]{0,40}",
            cuts in proptest::collection::vec(1..7_usize, 0..60),
        ) {
            let mut backlog = Backlog::default();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                backlog.text(Stream::Stdout, now);
                rest = later;
            }
            backlog.text(Stream::Stdout, rest);
            backlog.end(Stream::Stdout);
            prop_assert_eq!(stdout(&all(&mut backlog)), text);
        }

        #[test]
        fn any_bytes_come_out_as_text_and_in_frames_of_the_size(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            times in 1..400_usize,
        ) {
            let mut backlog = Backlog::default();
            for _ in 0..times {
                backlog.text(Stream::Stdout, &bytes);
            }
            backlog.end(Stream::Stdout);
            for output in all(&mut backlog) {
                prop_assert!(output.cost() <= STREAM_FRAME_BYTES + STREAM_PIECE_BYTES);
            }
            prop_assert_eq!(backlog.cost, 0);
        }
    }
}
