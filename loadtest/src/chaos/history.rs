//! What the clients did and heard. Every request is two lines of the history file: one before it is
//! sent, one when its answer is there, so that the file is whole whatever happens to this process.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// File that executes append to.
pub const LOG: &str = "log.txt";

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Run code that appends this number to the log and to a variable, and shows both.
    Append(u32),
    /// Run code that shows both and changes nothing.
    Peek,
    /// Store the content of this number under a path.
    Upload(String, u32),
    /// Fetch a path.
    Download(String),
    /// Remove a path.
    Delete(String),
    /// List all files.
    List,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The code ran to its end and showed the log and the variable.
    Shown {
        /// Numbers in the log.
        log: Vec<u32>,
        /// Numbers in the variable.
        trail: Vec<u32>,
    },
    /// The code ran, but not to its end.
    Failed(String),
    /// The file is stored or removed.
    Done,
    /// The path holds the content of this number.
    Content(u32),
    /// The log holds these numbers.
    Lines(Vec<u32>),
    /// There is no such file.
    Missing,
    /// The files with their sizes.
    Files(BTreeMap<String, u64>),
    /// A success with a content that no client ever sent.
    Alien(String),
    /// The service said no.
    Refused(u16, String),
    /// No answer came, or not a whole one.
    Lost(String),
}

/// What a request may have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Certainly nothing: the service said so.
    No,
    /// Nobody knows.
    Maybe,
    /// All of it, and it is durable: the service said so.
    Yes,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Place in the history.
    pub number: usize,
    /// The operation that it belongs to: repetitions have the same.
    pub operation: u32,
    /// The session's identifier.
    pub session: String,
    /// The ingress that was asked.
    pub ingress: usize,
    /// What for.
    pub action: Action,
    /// The operation id that was sent.
    pub sent_id: Option<String>,
    /// Whether it verifies what is left after everything has recovered.
    pub last: bool,
    /// When it was sent, in microseconds since 1970.
    pub sent_us: u64,
    /// Its answer, if there is one yet.
    pub reply: Option<Reply>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// When it was there, in microseconds since 1970.
    pub at_us: u64,
    /// What it said.
    pub answer: Answer,
    /// The operation id that it named.
    pub id: Option<String>,
}

impl Answer {
    /// What the request did, according to this answer.
    #[must_use]
    pub fn effect(&self) -> Effect {
        match self {
            Self::Shown { .. }
            | Self::Done
            | Self::Content(_)
            | Self::Lines(_)
            | Self::Missing
            | Self::Files(_) => Effect::Yes,
            // How far the code came is not known.
            Self::Failed(_) | Self::Alien(_) | Self::Lost(_) => Effect::Maybe,
            Self::Refused(status, code) => refusal(*status, code),
        }
    }

    /// Whether the caller got what it asked for.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.effect() == Effect::Yes
    }
}

/// What a refusal says about effects. Only what says "nothing happened" counts as that.
fn refusal(status: u16, code: &str) -> Effect {
    match (status, code) {
        // The session ended while the request waited or ran.
        (_, "SessionStopped" | "RequestTimeout") => Effect::Maybe,
        (400..=499, _) | (503, "NoCapacity" | "BusUnavailable") => Effect::No,
        _ => Effect::Maybe,
    }
}

impl Call {
    /// What it did, as far as its caller knows.
    #[must_use]
    pub fn effect(&self) -> Effect {
        let reply = self.reply.as_ref();
        reply.map_or(Effect::Maybe, |reply| reply.answer.effect())
    }

    /// Its answer.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        self.reply.as_ref().map(|reply| &reply.answer)
    }

    /// When its answer was there; never for one without.
    #[must_use]
    pub fn answered_us(&self) -> u64 {
        self.reply.as_ref().map_or(u64::MAX, |reply| reply.at_us)
    }

    /// The operation id under which the service knows it, if that is known here.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        let named = self.reply.as_ref().and_then(|reply| reply.id.as_deref());
        named.or(self.sent_id.as_deref())
    }
}

/// Writes the history down while it happens.
#[derive(Debug)]
pub struct Recorder {
    clock: Clock,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    calls: Vec<Call>,
    file: File,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Sent(&'a Call),
    Answered(usize, &'a Reply),
}

impl Recorder {
    /// A history in a new file.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        let book = Book {
            calls: Vec::new(),
            file: File::create(path)?,
        };
        Ok(Self {
            clock: Clock::new(),
            book: Mutex::new(book),
        })
    }

    /// The clock of all times in the history.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Notes that a request is about to be sent; gives it its number and its time.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn sent(&self, mut call: Call) -> Result<usize> {
        let mut book = self.book();
        call.number = book.calls.len();
        call.sent_us = self.clock.now_us();
        book.write(&Line::Sent(&call))?;
        let number = call.number;
        book.calls.push(call);
        Ok(number)
    }

    /// Notes an answer that has just come.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn answered(&self, number: usize, answer: Answer, id: Option<String>) -> Result<()> {
        let mut book = self.book();
        let reply = Reply {
            at_us: self.clock.now_us(),
            answer,
            id,
        };
        book.write(&Line::Answered(number, &reply))?;
        if let Some(call) = book.calls.get_mut(number) {
            call.reply = Some(reply);
        }
        Ok(())
    }

    /// Everything so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.book().calls.clone()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn write(&mut self, line: &Line<'_>) -> Result<()> {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        Ok(self.file.write_all(&line)?)
    }
}

/// Wall-clock time that never steps: read once, then counted.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall_us: u64,
    since: Instant,
}

impl Clock {
    /// Reads the wall clock.
    #[must_use]
    pub fn new() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            wall_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
            since: Instant::now(),
        }
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        let counted = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.wall_us.saturating_add(counted)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clear_words_count_as_nothing_happened() {
        let effect = |status, code: &str| Answer::Refused(status, code.into()).effect();
        for (status, code) in [
            (429, "SessionBusy"),
            (429, "SessionPoolFull"),
            (503, "NoCapacity"),
            (503, "BusUnavailable"),
            (400, "SessionRequestValidationFailed"),
        ] {
            assert_eq!(effect(status, code), Effect::No, "{code}");
        }
        for (status, code) in [
            (500, "ExecutionLost"),
            (503, "StorageUnavailable"),
            (409, "SessionStopped"),
            (500, "InternalError"),
            (503, ""),
            (502, ""),
        ] {
            assert_eq!(effect(status, code), Effect::Maybe, "{code}");
        }
        assert_eq!(Answer::Missing.effect(), Effect::Yes);
        assert_eq!(Answer::Failed("x".into()).effect(), Effect::Maybe);
    }

    #[test]
    fn a_history_is_on_disk_before_its_answers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let recorder = Recorder::create(&path).unwrap();
        let call = Call {
            number: 0,
            operation: 4,
            session: "chaos-1".into(),
            ingress: 1,
            action: Action::Append(4),
            sent_id: Some("op-4".into()),
            last: false,
            sent_us: 0,
            reply: None,
        };
        let number = recorder.sent(call).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
        assert_eq!(recorder.calls()[0].effect(), Effect::Maybe);
        let shown = Answer::Shown {
            log: vec![4],
            trail: vec![4],
        };
        recorder.answered(number, shown, None).unwrap();
        let calls = recorder.calls();
        assert_eq!(
            (calls[0].effect(), calls[0].id()),
            (Effect::Yes, Some("op-4"))
        );
        assert!(calls[0].sent_us > 0 && calls[0].answered_us() >= calls[0].sent_us);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
}
