//! What a session tells of itself, to its callers and to operators.

use std::time::Duration;

use proto::{
    inspection::{Inspection, RunningExecution},
    message::SessionInfo,
};

use super::{actor::Actor, running::Execution};

impl Actor {
    pub(super) fn describe(&self) -> SessionInfo {
        let session = &self.session;
        let idle = session.last_used.elapsed();
        SessionInfo {
            identifier: session.name.identifier.clone(),
            incarnation: session.keeper.ownership().incarnation(),
            idle_ms: milliseconds(idle),
            remaining_ms: milliseconds(session.pool.cooldown().saturating_sub(idle)),
        }
    }

    pub(super) fn inspect(&self) -> Inspection {
        let session = &self.session;
        let sandbox = self.phase.sandbox();
        let committed = sandbox.and_then(|sandbox| sandbox.saver.committed());
        Inspection {
            session: self.describe(),
            state: self.phase.name().to_owned(),
            running: self.phase.execution().map(|running| told(running)),
            waiting: count(session.queue.len()),
            file_operations: count(self.held() + session.file_jobs.len()),
            lease_renewed_ms: milliseconds(session.keeper.renewed().elapsed()),
            committed_ms: committed.map(|at| milliseconds(at.elapsed())),
            is_unsaved: self.phase.is_unsaved() || session.has_unkept_files,
            usage: sandbox.and_then(|sandbox| sandbox.cage.usage()),
        }
    }
}

fn told(running: &Execution) -> RunningExecution {
    RunningExecution {
        operation: running.operation.clone(),
        since_ms: running.begun().map_or(0, |at| milliseconds(at.elapsed())),
        is_saving: running.ended.is_some(),
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
