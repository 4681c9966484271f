//! The owner's side of a keeper: gives orders, reads reports. It needs no runtime, so tests of one
//! binary can share a stack although each has a runtime of its own.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};

use super::order::{Order, Report};

/// A running `loadtest keep`.
#[derive(Debug)]
pub(super) struct Supervisor {
    child: Child,
    line: Mutex<Option<Line>>,
}

#[derive(Debug)]
struct Line {
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
}

impl Supervisor {
    /// Starts a keeper for `directory`, which it will remove.
    pub(super) fn start(loadtest: &Path, directory: &Path) -> Result<Arc<Self>> {
        // In a group of its own, so that Ctrl-C ends the tests and lets the keeper clean up.
        let mut child = Command::new(loadtest)
            .arg("keep")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", loadtest.display()))?;
        let orders = child.stdin.take().context("no input of the keeper")?;
        let reports = child.stdout.take().context("no output of the keeper")?;
        let line = Line {
            orders,
            reports: BufReader::new(reports),
        };
        Ok(Arc::new(Self {
            child,
            line: Mutex::new(Some(line)),
        }))
    }

    /// Gives an order and waits for its report, without keeping the runtime waiting.
    pub(super) async fn order(self: &Arc<Self>, order: Order) -> Result<Report> {
        let supervisor = Arc::clone(self);
        tokio::task::spawn_blocking(move || supervisor.order_now(&order)).await?
    }

    /// The same for code outside a runtime.
    pub(super) fn order_now(&self, order: &Order) -> Result<Report> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let line = line.as_mut().context("the stack has ended")?;
        let mut text = serde_json::to_vec(order)?;
        text.push(b'\n');
        line.orders.write_all(&text)?;
        let mut report = String::new();
        if line.reports.read_line(&mut report)? == 0 {
            bail!("the keeper has ended");
        }
        match serde_json::from_str(&report)? {
            Report::Failed(why) => bail!(why),
            report => Ok(report),
        }
    }
}

impl Drop for Supervisor {
    /// Closes the line, which ends the stack, and waits until it has ended.
    fn drop(&mut self) {
        drop(
            self.line
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        drop(self.child.wait());
    }
}
