//! What it takes of a bus to bring jobs to their sessions, as a trait: with another behind it, routing runs in
//! simulations.

use std::{fmt, time::Duration};

use bytes::Bytes;
use proto::{
    ambient::Ids,
    fleet::PoolDigest,
    id::{PoolId, SessionKey, WorkerId},
    lease::WorkerBeat,
    record::{ExecutionRecord, Stamp},
};
use records::{
    execution::{Found, Put},
    fleet::Standing,
};

use super::{Bus, BusError, inbox::Inbox};
use crate::{placement::LeaseView, served::Served};

/// A bus that carries jobs and tells who owns a session. Clones share it.
pub trait RouteBus: Clone + fmt::Debug + Send + Sync + 'static {
    /// Where this process's ids come from.
    fn ids(&self) -> &Ids;

    /// The stamp of a record that is written now.
    fn stamp(&self) -> Stamp;

    /// Sends a message whose frames come to the returned inbox.
    ///
    /// # Errors
    /// The connection is down.
    fn send(
        &self,
        subject: String,
        payload: Bytes,
    ) -> impl Future<Output = Result<Inbox, BusError>> + Send;

    /// How long this process has been connected without a break.
    fn connected_for(&self) -> Duration;

    /// How the bus stands.
    fn standing(&self) -> Standing;

    /// The session's lease record, from whichever server has it nearest: a hint.
    ///
    /// # Errors
    /// The bus did not answer.
    fn lease(
        &self,
        pool: &PoolId,
        session: &SessionKey,
    ) -> impl Future<Output = Result<LeaseView, BusError>> + Send;

    /// The same where a stream that is not there must not be taken for one without a record.
    ///
    /// # Errors
    /// The bus did not answer, or does not hold the pool's leases now.
    fn known_lease(
        &self,
        pool: &PoolId,
        session: &SessionKey,
    ) -> impl Future<Output = Result<LeaseView, BusError>> + Send;

    /// The session's lease record as far as it can be believed: `None` while the bus may have lost its data.
    ///
    /// # Errors
    /// The bus did not answer, and is not in doubt.
    fn sure_lease(
        &self,
        pool: &PoolId,
        session: &SessionKey,
    ) -> impl Future<Output = Result<Option<LeaseView>, BusError>> + Send {
        async {
            let standing = self.standing();
            let doubts = standing.doubts();
            if standing.is_in_doubt() {
                return Ok(None);
            }
            let lease = self.lease(pool, session).await;
            if standing.is_in_doubt() || standing.doubts() != doubts {
                return Ok(None);
            }
            lease.map(Some)
        }
    }

    /// A worker's key.
    ///
    /// # Errors
    /// The bus did not answer.
    fn worker(
        &self,
        worker: &WorkerId,
    ) -> impl Future<Output = Result<Option<WorkerBeat>, BusError>> + Send;

    /// Whether workers serve this pool as this process knows it.
    fn served(&self, pool: &PoolId) -> impl Future<Output = Served> + Send;

    /// The settings of a pool as this process knows them.
    fn pool_digest(&self, pool: &PoolId) -> Option<PoolDigest>;

    /// The record of an execution, from whichever server has it nearest: a hint.
    ///
    /// # Errors
    /// The bus did not answer.
    fn execution(&self, subject: &str) -> impl Future<Output = Result<Found, BusError>> + Send;

    /// The record of an execution as it is.
    ///
    /// # Errors
    /// The bus did not answer.
    fn read_execution(&self, subject: &str)
    -> impl Future<Output = Result<Found, BusError>> + Send;

    /// Writes the record of an execution over exactly the revision `expected` (0: none).
    ///
    /// # Errors
    /// The bus did not answer; whether the record was written is unknown.
    fn write_execution(
        &self,
        subject: &str,
        record: &ExecutionRecord,
        expected: u64,
    ) -> impl Future<Output = Result<Put, BusError>> + Send;
}

impl RouteBus for Bus {
    fn ids(&self) -> &Ids {
        self.ids()
    }

    fn stamp(&self) -> Stamp {
        self.stamp()
    }

    async fn send(&self, subject: String, payload: Bytes) -> Result<Inbox, BusError> {
        self.send(subject, payload).await
    }

    fn connected_for(&self) -> Duration {
        self.connected_for()
    }

    fn standing(&self) -> Standing {
        self.standing()
    }

    async fn lease(&self, pool: &PoolId, session: &SessionKey) -> Result<LeaseView, BusError> {
        self.lease(pool, session).await
    }

    async fn known_lease(
        &self,
        pool: &PoolId,
        session: &SessionKey,
    ) -> Result<LeaseView, BusError> {
        self.known_lease(pool, session).await
    }

    async fn worker(&self, worker: &WorkerId) -> Result<Option<WorkerBeat>, BusError> {
        self.worker(worker).await
    }

    async fn served(&self, pool: &PoolId) -> Served {
        self.served(pool).await
    }

    fn pool_digest(&self, pool: &PoolId) -> Option<PoolDigest> {
        self.pool_digest(pool)
    }

    async fn execution(&self, subject: &str) -> Result<Found, BusError> {
        self.execution(subject).await
    }

    async fn read_execution(&self, subject: &str) -> Result<Found, BusError> {
        self.read_execution(subject).await
    }

    async fn write_execution(
        &self,
        subject: &str,
        record: &ExecutionRecord,
        expected: u64,
    ) -> Result<Put, BusError> {
        self.write_execution(subject, record, expected).await
    }
}
