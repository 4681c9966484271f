//! PID 1 of a cage: keeps its namespaces alive and reaps what its sessions leave behind.
//!
//! It is a plain copy of `caged`, never an executed program: a quarter of a megabyte, no
//! descriptors, deaf to every signal from inside.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{DumpableBehavior, PidfdFlags, Signal, WaitOptions};

use super::sys;

/// What libcontainer runs in place of a program.
#[derive(Clone, Debug)]
pub(super) struct Reaper {
    caged: Arc<OwnedFd>,
}

impl Reaper {
    /// The reaper of a cage that this process, `caged`, is about to make.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let me = rustix::process::getpid();
        let caged = rustix::process::pidfd_open(me, PidfdFlags::empty())?;
        Ok(Self {
            caged: Arc::new(caged),
        })
    }
}

impl Executor for Reaper {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // `caged` runs with an empty environment, and so does its copy.
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        reap_for_ever(&self.caged)
    }
}

fn reap_for_ever(caged: &OwnedFd) -> ! {
    // Undumpable, its directory in /proc is closed to the session.
    let locked = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(io::Error::from)
        .and_then(|()| end_with(caged))
        .and_then(|()| sys::close_from(0));
    if locked.is_err() {
        sys::exit_now(1);
    }
    sys::set_name(c"cage");
    sys::sleep_between_children(|| {
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    })
}

/// From here on whatever ends `caged` ends this process, and with it everything in the cage.
fn end_with(caged: &OwnedFd) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended already, and the signal is sent only once.
    let mut watched = [PollFd::new(caged, PollFlags::IN)];
    match rustix::event::poll(&mut watched, Some(&Timespec::default()))? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}
