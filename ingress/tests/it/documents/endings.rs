//! How code ends that does not do what it was asked to. None of these is an HTTP error: the answer is 200,
//! its status says that the code failed, and the words stand at the end of `stderr`.

use proto::execution::Ending;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Its name.
    pub(super) name: &'static str,
    /// What happened.
    pub(super) meaning: &'static str,
    /// What became of the session.
    pub(super) session: &'static str,
}

const KEPT: &str = "as it was";
const RESTARTED: &str = "its variables are lost, its files are kept";
const PERHAPS_RESTARTED: &str =
    "as it was, unless the code could not be interrupted: then its variables are lost";

/// The row of an ending; none if the code did what it was asked to, or if nobody here knows what it means.
fn row(ending: &Ending) -> Option<Row> {
    let row = |name, meaning, session| {
        Some(Row {
            name,
            meaning,
            session,
        })
    };
    match ending {
        Ending::Succeeded | Ending::Exited { status: 0 } | Ending::Unknown => None,
        Ending::Exited { .. } => row(
            "Exited",
            "The command ended with another exit status than 0, which is the answer's `status`.",
            KEPT,
        ),
        Ending::Raised { .. } => row(
            "Raised",
            "The code raised an exception; its traceback stands in `stderr`.",
            KEPT,
        ),
        Ending::TimedOut { .. } => row(
            "Timeout",
            "The code took longer than it may and was interrupted.",
            PERHAPS_RESTARTED,
        ),
        Ending::OutOfMemory => row(
            "OutOfMemory",
            "The session's memory limit ended its interpreter.",
            RESTARTED,
        ),
        Ending::KernelCrashed { .. } => row(
            "KernelCrashed",
            "The interpreter ended for another reason, such as a signal or `os._exit`.",
            RESTARTED,
        ),
        Ending::Cancelled { .. } => row(
            "Cancelled",
            "The execution was cancelled.",
            PERHAPS_RESTARTED,
        ),
    }
}

/// Limits that code meets as exceptions, which it may catch.
const CAUGHT: [Row; 2] = [
    Row {
        name: "ProcessLimit",
        meaning: "The session has as many processes and threads as its pool allows: the code sees \
                  `BlockingIOError`, or `RuntimeError` for a thread.",
        session: KEPT,
    },
    Row {
        name: "DiskFull",
        meaning: "`/mnt/data` (with `~/.local`), `/tmp` or the home directory is full: the code sees `OSError` with `ENOSPC`. \
                  An upload is refused with the code of the same name.",
        session: KEPT,
    },
];

/// The table's rows.
pub(super) fn rows() -> Vec<Row> {
    let endings = [
        Ending::Raised {
            name: String::new(),
            message: String::new(),
            traceback: String::new(),
        },
        Ending::Exited { status: 1 },
        Ending::TimedOut { restarted: true },
        Ending::OutOfMemory,
        Ending::KernelCrashed { how: String::new() },
        Ending::Cancelled { restarted: true },
    ];
    endings.iter().filter_map(row).chain(CAUGHT).collect()
}
