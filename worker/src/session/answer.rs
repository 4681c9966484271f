//! From the end of a cell to its caller.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, slice, time::Duration};

use proto::{
    execution::{ChangedFiles, Durability, Ending, KILLED, Outcome},
    fault::{Fault, FaultCode},
    limits,
    message::{Answer, Carried},
    wire,
};
use store::{StagingScope, Store};

use super::machine::{InterruptReason, Verdict};
use crate::{
    bus::{Responder, with_heartbeats},
    kernel::{Cell, CellEnd},
    lease::ownership_check::OwnershipCheck,
    sync::Changed,
};

/// What the next caller reads when the interpreter ended while nothing ran.
const LOST_BETWEEN: &str = "The Python process ended between executions: \
                            the session's variables are lost; its files are kept.\n";

/// Everything that decides what the caller hears.
#[derive(Debug)]
pub struct Finished {
    /// What the kernel left.
    pub cell: Cell,
    /// What the session's machine made of it.
    pub verdict: Verdict,
    /// The memory limit killed something during the cell.
    pub out_of_memory: bool,
    /// The cell failed, and no more than so many processes and threads could be had.
    pub tasks_ran_out: Option<u32>,
    /// The interpreter had ended before the cell.
    pub lost_between: bool,
    /// How long the cell ran.
    pub duration: Duration,
}

/// What the caller is told of a cell.
#[must_use]
pub fn outcome(finished: Finished) -> Outcome {
    let Finished {
        cell,
        verdict,
        out_of_memory,
        tasks_ran_out,
        lost_between,
        duration,
    } = finished;
    let Cell {
        end,
        stdout,
        mut stderr,
        displays,
        truncated: _,
    } = cell;
    // A command's session had no variables to lose.
    if lost_between && !matches!(end, CellEnd::Exited(_)) {
        stderr.insert_str(0, LOST_BETWEEN);
    }
    if let Some(most) = tasks_ran_out {
        if !stderr.is_empty() && !stderr.ends_with('\n') {
            stderr.push('\n');
        }
        stderr.push_str(&no_more_tasks(most));
    }
    let (reported, result) = reported(end, out_of_memory);
    let ending = match verdict {
        Verdict::AsReported | Verdict::Crashed => reported,
        Verdict::Interrupted(why) => interrupted(why, false),
        Verdict::Killed(why) => interrupted(why, true),
    };
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Outcome {
        ending,
        stdout,
        stderr,
        displays,
        result,
        duration_ms,
        durability: Durability::Durable,
        moved: None,
        incarnation: None,
        details: None,
    }
}

/// What the caller reads of a cell that failed when it could not have more processes or threads: programs and
/// libraries outside Python seldom say so.
fn no_more_tasks(most: u32) -> String {
    format!(
        "Processes or threads could not be started: this session may have {most} at a time. Whoever runs this \
         service can allow more with `processes` in the pool's limits.\n"
    )
}

fn interrupted(why: InterruptReason, restarted: bool) -> Ending {
    match why {
        InterruptReason::Deadline => Ending::TimedOut { restarted },
        InterruptReason::Cancel => Ending::Cancelled { restarted },
    }
}

fn reported(end: CellEnd, out_of_memory: bool) -> (Ending, Option<proto::execution::Bundle>) {
    match end {
        CellEnd::Done {
            result,
            error: None,
        } => (Ending::Succeeded, result),
        CellEnd::Done {
            error: Some(raised),
            ..
        } => {
            let crate::kernel::frame::Raised {
                name,
                message,
                traceback,
            } = raised;
            (
                Ending::Raised {
                    name,
                    message,
                    traceback,
                },
                None,
            )
        }
        CellEnd::Exited(KILLED) if out_of_memory => (Ending::OutOfMemory, None),
        CellEnd::Exited(status) => (Ending::Exited { status }, None),
        CellEnd::Died(status) if out_of_memory && status.signal() == Some(libc::SIGKILL) => {
            (Ending::OutOfMemory, None)
        }
        CellEnd::Died(status) => (Ending::KernelCrashed { how: how(status) }, None),
        CellEnd::Broken(violation) => {
            let how = violation.to_string();
            (Ending::KernelCrashed { how }, None)
        }
    }
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "unknown status".to_owned(),
    }
}

/// As many of the changed files as are told.
#[must_use]
pub fn changed_files(changed: Changed) -> ChangedFiles {
    let Changed { files, removed } = changed;
    let more = files.len().saturating_add(removed.len()) > limits::CHANGED_FILES;
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let written = files.iter().take(limits::CHANGED_FILES);
    let left = limits::CHANGED_FILES - written.len();
    ChangedFiles {
        deleted: removed
            .iter()
            .take(left)
            .map(|path| text(path.as_bytes()))
            .collect(),
        written: written
            .map(|file| (text(file.path.as_bytes()), file.size))
            .collect(),
        more,
    }
}

/// Answers, if this worker still owns the session: a success from a fenced worker would be false.
/// Says whether it does.
pub async fn give(
    mut responder: Responder,
    ownership_check: &OwnershipCheck,
    answer: Result<Answer, Fault>,
) -> bool {
    let owns = with_heartbeats(slice::from_mut(&mut responder), ownership_check.owns()).await;
    let answer = if owns {
        answer
    } else {
        let words = "the session moved to another worker while this ran; it may have had effects";
        Err(Fault::new(FaultCode::Fenced, words))
    };
    responder.finish(answer).await;
    owns
}

/// Puts an outcome into an answer, long ones by way of the store.
///
/// # Errors
/// The store failed; what the caller is told.
pub async fn carried(
    outcome: Outcome,
    store: &Store,
    owner: StagingScope<'_>,
) -> Result<Answer, Fault> {
    if outcome.text_bytes() <= limits::INLINE_BYTES {
        return Ok(Answer::Executed(Carried::Inline(outcome.into())));
    }
    let encoded = wire::encode(&outcome)
        .map_err(|_| Fault::new(FaultCode::Internal, "the result could not be encoded"))?;
    match store.stage_bytes(encoded, owner, "result").await {
        Ok(staged) => Ok(Answer::Executed(Carried::Staged(staged))),
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to stage a result"
            );
            // Not a fault that callers answer with another try.
            let words = "the code ran, but its result could not be stored";
            Err(Fault::new(FaultCode::Internal, words))
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::execution::Truncated;

    use super::*;

    fn finished(end: CellEnd, verdict: Verdict) -> Finished {
        let cell = Cell {
            end,
            stdout: "out".into(),
            stderr: "err".into(),
            displays: vec![],
            truncated: Truncated::default(),
        };
        let duration = Duration::from_millis(7);
        Finished {
            cell,
            verdict,
            out_of_memory: false,
            tasks_ran_out: None,
            lost_between: false,
            duration,
        }
    }

    fn died(raw: i32) -> CellEnd {
        CellEnd::Died(ExitStatus::from_raw(raw))
    }

    #[test]
    fn a_kill_by_the_memory_limit_is_out_of_memory_and_another_is_a_crash() {
        let crashed = finished(died(libc::SIGKILL), Verdict::Crashed);
        let limit = Finished {
            out_of_memory: true,
            ..finished(died(libc::SIGKILL), Verdict::Crashed)
        };
        assert_eq!(outcome(limit).ending, Ending::OutOfMemory);
        assert_eq!(
            outcome(crashed).ending,
            Ending::KernelCrashed {
                how: "signal 9".into()
            }
        );
        let exit = outcome(finished(died(3 << 8), Verdict::Crashed)).ending;
        assert_eq!(
            exit,
            Ending::KernelCrashed {
                how: "exit code 3".into()
            }
        );
    }

    #[test]
    fn a_failure_for_lack_of_processes_says_how_many_there_may_be() {
        let failed = Finished {
            tasks_ran_out: Some(128),
            ..finished(CellEnd::Exited(254), Verdict::AsReported)
        };
        let told = outcome(failed).stderr;
        assert!(told.starts_with("err\nProcesses or threads could not be started"));
        assert!(told.contains("128 at a time") && told.contains("`processes`"));
    }

    #[test]
    fn a_command_ends_with_its_status_unless_the_memory_limit_killed_it() {
        let of = |status, out_of_memory| {
            let end = finished(CellEnd::Exited(status), Verdict::AsReported);
            outcome(Finished {
                out_of_memory,
                lost_between: true,
                ..end
            })
        };
        assert_eq!(of(3, true).ending, Ending::Exited { status: 3 });
        assert_eq!(of(137, false).ending, Ending::Exited { status: 137 });
        assert_eq!(of(137, true).ending, Ending::OutOfMemory);
        assert_eq!(of(0, false).stderr, "err");
        let stopped = finished(
            CellEnd::Exited(130),
            Verdict::Interrupted(InterruptReason::Deadline),
        );
        assert_eq!(
            outcome(stopped).ending,
            Ending::TimedOut { restarted: false }
        );
    }

    #[test]
    fn an_interrupted_cell_is_a_time_out_whatever_it_raised() {
        let end = CellEnd::Done {
            result: None,
            error: None,
        };
        let ending = outcome(finished(
            end,
            Verdict::Interrupted(InterruptReason::Deadline),
        ))
        .ending;
        assert_eq!(ending, Ending::TimedOut { restarted: false });
        let ending = outcome(finished(died(9), Verdict::Killed(InterruptReason::Cancel))).ending;
        assert_eq!(ending, Ending::Cancelled { restarted: true });
    }

    #[test]
    fn the_next_caller_hears_that_the_variables_went() {
        let end = CellEnd::Done {
            result: None,
            error: None,
        };
        let told = outcome(Finished {
            lost_between: true,
            ..finished(end, Verdict::AsReported)
        });
        assert!(
            told.stderr
                .starts_with("The Python process ended between executions")
        );
        assert!(told.stderr.ends_with("err"));
    }
}
