//! PID 1 of a cage: keeps its namespaces alive and reaps what its sessions leave behind.
//!
//! It is a plain copy of `caged`, never an executed program: a quarter of a megabyte, no
//! descriptors, deaf to every signal from inside.

use std::collections::HashMap;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use rustix::process::{DumpableBehavior, Signal, WaitOptions};

use super::sys;

/// What libcontainer runs in place of a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reaper;

impl Executor for Reaper {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // `caged` runs with an empty environment, and so does its copy.
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        reap_for_ever()
    }
}

fn reap_for_ever() -> ! {
    // Undumpable, its directory in /proc is closed to the session. And whatever ends `caged`, ends
    // this process and with it everything in the cage.
    let locked = sys::close_from(0)
        .and_then(|()| Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?))
        .and_then(|()| {
            Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
        });
    if locked.is_err() {
        sys::exit_now(1);
    }
    sys::set_name(c"cage");
    sys::sleep_between_children(|| {
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    })
}
