//! Starting, ending and pausing the processes of a stack.

use std::{
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, kill_process};

use super::{
    Cluster,
    builder::Entry,
    helper,
    keeper::{KILL_WITHIN, STOP_WITHIN},
    member::Member,
    order::{Order, Push, Report},
};
use crate::{inventory, wait::until};

/// How long a process may take until it serves. Generous: machines that test also compile.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Whether a process runs.
enum Standing {
    Runs(u32),
    /// With this exit status in words.
    Ended(String),
}

impl Cluster {
    /// Starts all processes of a prepared stack and waits until it serves.
    ///
    /// # Errors
    /// One did not get ready; its log is in the error.
    pub async fn start_all(&self) -> Result<()> {
        let mut rest = self.members.as_slice();
        while let Some(first) = rest.first() {
            let stage = first.member.stage();
            let (now, later) =
                rest.split_at(rest.partition_point(|entry| entry.member.stage() <= stage));
            for entry in now {
                self.run(entry).await?;
            }
            for entry in now {
                self.wait_until_ready(entry.member).await?;
            }
            if now.iter().any(|entry| entry.member == Member::Store) {
                self.shelf.fill().await?;
            }
            rest = later;
        }
        Ok(())
    }

    /// Starts a process that does not run and waits until it serves. A helper process is started by
    /// its worker, which is started if it does not run.
    ///
    /// # Errors
    /// It runs already, or it did not get ready.
    pub async fn start(&self, member: Member) -> Result<()> {
        match member.starter() {
            None => self.run(self.entry(member)?).await?,
            Some(worker) => self.start_if_ended(Member::Worker(worker)).await?,
        }
        self.wait_until_ready(member).await
    }

    /// Starts a process that never ran and does not wait until it serves.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn launch(&self, member: Member) -> Result<()> {
        self.run(self.entry(member)?).await
    }

    /// Starts a process unless it runs, but does not wait until it serves; says whether it did.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn revive(&self, member: Member) -> Result<bool> {
        let entry = self.entry(member)?;
        match self.standing(member).await? {
            Standing::Runs(_) => Ok(false),
            Standing::Ended(_) => self.run(entry).await.map(|()| true),
        }
    }

    /// Whether a process runs and serves at this moment.
    ///
    /// # Errors
    /// The stack has no such process.
    pub async fn serves(&self, member: Member) -> Result<bool> {
        if self.pid(member).await.is_err() {
            return Ok(false);
        }
        if member.starter().is_some() {
            return Ok(true);
        }
        let ready = self.entry(member)?.ready.clone();
        Ok(tokio::task::spawn_blocking(move || ready.holds()).await?)
    }

    async fn start_if_ended(&self, member: Member) -> Result<()> {
        if self.revive(member).await? {
            self.wait_until_ready(member).await?;
        }
        Ok(())
    }

    /// Starts a process and waits for its end instead of its readiness; its log is the answer.
    ///
    /// # Errors
    /// It still runs when it should have been ready, or it did get ready.
    pub async fn start_in_vain(&self, member: Member) -> Result<String> {
        match self.start(member).await {
            Ok(()) => bail!("{member} serves"),
            Err(_) => match self.standing(member).await? {
                Standing::Ended(_) => Ok(self.log(member)?),
                Standing::Runs(_) => bail!("{member} neither serves nor ends"),
            },
        }
    }

    /// Ends a process with SIGTERM, or with SIGKILL when that did not do, and says with which
    /// status it ended (a helper's is known to its worker only).
    ///
    /// # Errors
    /// It never ran, or survives.
    pub async fn stop(&self, member: Member) -> Result<String> {
        if let Some(status) = self.ended(member).await? {
            return Ok(status);
        }
        let pid = self.pid(member).await?;
        self.push(member, pid, Push::End).await?;
        // A paused process hears SIGTERM only once it goes on.
        self.push(member, pid, Push::Resume).await?;
        match self.ended_within(member, pid, STOP_WITHIN).await {
            Ok(status) => Ok(status),
            Err(_) => {
                self.push(member, pid, Push::Kill).await?;
                self.ended_within(member, pid, KILL_WITHIN).await
            }
        }
    }

    /// Ends a process with SIGKILL.
    ///
    /// # Errors
    /// It never ran, or survives.
    pub async fn kill(&self, member: Member) -> Result<()> {
        if self.ended(member).await?.is_some() {
            return Ok(());
        }
        let pid = self.pid(member).await?;
        self.push(member, pid, Push::Kill).await?;
        self.ended_within(member, pid, KILL_WITHIN).await.map(drop)
    }

    /// Ends a process with SIGTERM and starts it anew.
    ///
    /// # Errors
    /// As [`Self::stop`] and [`Self::start`].
    pub async fn restart(&self, member: Member) -> Result<()> {
        self.stop(member).await?;
        self.start(member).await
    }

    /// Stops a process where it stands (SIGSTOP).
    ///
    /// # Errors
    /// It does not run.
    pub async fn pause(&self, member: Member) -> Result<()> {
        let pid = self.pid(member).await?;
        self.push(member, pid, Push::Pause).await?;
        if member.starter().is_some() {
            self.paused().insert(member, pid);
        }
        Ok(())
    }

    /// Tells a process to read its settings again (SIGHUP).
    ///
    /// # Errors
    /// It does not run.
    pub async fn hang_up(&self, member: Member) -> Result<()> {
        let pid = self.pid(member).await?;
        self.push(member, pid, Push::HangUp).await
    }

    /// Lets a paused process go on (SIGCONT).
    ///
    /// # Errors
    /// It does not run.
    pub async fn resume(&self, member: Member) -> Result<()> {
        let paused = self.paused().remove(&member);
        let pid = match paused {
            Some(pid) => pid,
            None => self.pid(member).await?,
        };
        self.push(member, pid, Push::Resume).await
    }

    /// Tells a process to read its settings again (SIGHUP).
    ///
    /// # Errors
    /// It does not run.
    pub async fn reload(&self, member: Member) -> Result<()> {
        let pid = self.pid(member).await?;
        self.push(member, pid, Push::Reload).await
    }

    /// Starts a second worker with the id of this one and with directories of its own, as an operator
    /// does by mistake, and waits for its end. What it said is the answer.
    ///
    /// # Errors
    /// The stack has no such worker, or the second one does not end within `limit`.
    pub async fn start_twin(&self, worker: usize, limit: Duration) -> Result<String> {
        let name = format!("twin-{}", worker + 1);
        let mut process = self.entry(Member::Worker(worker))?.process.clone();
        process.log = self.directory().join("log").join(format!("{name}.log"));
        process.cgroup = None;
        for (option, kind) in [
            ("--state-dir", "state"),
            ("--data-dir", "data"),
            ("--ready-file", "ready"),
            ("--start-journal", "journal"),
        ] {
            let own = self.directory().join(format!("{name}.{kind}"));
            process.replace_value(option, own.into());
        }
        process.name.clone_from(&name);
        let log = process.log.clone();
        std::fs::write(&log, b"")?;
        self.supervisor.order(Order::Run(process)).await?;
        let what = format!("{name} ends");
        let ended = until(&what, limit, async || {
            let report = self.supervisor.order(Order::Check(name.clone())).await?;
            Ok(matches!(report, Report::Ended(_)).then_some(()))
        });
        if let Err(error) = ended.await {
            self.supervisor
                .order(Order::Push(name.clone(), Push::Kill))
                .await?;
            return Err(error);
        }
        Ok(std::fs::read_to_string(log)?)
    }

    /// Number of a running process.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pid(&self, member: Member) -> Result<u32> {
        if let Some(worker) = member.starter() {
            let starter = Box::pin(self.pid(Member::Worker(worker))).await?;
            let found = helper::find(member, starter, self.worker_id(worker)?);
            return found.with_context(|| format!("{member} does not run"));
        }
        match self.standing(member).await? {
            Standing::Runs(pid) => Ok(pid),
            Standing::Ended(status) => bail!("{member} does not run: {status}"),
        }
    }

    /// The exit status of a process that ran and has ended.
    async fn ended(&self, member: Member) -> Result<Option<String>> {
        if member.starter().is_some() {
            return Ok(None);
        }
        match self.standing(member).await? {
            Standing::Runs(_) => Ok(None),
            Standing::Ended(status) => Ok(Some(status)),
        }
    }

    /// Asks the keeper about a process that it started.
    async fn standing(&self, member: Member) -> Result<Standing> {
        match self
            .supervisor
            .order(Order::Check(member.to_string()))
            .await?
        {
            Report::Running(pid) => Ok(Standing::Runs(pid)),
            Report::Ended(status) => Ok(Standing::Ended(status)),
            Report::Done | Report::Failed(_) => bail!("{member}: not an answer"),
        }
    }

    async fn run(&self, entry: &Entry) -> Result<()> {
        entry.ready.forget()?;
        let order = Order::Run(entry.process.clone());
        self.supervisor.order(order).await.map(drop)
    }

    /// Sends a signal. That the process has ended meanwhile is no error.
    async fn push(&self, member: Member, pid: u32, push: Push) -> Result<()> {
        if member.starter().is_none() {
            let order = Order::Push(member.to_string(), push);
            return self.supervisor.order(order).await.map(drop);
        }
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        match kill_process(pid.context("process number 0")?, push.signal()) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn ended_within(&self, member: Member, pid: u32, limit: Duration) -> Result<String> {
        until(&format!("{member} ends"), limit, async || {
            if member.starter().is_some() {
                let ended = inventory::started(pid).is_none() || inventory::is_zombie(pid);
                return Ok(ended.then(|| "ended".to_owned()));
            }
            match self.standing(member).await? {
                Standing::Ended(status) => Ok(Some(status)),
                Standing::Runs(_) => Ok(None),
            }
        })
        .await
    }

    async fn wait_until_ready(&self, member: Member) -> Result<()> {
        let what = format!("{member} serves");
        if member.starter().is_some() {
            let found = until(&what, READY_WITHIN, async || {
                Ok(self.pid(member).await.ok())
            });
            return found.await.map(drop);
        }
        let ready = until(&what, READY_WITHIN, async || {
            self.pid(member).await?;
            Ok(self.serves(member).await?.then_some(()))
        });
        ready
            .await
            .with_context(|| format!("{member} did not get ready\n{}", self.tail(member)))
    }

    fn paused(&self) -> MutexGuard<'_, std::collections::BTreeMap<Member, u32>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
