//! The process that holds a stack together: `loadtest keep DIRECTORY`. It reads orders from its
//! standard input and ends everything when that closes, so a test binary that panics, is killed or
//! simply returns from `main` takes its stack with it. One thread only: what it starts is leashed
//! to the thread that started it.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, BufRead, Write},
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid},
};

use super::{
    order::{Order, Process, Push, Report},
    sweep,
};
use crate::inventory::{self, is_zombie};

/// How long a process may take to end after SIGTERM. A worker ends all its sessions in this time.
pub(super) const STOP_WITHIN: Duration = Duration::from_secs(45);
/// How long a process may take to vanish after SIGKILL.
pub(super) const KILL_WITHIN: Duration = Duration::from_secs(10);

/// How often orphans are looked for.
const REAP_EVERY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

struct Kept {
    name: String,
    child: Child,
}

struct Keeper {
    directory: PathBuf,
    kept: Vec<Kept>,
    cgroups: BTreeSet<String>,
    keep_files: bool,
}

/// Keeps processes until standard input ends; then ends them, latest first, and removes
/// `directory`.
///
/// # Errors
/// Standard input or output broke in another way than by closing.
pub fn keep(directory: &Path) -> Result<()> {
    // Whatever a killed worker leaves behind comes to this process, which ends it too.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let directory = directory.to_owned();
    let mut keeper = Keeper {
        directory,
        kept: Vec::new(),
        cgroups: BTreeSet::new(),
        keep_files: false,
    };
    let served = keeper.serve();
    keeper.end();
    served
}

/// Replaces this process by `program`, which gets SIGTERM when the calling thread of its parent
/// ends: `loadtest leash PARENT PROGRAM ARGUMENTS…`.
///
/// # Errors
/// The parent is gone already or the program cannot be started.
pub fn leash(parent: u32, program: &Path, arguments: &[std::ffi::OsString]) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    let current = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if current.and_then(|pid| u32::try_from(pid).ok()) != Some(parent) {
        bail!("the parent is gone");
    }
    Err(Command::new(program).args(arguments).exec())
        .with_context(|| format!("starting {}", program.display()))
}

impl Keeper {
    fn serve(&mut self) -> Result<()> {
        let mut input = io::stdin().lock();
        let mut line = String::new();
        loop {
            self.reap_orphans_until_ready(&input)?;
            line.clear();
            if input.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let order = serde_json::from_str(&line).context("not an order")?;
            let report = self
                .obey(order)
                .unwrap_or_else(|error| Report::Failed(format!("{error:#}")));
            let mut output = io::stdout().lock();
            serde_json::to_writer(&mut output, &report)?;
            output.write_all(b"\n")?;
            output.flush()?;
        }
    }

    /// Waits for the next order, and meanwhile does what a host's process 1 does: a cage whose
    /// kernel's zygote was killed cannot end before somebody has reaped the kernel. Orders come one
    /// at a time, so nothing of the next can be read ahead.
    fn reap_orphans_until_ready(&self, input: &impl AsFd) -> Result<()> {
        let mut watched = [PollFd::new(input, PollFlags::IN)];
        while poll(&mut watched, Some(&REAP_EVERY))? == 0 {
            let own: Vec<u32> = self.kept.iter().map(|kept| kept.child.id()).collect();
            let children = inventory::children_of_this_thread().into_iter();
            for orphan in children.filter(|child| !own.contains(child) && is_zombie(*child)) {
                waitpid(Pid::from_raw(i32::try_from(orphan)?), WaitOptions::NOHANG)?;
            }
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<Report> {
        match order {
            Order::Run(process) => self.run(process),
            Order::Check(name) => self.check(&name),
            Order::Push(name, push) => self.push(&name, push),
            Order::KeepFiles => {
                self.keep_files = true;
                Ok(Report::Done)
            }
        }
    }

    fn find(&mut self, name: &str) -> Result<&mut Kept> {
        let kept = self.kept.iter_mut().find(|kept| kept.name == name);
        kept.with_context(|| format!("no process `{name}`"))
    }

    fn run(&mut self, process: Process) -> Result<Report> {
        if let Some(place) = self.kept.iter().position(|kept| kept.name == process.name) {
            if self
                .kept
                .get_mut(place)
                .is_some_and(|kept| matches!(kept.child.try_wait(), Ok(None)))
            {
                bail!("`{}` runs already", process.name);
            }
            drop(self.kept.remove(place));
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&process.log)?;
        let child = Command::new(std::env::current_exe()?)
            .arg("leash")
            .arg(std::process::id().to_string())
            .arg(&process.program)
            .args(&process.arguments)
            .envs(process.environment)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", process.program.display()))?;
        let id = child.id();
        self.cgroups.extend(process.cgroup);
        self.kept.push(Kept {
            name: process.name,
            child,
        });
        Ok(Report::Running(id))
    }

    fn check(&mut self, name: &str) -> Result<Report> {
        let child = &mut self.find(name)?.child;
        Ok(match child.try_wait()? {
            None => Report::Running(child.id()),
            Some(status) => Report::Ended(in_words(status)),
        })
    }

    fn push(&mut self, name: &str, push: Push) -> Result<Report> {
        let child = &mut self.find(name)?.child;
        match child.try_wait()? {
            Some(status) => Ok(Report::Ended(in_words(status))),
            None => {
                kill_process(pid_of(child)?, push.signal())?;
                Ok(Report::Done)
            }
        }
    }

    fn end(mut self) {
        while let Some(mut kept) = self.kept.pop() {
            if let Err(error) = halt(&mut kept.child) {
                complain(&format!("ending {}: {error:#}", kept.name));
            }
        }
        for left in sweep::sweep(&self.directory, &self.cgroups) {
            complain(&format!("left behind: {left}"));
        }
        if self.keep_files {
            complain(&format!("files are kept in {}", self.directory.display()));
        } else if let Err(error) = fs::remove_dir_all(&self.directory) {
            complain(&format!("removing {}: {error}", self.directory.display()));
        }
    }
}

/// Says something to whoever watches the tests. Nobody may be left to hear it.
fn complain(text: &str) {
    drop(writeln!(io::stderr(), "loadtest keep: {text}"));
}

fn in_words(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => status.to_string(),
    }
}

fn pid_of(child: &Child) -> Result<Pid> {
    let id = i32::try_from(child.id())?;
    Pid::from_raw(id).context("process number 0")
}

fn halt(child: &mut Child) -> Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    let pid = pid_of(child)?;
    kill_process(pid, Push::End.signal())?;
    // A paused process hears SIGTERM only once it goes on.
    kill_process(pid, Push::Resume.signal())?;
    if ends_within(pid, STOP_WITHIN)? {
        return Ok(child.wait()?);
    }
    complain(&format!("process {pid:?} did not end on SIGTERM"));
    kill_process(pid, Push::Kill.signal())?;
    if ends_within(pid, KILL_WITHIN)? {
        return Ok(child.wait()?);
    }
    bail!("process {pid:?} survives SIGKILL")
}

/// Waits until a child of this process is a zombie.
fn ends_within(pid: Pid, limit: Duration) -> Result<bool> {
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec {
        tv_sec: i64::try_from(limit.as_secs())?,
        tv_nsec: 0,
    };
    let mut watched = [PollFd::new(&handle, PollFlags::IN)];
    loop {
        match poll(&mut watched, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}
