//! What a cell or a command leaves behind.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use proto::execution::{Bundle, Truncated};

use super::{
    bounds,
    displays::Displays,
    frame::Raised,
    output::Output,
    violation::{Gone, Violation},
};

/// What the interpreter says where its own library is refused a process or a thread (`hearth_stdlib.py`).
const TASK_LIMIT: &str = "processes and threads at a time";

/// Signal that ends a process whose write to a mapped file finds no space.
const BUS_ERROR: i32 = 7;
/// What says that a write found no space, in whatever an interpreter or a program shows of it.
const NO_SPACE: [&str; 2] = ["No space left on device", "Errno 28"];

/// What is said of displays that were not kept.
fn notice(missing: u64, kept: usize) -> String {
    format!("\n[{missing} display outputs not kept: more than {kept}; the last one is there]\n")
}

/// What one cell left behind.
#[derive(Debug)]
pub struct Cell {
    /// How it ended.
    pub end: CellEnd,
    /// Standard output, bounded.
    pub stdout: String,
    /// Standard error, bounded.
    pub stderr: String,
    /// Display outputs, bounded.
    pub displays: Vec<Bundle>,
    /// What these bounds cost.
    pub truncated: Truncated,
}

/// How a cell ended, as seen at the kernel's socket.
#[derive(Debug)]
pub enum CellEnd {
    /// The kernel said so.
    Done {
        /// The last expression's value.
        result: Option<Bundle>,
        /// The exception that ended it.
        error: Option<Raised>,
    },
    /// The shell command ended, with this exit status as a shell tells it.
    Exited(u8),
    /// The kernel's process ended.
    Died(ExitStatus),
    /// The kernel is of no further use, for this reason; it was killed.
    Broken(Violation),
}

impl From<Gone> for CellEnd {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Died(status) => Self::Died(status),
            Gone::Broken(violation) => Self::Broken(violation),
        }
    }
}

impl Cell {
    /// What is left of code that never began.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            end: CellEnd::Done {
                result: None,
                error: None,
            },
            stdout: String::new(),
            stderr: String::new(),
            displays: vec![],
            truncated: Truncated::default(),
        }
    }

    /// Cuts what came of a cell to what may be kept: a traceback and standard error share `output_bytes`.
    pub(super) fn bounded(
        mut end: CellEnd,
        mut output: Output,
        displays: Displays<'_>,
        output_bytes: u64,
    ) -> Self {
        let (displays, missing, cut) = displays.into_kept();
        let mut dropped = missing + cut;
        let mut traceback_cut = 0;
        if let CellEnd::Done { result, error } = &mut end {
            if let Some(error) = error {
                traceback_cut = bounds::cut_error(error, output_bytes);
                let traceback = error.traceback.len() as u64;
                output.stderr.shrink(output_bytes.saturating_sub(traceback));
            }
            if let Some(result) = result {
                dropped += u64::from(bounds::cut_texts(result));
            }
        }
        let (stdout, stdout_cut) = output.stdout.into_text();
        let (mut stderr, stderr_cut) = output.stderr.into_text();
        if missing > 0 {
            stderr.push_str(&notice(missing, displays.len()));
        }
        Self {
            end,
            stdout,
            stderr,
            displays,
            truncated: Truncated {
                stdout: stdout_cut,
                stderr: stderr_cut.saturating_add(traceback_cut),
                displays: dropped,
            },
        }
    }

    /// Whether it failed, and says that some filesystem had no space. It may say so falsely.
    #[must_use]
    pub fn found_no_space(&self) -> bool {
        let says = NO_SPACE.iter().any(|words| self.says(words));
        let bus_error =
            matches!(&self.end, CellEnd::Died(status) if status.signal() == Some(BUS_ERROR));
        self.has_failed() && (says || bus_error)
    }

    /// Whether it failed without a word of how many processes and threads there may be.
    #[must_use]
    pub fn failed_without_naming_the_task_limit(&self) -> bool {
        self.has_failed() && !self.says(TASK_LIMIT)
    }

    /// Whether an exception, or what was written where there is none, says this.
    fn says(&self, words: &str) -> bool {
        match &self.end {
            CellEnd::Done { error, .. } => error.as_ref().is_some_and(|raised| {
                raised.message.contains(words) || raised.traceback.contains(words)
            }),
            CellEnd::Exited(_) | CellEnd::Died(_) | CellEnd::Broken(_) => {
                self.stderr.contains(words)
            }
        }
    }

    /// Whether it did not succeed.
    fn has_failed(&self) -> bool {
        !matches!(
            self.end,
            CellEnd::Done { error: None, .. } | CellEnd::Exited(0)
        )
    }

    /// Whether there is no kernel any more that could run another cell.
    #[must_use]
    pub fn kernel_is_gone(&self) -> bool {
        matches!(self.end, CellEnd::Died(_) | CellEnd::Broken(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cell that ended so after it printed to standard error, of which it may print 100 bytes.
    fn cell(end: CellEnd, stderr: &str) -> Cell {
        let mut output = Output::new(100);
        output.stderr.push(stderr.as_bytes());
        Cell::bounded(end, output, Displays::through(None), 100)
    }

    fn raised(message: &str, traceback: String) -> CellEnd {
        CellEnd::Done {
            result: None,
            error: Some(Raised {
                name: "OSError".to_owned(),
                message: message.to_owned(),
                traceback,
            }),
        }
    }

    #[test]
    fn a_traceback_takes_room_from_standard_error() {
        let cell = cell(raised("", "t".repeat(40)), &"e".repeat(90));
        let kept = "e".repeat(60);
        assert!(cell.stderr.starts_with(&format!("{kept}\n[")), "{cell:?}");
        assert_eq!(cell.truncated.stderr, 30);
    }

    #[test]
    fn a_failure_for_lack_of_space_is_recognised_however_it_shows() {
        let full = "OSError: [Errno 28] No space left on device";
        let killed_by = |signal| CellEnd::Died(ExitStatus::from_raw(signal));
        for cell in [
            cell(raised(full, String::new()), ""),
            cell(CellEnd::Exited(1), full),
            cell(killed_by(BUS_ERROR), ""),
            cell(killed_by(9), full),
            cell(CellEnd::Broken(Violation::Closed), full),
        ] {
            assert!(cell.found_no_space(), "{cell:?}");
        }
        for cell in [
            cell(CellEnd::Exited(0), full),
            cell(killed_by(9), ""),
            cell(raised("other", String::new()), full),
        ] {
            assert!(!cell.found_no_space(), "{cell:?}");
        }
    }
}
