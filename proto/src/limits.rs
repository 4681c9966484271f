//! Named bounds. Whatever crosses a boundary is held against one of these; what can be set has its
//! default here and its setting in [`crate::pool::Limits`] or in the processes' flags.

use std::time::Duration;

/// Bytes that travel inside a bus message; anything longer goes through the object store.
pub const INLINE_BYTES: usize = 256 * 1024;
/// Largest message a server must carry: an inline body and its envelope.
pub const MESSAGE_BYTES: usize = INLINE_BYTES + 64 * 1024;
/// Largest uploaded file (the service being re-implemented documents 128 MB).
pub const UPLOAD_BYTES: u64 = 128 * 1024 * 1024;
/// Largest request body that is JSON (code included).
pub const CODE_BYTES: usize = 4 * 1024 * 1024;
/// Longest execution in seconds (platform ceiling of the contract).
pub const EXECUTION_SECONDS: u32 = 220;
/// Longest asynchronous execution in seconds, in a pool that allows the most.
pub const ASYNC_EXECUTION_SECONDS: u32 = 12 * 3600;
/// Executions of one session that wait in the queue or were taken from it and have not ended.
pub const QUEUED_OF_SESSION: i64 = 64;
/// Of these, what a session has at once, running or next: a worker that dies takes no more along, and
/// callers who wait find room.
pub const QUEUED_IN_SESSION: usize = 2;
/// Executions of one pool in the queue, where the pool sets no other bound, and the highest that it may set.
pub const QUEUED_OF_POOL: u32 = 10_000;
/// See [`QUEUED_OF_POOL`].
pub const QUEUED_OF_POOL_MAX: u32 = 100_000;
/// Origins whose pages may read the answers of one pool.
pub const CORS_ORIGINS: usize = 64;
/// All executions in the queues of all pools, in bytes together.
pub const QUEUE_BYTES: i64 = 256 * 1024 * 1024;
/// Executions of one pool that one worker has taken from the queue and waits for.
pub const QUEUED_AT_WORKER: usize = 128;
/// Executions of one pool that all workers together have taken from the queue and wait for.
pub const QUEUED_AT_WORKERS: i64 = 4096;
/// A worker that has an execution from the queue and does not say so for this long has lost it.
pub const QUEUE_SILENCE: Duration = Duration::from_secs(15);
/// Pause before an execution is tried again whose session or pool had no room for it.
pub const QUEUE_PAUSE: Duration = Duration::from_secs(1);
/// How often an execution is started again whose worker was lost, where its caller wishes so.
pub const RETRIES_ON_LOSS: u8 = 2;
/// Executions on one page of a listing.
pub const EXECUTION_PAGE: usize = 100;
/// Bytes of the records on one page of a listing; a page has one at least.
pub const EXECUTION_PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Outcomes of executions without a record that a session remembers.
pub const RECENT_EXECUTIONS: usize = 16;
/// Bytes of the texts of these outcomes together: they fit into a frame.
pub const RECENT_BYTES: usize = INLINE_BYTES;
/// A worker may answer a message of the bus for this long (`allow_responses` of the server); who waits
/// longer asks again.
pub const ANSWERS_WITHIN: Duration = Duration::from_secs(14 * 60);
/// Shortest and longest session identifier in characters.
pub const IDENTIFIER_CHARS: std::ops::RangeInclusive<usize> = 4..=128;
/// Longest operation id in characters.
pub const OPERATION_CHARS: usize = 128;
/// Longest name of one file or directory in bytes (`NAME_MAX`).
pub const FILE_NAME_BYTES: usize = 255;
/// Longest path below `/mnt/data` in bytes.
pub const FILE_PATH_BYTES: usize = 1024;
/// Longest path below `/mnt/data` that can be kept, in bytes as the filesystem spells it.
pub const TREE_PATH_BYTES: usize = 4096;
/// Most files, directories and links that can be kept of one session.
pub const TREE_ENTRIES: usize = 100_000;
/// All paths and texts of links of one session that can be kept, in bytes together.
pub const TREE_PATHS_BYTES: usize = 32 * 1024 * 1024;
/// Most pieces that all files of one session together can be kept in. Full data filesystems of the
/// largest size stay below it; only very many holes do not.
pub const TREE_EXTENTS: usize = 400_000;
/// Longest encoding of a whole tree or of one change of it, in bytes. Beyond what the limits above
/// allow, so whoever keeps those never meets it.
pub const TREE_BYTES: usize = 256 * 1024 * 1024;
/// Largest snapshot of an interpreter's variables, in bytes.
pub const VARIABLES_BYTES: usize = 64 * 1024 * 1024;
/// Most entries that one listing returns.
pub const LIST_ENTRIES: usize = 20_000;
/// Sessions on one page of a listing (the service being re-implemented documents 300).
pub const SESSION_PAGE: usize = 300;
/// Most sessions that are listed of one pool: what the bus answers to one question.
pub const LISTED_SESSIONS: usize = 1024;
/// Most display outputs kept of one execution; later ones are dropped.
pub const DISPLAYS: usize = 64;
/// Display outputs kept of one execution, in bytes together; later ones are dropped.
pub const DISPLAY_BYTES: usize = 32 * 1024 * 1024;
/// Largest frame between worker and kernel, in bytes.
pub const KERNEL_FRAME_BYTES: usize = 32 * 1024 * 1024;
/// All frames of one cell, in bytes; beyond it the kernel counts as broken.
pub const KERNEL_CELL_BYTES: usize = 256 * 1024 * 1024;
/// Longest text form of one output, in bytes; a longer one is cut. Images are not cut.
pub const OUTPUT_TEXT_BYTES: usize = 4 * 1024 * 1024;
/// Longest mime type of a form of an output, in bytes.
pub const MIME_TYPE_BYTES: usize = 255;
/// Longest class name of an exception, in bytes; a longer one is cut.
pub const ERROR_NAME_BYTES: usize = 256;
/// Longest text of an exception beside its traceback, in bytes; a longer one is cut.
pub const ERROR_MESSAGE_BYTES: usize = 64 * 1024;
/// A kernel that waits between cells, or has begun a frame, goes on within this time. It also takes a
/// request off its socket within this time; one that does not runs other code.
pub const KERNEL_SILENCE: Duration = Duration::from_secs(10);
/// Variables that are carried from one kernel to another, in bytes together.
pub const SNAPSHOT_BYTES: usize = 16 * 1024 * 1024;
/// Most names that are told of variables that were lost; more are counted in the last.
pub const LOST_NAMES: usize = 100;
/// Longest such name in characters; a longer one is cut.
pub const LOST_NAME_CHARS: usize = 64;
/// Forms of one display output.
pub const MIME_TYPES: usize = 64;
/// Most environment variables of one execution.
pub const ENVIRONMENT_VARIABLES: usize = 64;
/// Longest name of an environment variable in bytes.
pub const ENVIRONMENT_NAME_BYTES: usize = 128;
/// All environment variables of one execution, names and values, in bytes together. They travel beside
/// code that may fill [`INLINE_BYTES`].
pub const ENVIRONMENT_BYTES: usize = 16 * 1024;
/// Most changed files that are told of one execution; that there were more is told too.
pub const CHANGED_FILES: usize = 1000;
/// Output in one frame of a stream, in bytes.
pub const STREAM_FRAME_BYTES: usize = 32 * 1024;
/// Output that is on its way to a stream's reader, in bytes: sent and not taken by it yet.
pub const STREAM_WINDOW_BYTES: usize = 512 * 1024;
/// Output on its way to a stream's reader, in frames. Less than an inbox of ingress holds, so that heartbeats find room.
pub const STREAM_WINDOW_FRAMES: usize = 32;
/// Output that waits at the worker for room in the window, in bytes; what does not fit is dropped and
/// counted. A display output that is longer fits when nothing else waits.
pub const STREAM_BACKLOG_BYTES: usize = 1024 * 1024;
/// What every piece of it counts at least.
pub const STREAM_PIECE_BYTES: usize = 64;
/// How long the end of an execution waits for a reader to take what waits, without it taking anything.
pub const STREAM_LINGER: Duration = Duration::from_secs(1);
/// Executions that may wait behind a running one in a session.
pub const SESSION_QUEUE: usize = 8;
/// Callers that wait for one execution with a record.
pub const EXECUTION_CALLERS: usize = 64;
/// File operations that a session performs at once.
pub const SESSION_FILE_JOBS: usize = 32;

/// A delivered job that is not accepted within this time is never placed again.
pub const ACCEPT_WITHIN: Duration = Duration::from_secs(1);
/// How long an owner may keep a job before it says so: an answer that comes sooner says it, too, and
/// spares the bus a message.
pub const ACCEPT_AFTER: Duration = Duration::from_millis(25);
/// Interval of the frames that an owner sends while it works.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// Silence after which an owner counts as lost.
pub const SILENCE: Duration = Duration::from_secs(2);
/// Life of a worker's key without a beat. Longer than a bus of three servers may take to elect who
/// keeps the keys when it loses a server (4 to 9 s, measured up to 6 s here), beats before and after
/// included: no worker may be taken for dead because of that.
pub const WORKER_TTL: Duration = Duration::from_secs(20);
/// By how much a worker's clock may differ from the bus's before it takes no new sessions and sweeps nothing.
pub const CLOCK_OFFSET: Duration = Duration::from_secs(60);
/// Interval of a worker's beats.
pub const WORKER_BEAT: Duration = Duration::from_secs(3);
/// Pause after a beat that failed.
pub const WORKER_BEAT_AGAIN: Duration = Duration::from_millis(250);
/// How long a request may wait for its session's owner to answer or to be known as gone.
pub const PLACEMENT_BUDGET: Duration = Duration::from_secs(10);
/// How long a request may look for a worker with room, within [`PLACEMENT_BUDGET`]. Shorter than the
/// patience of any known client (5 s).
pub const ROOM_BUDGET: Duration = Duration::from_secs(3);
/// After SIGINT the kernel gets this long before it is killed.
pub const INTERRUPT_GRACE: Duration = Duration::from_secs(2);
/// How long it is tried to bring a session's files into the object store before its caller hears that
/// they are not.
pub const SAVE_WITHIN: Duration = Duration::from_secs(30);
/// Longest that a request to the object store may go without progress, sending a part included.
pub const STORE_REQUEST: Duration = Duration::from_secs(30);
/// Longest that one object may take to be read or written whole, repetitions included.
pub const STORE_PATIENCE: Duration = Duration::from_secs(60);
/// What nothing points to any more is kept this long after a checkpoint has said so, for whoever
/// still reads an older state.
pub const DEAD_GRACE: Duration = Duration::from_secs(15 * 60);
/// Longest time between two renewals of the lease of a session in use.
pub const LEASE_RENEWED: Duration = Duration::from_secs(15);
/// A slot of this age without a lease is abandoned.
pub const SLOT_GRACE: Duration = Duration::from_secs(60);
/// A lease outlives the cooldown by this much, so that only a dead owner's lease ends by itself.
pub const LEASE_MARGIN: Duration = Duration::from_secs(60);
/// How long the record and the result of an execution are kept after the last change.
pub const RECORD_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Longest encoded outcome inside a record, in bytes; a longer one is an object in the store. A record in the
/// store costs an object, a longer one on the bus the room of several: see [`RECORD_BYTES`].
pub const RECORD_OUTCOME_BYTES: usize = 2 * 1024;
/// Longest text of a failure inside a record, in bytes; a longer one is cut.
pub const RECORD_FAULT_BYTES: usize = 512;
/// The most that one record takes on the bus, its name and the server's own bytes included: so much is
/// reserved for each that a pool may have.
pub const RECORD_BYTES: u64 = 3 * 1024;
/// What the record of a short execution takes of that: 10^6 a day take less than 1 GiB.
pub const SHORT_RECORD_BYTES: u64 = 1024;
/// Records of one pool's executions within [`RECORD_LIFE`], where the pool sets no other bound.
/// Beyond it new ones are refused.
pub const RECORDED_OF_POOL: u32 = 10_000;
/// When trying again is advised where a record found no room and it is not known for how long.
pub const RECORDS_AGAIN: Duration = Duration::from_secs(10);
/// See [`RECORDED_OF_POOL`].
pub const RECORDED_OF_POOL_MAX: u32 = 10_000_000;
/// How long whoever waits for an execution with a record tries to hear of it again, after its owner
/// fell silent. Longer than it takes to know that an owner is gone after the bus was restarted: a
/// worker's key must expire and an ingress be sure of what it sees.
pub const REATTACH_BUDGET: Duration = Duration::from_secs(60);
/// How long files stay in the store of sessions that only a lost bus knew.
pub const LOST_LOGS_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the caller of an execution with a record waits for its end unless set otherwise: the
/// longest execution and some waiting for its turn.
pub const SYNC_SECONDS: u32 = EXECUTION_SECONDS + 30;

const _: () = assert!(RECORD_OUTCOME_BYTES < INLINE_BYTES);
const _: () = assert!(
    SHORT_RECORD_BYTES < RECORD_BYTES
        && (RECORD_OUTCOME_BYTES as u64) < RECORD_BYTES
        && (RECORD_FAULT_BYTES as u64) < RECORD_BYTES
);
const _: () = assert!((ASYNC_EXECUTION_SECONDS as u64) < RECORD_LIFE.as_secs());
const _: () = assert!(EXECUTION_SECONDS <= ASYNC_EXECUTION_SECONDS);
const _: () = assert!(WORKER_TTL.as_millis() * 2 < REATTACH_BUDGET.as_millis());
const _: () = assert!(INLINE_BYTES < MESSAGE_BYTES && MESSAGE_BYTES < 1024 * 1024);
// Bytes as base64, and names as JSON: a character is at most 4 bytes or an escape of 2.
const _: () = assert!(
    SNAPSHOT_BYTES.div_ceil(3) * 4 + LOST_NAMES * (LOST_NAME_CHARS * 4 + 3) + 256
        <= KERNEL_FRAME_BYTES
);
// Once a reader has taken all, less than a quarter of the window is unacknowledged.
const _: () = assert!(STREAM_FRAME_BYTES + STREAM_PIECE_BYTES <= STREAM_WINDOW_BYTES / 4);
const _: () = assert!(ENVIRONMENT_BYTES * 2 <= MESSAGE_BYTES - INLINE_BYTES);
const _: () = assert!(STREAM_LINGER.as_millis() < SILENCE.as_millis());
const _: () = assert!(STORE_REQUEST.as_millis() < STORE_PATIENCE.as_millis());
const _: () = assert!(STORE_PATIENCE.as_millis() < DEAD_GRACE.as_millis());
const _: () = assert!(ACCEPT_AFTER.as_millis() * 10 <= ACCEPT_WITHIN.as_millis());
const _: () = assert!(HEARTBEAT.as_millis() * 3 <= SILENCE.as_millis());
const _: () = assert!(WORKER_BEAT.as_millis() * 3 < WORKER_TTL.as_millis());
