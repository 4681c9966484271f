//! One session's committer: a task that everything goes through which changes the session's commit
//! log, one change after the other, so that cells and file operations need not wait for each other.

use std::{fmt, future::pending, time::Duration};

use futures_util::future::BoxFuture;
use process::spans;
use proto::{
    execution::Durability,
    fault::{Fault, FaultCode},
    file::FilePath,
    limits,
};
use store::log::{
    commit::{Body, File, Seq, Variables},
    writer::Writer,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};
use tracing::{Instrument, Span};

use super::{ports::FilesPort, table::Note};
use crate::{
    kernel::variables::Snapshot,
    metrics::Counts,
    sync::{Changed, Limit, SyncError, Synced},
    trace,
};

/// Requests that may wait; whoever finds no room waits for it.
const REQUESTS: usize = 64;
/// First and longest pause between two attempts to reach the store.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long a committer may go on whose session is over.
const END_WITHIN: Duration = Duration::from_secs(1);
/// Pause after a write-behind that failed.
const RETRY_BEHIND: Duration = Duration::from_secs(1);

/// The way to a session's committer. All clones lead to the same.
#[derive(Clone, Debug)]
pub struct Saver {
    requests: mpsc::Sender<Request>,
    committed: watch::Receiver<Option<Instant>>,
}

/// The committer itself, for whoever ends it. Says in the end whether the session's log may hold anything.
#[derive(Debug)]
pub struct Committer(JoinHandle<bool>);

/// How the files of a session are saved, and who hears of it.
pub struct Upkeep {
    /// How long saving may lag behind answers, in pools that allow it.
    pub window: Option<Duration>,
    /// Hears of commits.
    pub counts: Counts,
    /// Reaches the session, of which another owner may turn up.
    pub tell: Box<dyn Fn(Note) + Send>,
    /// What is logged of saving belongs to it.
    pub span: Span,
}

/// Why files were not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The session has another owner.
    #[error("the session moved to another worker")]
    Fenced,
    /// There is too much of something, until the session removes some of it.
    #[error("the files cannot be kept")]
    Unkeepable(#[source] Limit),
    /// It was tried for as long as is worth waiting.
    #[error("failed to save files in time")]
    Sync(#[source] Box<SyncError>),
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
}

/// Files on their way.
pub type Saving = BoxFuture<'static, Result<Saved, SaveError>>;

/// What became of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Whether they are in the store.
    pub durability: Durability,
    /// Those that changed; `None` when that is not known.
    pub changed: Option<Changed>,
}

impl Saved {
    const LATER: Self = Self {
        durability: Durability::WriteBehind,
        changed: None,
    };
}

#[derive(Debug)]
enum What {
    /// Everything that changed. `behind` allows it to happen after the answer.
    All { behind: bool },
    /// What an upload or a deletion did.
    Path(FilePath),
    /// The interpreter's variables, for the next owner.
    Variables(Snapshot),
}

#[derive(Debug)]
struct Save {
    what: What,
    /// What is logged on the way belongs to it.
    span: Span,
}

#[derive(Debug)]
enum Request {
    Save(Save, oneshot::Sender<Result<Saved, SaveError>>),
    /// Where a file's bytes are in the log, if they are what the file holds now.
    Find(FilePath, oneshot::Sender<Option<File>>),
}

impl Saver {
    /// Starts the committer of an owned session.
    #[must_use]
    pub fn start(files: Box<dyn FilesPort>, upkeep: Upkeep) -> (Self, Committer) {
        let (requests, incoming) = mpsc::channel(REQUESTS);
        let (has_committed, committed) = watch::channel(None);
        let Upkeep {
            window,
            counts,
            tell,
            span,
        } = upkeep;
        let task = Task {
            files,
            window,
            counts,
            tell,
            committed: has_committed,
            due: None,
            behind_failed: false,
        };
        (
            Self {
                requests,
                committed,
            },
            Committer(tokio::spawn(task.run(incoming).instrument(span))),
        )
    }

    /// Begins to save what a cell left, as [`Self::after_cell`] does. What is logged on the way belongs to the span.
    #[must_use]
    pub fn begin(&self, span: Option<Span>) -> Saving {
        let saver = self.clone();
        let saving = async move { saver.after_cell().await };
        Box::pin(saving.instrument(span.unwrap_or_else(Span::current)))
    }

    /// Saves what a cell left. In a pool with write-behind this returns at once, unless the last
    /// attempt behind an answer failed.
    ///
    /// # Errors
    /// It is not saved, or another worker owns the session.
    pub async fn after_cell(&self) -> Result<Saved, SaveError> {
        self.save(What::All { behind: true }).await
    }

    /// Saves everything, now.
    ///
    /// # Errors
    /// As [`Self::after_cell`].
    pub async fn all(&self) -> Result<(), SaveError> {
        self.save(What::All { behind: false }).await.map(drop)
    }

    /// Saves one path.
    ///
    /// # Errors
    /// As [`Self::after_cell`].
    pub async fn path(&self, path: &FilePath) -> Result<(), SaveError> {
        self.save(What::Path(path.clone())).await.map(drop)
    }

    /// Leaves the interpreter's variables to the next owner. Nothing may be saved after it.
    ///
    /// # Errors
    /// As [`Self::after_cell`].
    pub async fn variables(&self, snapshot: Snapshot) -> Result<(), SaveError> {
        self.save(What::Variables(snapshot)).await.map(drop)
    }

    /// When something was committed last; `None` if nothing was since the session came to this worker.
    #[must_use]
    pub fn committed(&self) -> Option<Instant> {
        *self.committed.borrow()
    }

    /// Where a file's bytes are in the log; `None` when it may have been changed since it was saved.
    pub async fn find(&self, path: &FilePath) -> Option<File> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Find(path.clone(), answer);
        self.requests.send(request).await.ok()?;
        answered.await.ok()?
    }

    async fn save(&self, what: What) -> Result<Saved, SaveError> {
        let (answer, answered) = oneshot::channel();
        let span = trace::commit();
        let save = Save { what, span };
        let sent = self.requests.send(Request::Save(save, answer)).await;
        sent.map_err(|_| SaveError::Ended)?;
        answered.await.unwrap_or(Err(SaveError::Ended))
    }
}

impl Committer {
    /// Ends the committer once every [`Saver`] is gone, and says whether the session's log may hold
    /// anything. `patiently` waits until what was asked for is done or given up.
    pub async fn end(mut self, patiently: bool) -> bool {
        let ended = if patiently {
            (&mut self.0).await
        } else {
            match tokio::time::timeout(END_WITHIN, &mut self.0).await {
                Ok(ended) => ended,
                Err(_) => {
                    self.0.abort();
                    (&mut self.0).await
                }
            }
        };
        // Of one that was cut off nothing is known.
        ended.unwrap_or(true)
    }
}

impl From<&SaveError> for Fault {
    fn from(error: &SaveError) -> Self {
        match error {
            SaveError::Fenced => {
                let words = "the session moved to another worker; the work may have had effects";
                Self::new(FaultCode::Fenced, words)
            }
            SaveError::Unkeepable(limit) => {
                let code = match limit {
                    Limit::Path => FaultCode::PathTooLong,
                    Limit::Entries | Limit::Paths | Limit::Extents => FaultCode::TooManyFiles,
                };
                let words = format!(
                    "it was done, but no files are saved while {limit}; code may run that removes some"
                );
                Self::new(code, words)
            }
            SaveError::Sync(cause) => {
                let words = format!("it was done, but the files are not saved: {cause}");
                Self::new(FaultCode::FilesNotDurable, words)
            }
            SaveError::Ended => {
                let words = "the session was stopped; the work may have begun";
                Self::new(FaultCode::Stopping, words)
            }
        }
    }
}

struct Task {
    files: Box<dyn FilesPort>,
    window: Option<Duration>,
    counts: Counts,
    tell: Box<dyn Fn(Note) + Send>,
    committed: watch::Sender<Option<Instant>>,
    /// When what changed must be on its way at last.
    due: Option<Instant>,
    behind_failed: bool,
}

impl Task {
    async fn run(mut self, mut incoming: mpsc::Receiver<Request>) -> bool {
        loop {
            let due = self.due;
            tokio::select! {
                request = incoming.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return may_be_written(self.files.writer()),
                },
                () = sleep_until(due) => self.save_behind().await,
            }
            // Nobody waits for it.
            if incoming.is_empty()
                && let Err(error) = self.files.checkpoint_if_due().await
            {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to write a checkpoint"
                );
            }
        }
    }

    async fn serve(&mut self, request: Request) {
        match request {
            Request::Find(path, answer) => {
                let found = self.files.describe(&path).await;
                // Whoever asked may have gone, and reads the file itself if nothing is found.
                answer.send(found.unwrap_or_default()).ok();
            }
            Request::Save(
                Save {
                    what: What::All { behind: true },
                    ..
                },
                answer,
            ) if self.window.is_some()
                && !self.behind_failed
                && !self.files.writer().is_fenced() =>
            {
                let due = self.window.map(|window| Instant::now() + window);
                self.due = self.due.or(due);
                answer.send(Ok(Saved::LATER)).ok();
            }
            Request::Save(Save { what, span }, answer) => {
                let saved = self.save(&what).instrument(span.clone()).await;
                let saved = saved.inspect_err(|_| spans::fail(&span));
                drop(span);
                answer.send(saved).ok();
            }
        }
    }

    async fn save_behind(&mut self) {
        let saving = self.save(&What::All { behind: false });
        match saving.instrument(trace::commit()).await {
            Ok(_) => {}
            Err(SaveError::Fenced) => self.due = None,
            // Another look would find the same. The next cell is saved before its answer, which says so.
            Err(SaveError::Unkeepable(limit)) => {
                tracing::info!(
                    error = &limit as &dyn std::error::Error,
                    "files not kept behind their answer"
                );
                self.due = None;
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to save files behind their answer"
                );
                self.due = Some(Instant::now() + RETRY_BEHIND);
            }
        }
    }

    /// Tries until it is done or was tried for long enough.
    async fn save(&mut self, what: &What) -> Result<Saved, SaveError> {
        let begun = Instant::now();
        let deadline = begun + limits::SAVE_WITHIN;
        let mut pause = BACK_OFF.0;
        // An attempt that failed may have written what the next one finds unchanged.
        let mut first = true;
        let changed = loop {
            let attempted = self.attempt(what).await;
            self.counts.wrote(self.files.writer().take_written());
            let error = match attempted {
                Ok(Synced::Unchanged) => break first.then(Changed::default),
                Ok(Synced::Committed { changed, .. }) => {
                    self.counts.committed(begun.elapsed());
                    self.committed.send_replace(Some(Instant::now()));
                    break first.then_some(changed);
                }
                Err(SyncError::Fenced) => {
                    // Whoever asked may be a file operation, or nobody.
                    (self.tell)(Note::LeaseLost);
                    return Err(SaveError::Fenced);
                }
                Err(error) => error,
            };
            let gives_up = match error {
                // The session's own doing.
                SyncError::Unkeepable(limit) => Some(SaveError::Unkeepable(limit)),
                error => {
                    self.counts.commit_failed();
                    let is_late = Instant::now() + pause > deadline;
                    is_late.then(|| SaveError::Sync(error.into()))
                }
            };
            if let Some(error) = gives_up {
                if let What::All { .. } = what {
                    self.behind_failed = self.window.is_some();
                }
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF.1);
            first = false;
        };
        if let What::All { .. } = what {
            self.due = None;
            self.behind_failed = false;
        }
        Ok(Saved {
            durability: Durability::Durable,
            changed,
        })
    }

    async fn attempt(&mut self, what: &What) -> Result<Synced, SyncError> {
        match what {
            What::All { .. } => self.files.commit_all().await,
            What::Path(path) => self.files.commit_path(path).await,
            What::Variables(snapshot) => self.append_variables(snapshot).await,
        }
    }

    async fn append_variables(&mut self, snapshot: &Snapshot) -> Result<Synced, SyncError> {
        let writer = self.files.writer();
        writer.settle().await?;
        let blob = writer.put_blob(snapshot.data.clone().into()).await?;
        let variables = Variables {
            blob,
            size: snapshot.data.len() as u64,
            lost: snapshot.lost.clone(),
        };
        let seq = writer.append(Body::Variables(variables), vec![]).await?;
        Ok(Synced::Committed {
            seq,
            changed: Changed::default(),
        })
    }
}

/// Whether there can be a commit in the log.
fn may_be_written(writer: &Writer) -> bool {
    writer.head() != Seq::default() || writer.is_pending()
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep")
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => pending().await,
    }
}

#[cfg(test)]
pub(super) mod scripted {
    //! A committer that does what a story says.

    use super::{
        Committer, Instant, REQUESTS, Request, SaveError, Saved, Saver, What, mpsc, oneshot, watch,
    };

    /// What a session asked of its committer.
    #[derive(Debug)]
    pub(in crate::session) struct Saves(mpsc::Receiver<Request>);

    /// Something that is to be saved.
    #[derive(Debug)]
    pub(in crate::session) struct Save {
        /// Whether that is the session's variables.
        pub(in crate::session) of_variables: bool,
        answer: oneshot::Sender<Result<Saved, SaveError>>,
    }

    /// The two halves of it; `written` is what it says in the end of the session's log.
    pub(in crate::session) fn saver(written: bool) -> (Saver, Committer, Saves) {
        let (requests, incoming) = mpsc::channel(REQUESTS);
        let (_, committed) = watch::channel(None::<Instant>);
        let saver = Saver {
            requests,
            committed,
        };
        let committer = Committer(tokio::spawn(async move { written }));
        (saver, committer, Saves(incoming))
    }

    impl Saves {
        /// What is to be saved by now.
        pub(in crate::session) fn next_now(&mut self) -> Option<Save> {
            futures_util::FutureExt::now_or_never(self.next()).flatten()
        }

        /// What is to be saved next; nothing when the session has ended.
        pub(in crate::session) async fn next(&mut self) -> Option<Save> {
            loop {
                match self.0.recv().await? {
                    Request::Save(save, answer) => {
                        let of_variables = matches!(save.what, What::Variables(_));
                        return Some(Save {
                            of_variables,
                            answer,
                        });
                    }
                    Request::Find(_, answer) => {
                        answer.send(None).unwrap();
                    }
                }
            }
        }
    }

    impl Save {
        /// Whoever asked hears this, unless the session has ended.
        pub(in crate::session) fn comes_to(self, saved: Result<Saved, SaveError>) {
            self.answer.send(saved).ok();
        }

        /// It is saved.
        pub(in crate::session) fn succeeds(self) {
            self.comes_to(Ok(Saved::default()));
        }
    }
}
