//! The stack that tests share, and what they say about answers.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

use loadtest::{
    client::{Client, ClientError, Executed, Session, Status, StoredFile},
    cluster::Cluster,
    wait::{patiently, until},
};
use proto::pool::Limits;
use reqwest::{RequestBuilder, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::object_store::ObjectStore;

static SHARED: [OnceCell<Cluster>; 3] = [const { OnceCell::const_new() }; 3];

/// Name of the shared stack's second pool, whose limits are small enough to be hit.
pub(crate) const SMALL: &str = "small";
/// Name of the shared stack's pool of shells, whose limits are small too.
pub(crate) const SHELL: &str = "shell";
/// Memory of a session of the small pool.
pub(crate) const SMALL_MEMORY: u64 = 256 << 20;
/// Processes of a session of the small pool.
pub(crate) const SMALL_PROCESSES: u32 = 48;
/// Size of `/mnt/data` in the small pool.
pub(crate) const SMALL_DATA: u64 = 16 << 20;

/// Longer than code takes to begin on a busy machine, where a queue may be before it.
const BEGUN_WITHIN: Duration = Duration::from_secs(120);

/// Longer than it takes to know that a worker is gone that was killed.
const STORED_WITHIN: Duration = Duration::from_secs(60);

/// The shared stack in the hands of one test. If the test fails, the logs are shown and kept.
pub(crate) struct Stack(&'static Cluster);

/// One ingress, one worker and three pools, started by the first test that needs them. It is never
/// dropped: its keeper ends it when this process ends.
pub(crate) async fn shared() -> Stack {
    shared_on(ObjectStore::Directory).await
}

/// The same over this object store.
pub(crate) async fn shared_on(store: ObjectStore) -> Stack {
    let start = || async {
        store
            .builder()
            .pool(|pool| pool)
            .pool(|pool| pool.name(SMALL).limits(small))
            .pool(|pool| pool.name(SHELL).shell().limits(small))
            .worker_arguments(["--cages", "2", "--spares", "2"])
            .start()
            .await
            .unwrap()
    };
    Stack(SHARED[store as usize].get_or_init(start).await)
}

fn small(limits: &mut Limits) {
    limits.memory_bytes = SMALL_MEMORY;
    limits.processes = SMALL_PROCESSES;
    limits.data_bytes = SMALL_DATA;
}

impl Stack {
    /// A client with connections of its own.
    pub(crate) fn http(&self) -> Client {
        self.client(0).unwrap()
    }

    /// A new session with default limits.
    pub(crate) fn session(&self) -> Session {
        self.http().fresh()
    }

    /// A new session with small limits.
    pub(crate) fn small_session(&self) -> Session {
        self.client_of(SMALL).unwrap().fresh()
    }

    /// A new session of the pool of shells.
    pub(crate) fn shell_session(&self) -> Session {
        self.client_of(SHELL).unwrap().fresh()
    }
}

impl Deref for Stack {
    type Target = Cluster;
    fn deref(&self) -> &Cluster {
        self.0
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.keep_files());
            eprintln!("{}", self.0.tails());
        }
    }
}

/// Runs code that must succeed.
pub(crate) async fn succeed(session: &Session, code: &str) -> Executed {
    let executed = session.execute(code).await.unwrap();
    assert_eq!(
        executed.status,
        Status::Success,
        "{code}\n{}",
        executed.stderr
    );
    executed
}

/// The value of the last expression of code that must succeed.
pub(crate) async fn value(session: &Session, code: &str) -> Value {
    succeed(session, code).await.result
}

/// What code that must succeed printed.
pub(crate) async fn printed(session: &Session, code: &str) -> String {
    succeed(session, code).await.stdout
}

/// File that code which says that it began writes something to.
pub(crate) const BEGAN: &str = "began.txt";

/// Waits until code has written to [`BEGAN`]. File operations do not wait for a running cell.
pub(crate) async fn begun(session: &Session) {
    until("the code begins", BEGUN_WITHIN, async || {
        let files = session.list().await.unwrap_or_default();
        let began = |file: &StoredFile| file.filename == BEGAN && file.size > 0;
        Ok(files.iter().any(began).then_some(()))
    })
    .await
    .unwrap();
}

/// Runs code that must fail.
pub(crate) async fn fail(session: &Session, code: &str) -> Executed {
    let executed = session.execute(code).await.unwrap();
    assert_eq!(executed.status, Status::Failure, "{code}\n{executed:?}");
    executed
}

/// Status, error code and body of an answer to an odd request.
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

/// Checks that a request is refused with this status and code and with words for people.
pub(crate) async fn refused(request: RequestBuilder, status: u16, code: &str) {
    let response = request.send().await.unwrap();
    let (got, header) = (
        response.status().as_u16(),
        response.headers().get("x-ms-error-code"),
    );
    let header = header
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    // The body of what should not have succeeded may have no end.
    assert_eq!(got, status, "{header}");
    let text = response.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    assert_eq!(
        (got, body.pointer("/error/code")),
        (status, Some(&code.into())),
        "{text}"
    );
    assert_eq!(header, code, "header x-ms-error-code");
    let message = body
        .pointer("/error/message")
        .and_then(Value::as_str)
        .unwrap_or_default();
    assert!(!message.is_empty(), "{text}");
}

/// Status and code of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (u16, String) {
    let error = answer.unwrap_err();
    let (status, code) = error
        .refusal()
        .unwrap_or_else(|| panic!("no refusal: {error:?}"));
    (status, code.to_owned())
}

/// Runs `hostile` while another session is used again and again; each of its answers must come
/// soon.
pub(crate) async fn beside_a_neighbour<T>(stack: &Stack, hostile: impl Future<Output = T>) -> T {
    /// Generous for two busy cores, yet far below what a starved neighbour would show.
    const SOON: Duration = Duration::from_secs(5);
    let neighbour = stack.session();
    succeed(&neighbour, "turns = 0").await;
    let turns = async {
        loop {
            let turn =
                tokio::time::timeout(patiently(SOON), value(&neighbour, "turns += 1\nturns"));
            turn.await.expect("the neighbour is answered soon");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let outcome = tokio::select! {
        biased;
        outcome = hostile => outcome,
        () = turns => unreachable!("the neighbour never stops"),
    };
    // A turn may have been cut off when the other side was done; the session still counts.
    assert!(value(&neighbour, "turns >= 0").await == "True");
    outcome
}

/// A file's bytes out of the store, once its session's worker is known to be gone.
pub(crate) async fn stored(session: &Session, name: &str) -> Vec<u8> {
    let found = until("the store has it", STORED_WITHIN, || async {
        Ok(session.download(name).await.ok())
    });
    found.await.unwrap()
}

/// The files below a directory, such as that of the object store, in order; without what the store keeps of
/// the fleet itself.
pub(crate) fn objects(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| entry.file_name() != "fleet");
    let below = entries.flat_map(|entry| match entry.path() {
        path if path.is_dir() => objects(&path),
        path => vec![path],
    });
    let mut below: Vec<_> = below.collect();
    below.sort();
    below
}

/// Makes each of these functions, which take the number of the bus's servers, a test on a bus of one server and one on a cluster of three.
macro_rules! on_one_and_on_three_servers {
    ($($test:ident),+ $(,)?) => {
        mod one_server {
            $(#[tokio::test] async fn $test() { super::$test(1).await; })+
        }
        mod three_servers {
            $(#[tokio::test] async fn $test() { super::$test(3).await; })+
        }
    };
}
pub(crate) use on_one_and_on_three_servers;

/// Sends a process a signal and does not wait.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}
