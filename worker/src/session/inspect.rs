//! What a session tells of itself, to its callers and to operators.

use std::time::Duration;

use proto::{
    inspection::{Inspection, RunningExecution, Usage},
    message::SessionInfo,
};

use super::{actor::Actor, execution::Running, machine::State};
use crate::sandbox::Cage;

impl Actor {
    pub(super) fn describe(&self) -> SessionInfo {
        let idle = self.last_used.elapsed();
        SessionInfo {
            identifier: self.first.identifier.clone(),
            incarnation: self.keeper.ownership().incarnation(),
            idle_ms: milliseconds(idle),
            remaining_ms: milliseconds(self.pool.cooldown().saturating_sub(idle)),
        }
    }

    pub(super) fn inspect(&self) -> Inspection {
        let sandbox = self.sandbox.as_ref();
        let committed = sandbox.and_then(|sandbox| sandbox.saver.committed());
        Inspection {
            session: self.describe(),
            state: self.state.name().to_owned(),
            running: self.running.as_ref().map(running),
            waiting: count(self.queue.len()),
            file_operations: count(self.held.len() + self.file_jobs.len()),
            lease_renewed_ms: milliseconds(self.keeper.renewed().elapsed()),
            committed_ms: committed.map(|at| milliseconds(at.elapsed())),
            is_unsaved: matches!(self.state, State::Unsaved(_)) || self.saved.is_err(),
            usage: sandbox.and_then(|sandbox| usage(&sandbox.cage)),
        }
    }
}

fn running(running: &Running) -> RunningExecution {
    RunningExecution {
        operation: running.operation.clone(),
        since_ms: milliseconds(running.started.elapsed()),
        is_saving: running.ended.is_some(),
    }
}

/// Small files of the kernel's: reading them holds the session up for some ten microseconds.
fn usage(cage: &Cage) -> Option<Usage> {
    Some(Usage {
        memory_bytes: cage.memory_bytes().ok()?,
        cpu_ms: cage.cpu_us().ok()? / 1000,
        processes: count(cage.processes().ok()?.len()),
    })
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
