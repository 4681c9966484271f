//! What a start journal holds: one line for each execution that was handed to a kernel. Files and
//! variables cannot witness code that ran twice when a failover took one run back; these lines can.

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, Incarnation, OperationId, PoolId, SessionKey, WorkerId};

/// One start of an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The execution.
    pub operation: OperationId,
    /// Its session's pool.
    pub pool: PoolId,
    /// Its session.
    pub session: SessionKey,
    /// The session's life.
    pub incarnation: Incarnation,
    /// The ownership under which it started.
    pub epoch: Epoch,
    /// The run of the worker that started it.
    pub worker: WorkerId,
    /// Microseconds since 1970 by the worker's clock, taken before the line was written.
    pub at_us: u64,
}
