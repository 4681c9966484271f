//! How code ends that does not do what it was asked to. None of these is an HTTP error: the answer is 200,
//! its status says that the code failed, and the words stand at the end of `stderr`.

use proto::execution::Ending;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// What happened.
    pub meaning: &'static str,
    /// What became of the session.
    pub session: &'static str,
    /// The test that provokes it: file and function.
    pub test: &'static str,
}

const KEPT: &str = "as it was";
const RESTARTED: &str = "its variables are lost, its files are kept";
const PERHAPS_RESTARTED: &str =
    "as it was, unless the code could not be interrupted: then its variables are lost";

/// The row of an ending; none if the code did what it was asked to, or if nobody here knows what it means.
#[must_use]
pub fn row(ending: &Ending) -> Option<Row> {
    let row = |name, meaning, session, test| {
        Some(Row {
            name,
            meaning,
            session,
            test,
        })
    };
    match ending {
        Ending::Succeeded | Ending::Exited { status: 0 } | Ending::Unknown => None,
        Ending::Exited { .. } => row(
            "Exited",
            "The command ended with another exit status than 0, which is the answer's `status`.",
            KEPT,
            "loadtest/tests/it/shell.rs::a_command_is_answered_with_its_exit_status_as_text",
        ),
        Ending::Raised { .. } => row(
            "Raised",
            "The code raised an exception; its traceback stands in `stderr`.",
            KEPT,
            "loadtest/tests/it/execute.rs::a_traceback_names_the_callers_line_without_colours",
        ),
        Ending::TimedOut { .. } => row(
            "Timeout",
            "The code took longer than it may and was interrupted.",
            PERHAPS_RESTARTED,
            "loadtest/tests/it/hostile_code.rs::an_endless_loop_is_interrupted_and_variables_are_kept",
        ),
        Ending::OutOfMemory => row(
            "OutOfMemory",
            "The session's memory limit ended its interpreter.",
            RESTARTED,
            "loadtest/tests/it/hostile_code.rs::a_memory_bomb_is_aborted_and_the_session_goes_on_with_its_files",
        ),
        Ending::KernelCrashed { .. } => row(
            "KernelCrashed",
            "The interpreter ended for another reason, such as a signal or `os._exit`.",
            RESTARTED,
            "loadtest/tests/it/hostile_code.rs::a_process_that_ends_is_aborted_and_the_session_goes_on_with_its_files",
        ),
        Ending::Cancelled { .. } => row(
            "Cancelled",
            "The execution was cancelled.",
            PERHAPS_RESTARTED,
            "loadtest/tests/it/async_executions.rs::what_waits_is_told_so_and_can_be_cancelled_like_what_runs",
        ),
    }
}

/// Limits that code meets as exceptions, which it may catch.
pub const CAUGHT: [Row; 2] = [
    Row {
        name: "ProcessLimit",
        meaning: "The session has as many processes and threads as its pool allows: the code sees \
                  `BlockingIOError`, or `RuntimeError` for a thread.",
        session: KEPT,
        test: "loadtest/tests/it/hostile_code.rs::the_limit_of_processes_is_an_error_that_code_can_catch",
    },
    Row {
        name: "DiskFull",
        meaning: "`/mnt/data`, `/tmp` or the home directory is full: the code sees `OSError` with `ENOSPC`. \
                  An upload is refused with the code of the same name.",
        session: KEPT,
        test: "loadtest/tests/it/hostile_code.rs::a_full_data_directory_is_named_to_code_and_to_callers",
    },
];

/// The table's rows.
#[must_use]
pub fn rows() -> Vec<Row> {
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
