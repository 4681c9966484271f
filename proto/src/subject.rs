//! Every subject, stream name and object key in one place.

use std::fmt::Display;

use crate::{
    id::{OperationId, PoolId, SessionKey, WorkerId},
    record::RecordKey,
};
use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

/// Queue group of a session's owner. Two plain subscribers would both execute.
pub const OWNER_GROUP: &str = "o";
/// Queue group of placement.
pub const PLACE_GROUP: &str = "place";
/// Last token of the messages that a leaving owner sends itself.
pub const FAREWELL: &str = "bye";
/// Where nobody listens, since no pool has that name: the server answers a request there by itself.
pub const NOBODY: &str = "h1.nobody.s.nobody.bye";
/// Stream behind the workers' keys.
pub const WORKERS_STREAM: &str = "KV_h1_workers";
/// Stream behind the records of all pools' executions, readable as a key-value bucket.
pub const EXECUTIONS_STREAM: &str = "KV_h1_executions";
/// Subjects of all records of executions.
pub const EXECUTIONS: &str = "$KV.h1_executions.*.*.*";

/// Stream behind what all processes of a fleet must agree on, readable as a key-value bucket.
pub const FLEET_STREAM: &str = "KV_h1_fleet";
/// Subjects of all of it.
pub const FLEET: &str = "$KV.h1_fleet.>";
/// Where the bus's generation lies.
pub const FLEET_GENERATION: &str = "$KV.h1_fleet.generation";
/// Where workers write marks from time to time. Their sequences rise, and on a bus that was put back to an
/// earlier time the last is lower than the store knows. Nothing else is compared: others write there, too.
pub const FLEET_MARK: &str = "$KV.h1_fleet.mark";
/// Where the first ingress writes the fingerprint of the cluster key.
pub const FLEET_KEY: &str = "$KV.h1_fleet.key";
/// Subjects of the pools of all ingresses.
pub const FLEET_POOLS: &str = "$KV.h1_fleet.pools.*";
/// Subjects of all workers' keys.
pub const WORKERS: &str = "$KV.h1_workers.*";
/// All subjects of the workers' stream.
pub const WORKERS_BUCKET: &str = "$KV.h1_workers.>";

/// Stream of the executions that wait in the queues of all pools.
pub const JOBS_STREAM: &str = "H1_JOBS";
/// Subjects of all executions that wait.
pub const JOBS: &str = "h1.jobs.*.*";

/// How ready a worker must be to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It holds a joined spare.
    Warm,
    /// It has room.
    Any,
}

/// Subject of one operation on a session.
#[must_use]
pub fn session(pool: &PoolId, session: &SessionKey, verb: &str) -> String {
    format!("h1.{pool}.s.{session}.{verb}")
}

/// What an owner subscribes to, with [`OWNER_GROUP`].
#[must_use]
pub fn session_wildcard(pool: &PoolId, session: &SessionKey) -> String {
    format!("h1.{pool}.s.{session}.*")
}

/// Where a job without an owner goes.
#[must_use]
pub fn place(pool: &PoolId, readiness: Readiness) -> String {
    let level = match readiness {
        Readiness::Warm => "warm",
        Readiness::Any => "any",
    };
    format!("h1.{pool}.place.{level}")
}

/// Where it is asked what a pool's sandboxes hold, with [`PLACE_GROUP`]: any worker can tell.
#[must_use]
pub fn about(pool: &PoolId) -> String {
    format!("h1.{pool}.about")
}

/// Where one worker listens.
#[must_use]
pub fn worker_control(worker: &WorkerId) -> String {
    format!("h1.w.{worker}.ctl")
}

/// Where an operator tells one worker to hand its sessions over and to end.
#[must_use]
pub fn worker_drain(worker: &WorkerId) -> String {
    format!("h1.w.{worker}.drain")
}

/// Stream of a pool's slots.
#[must_use]
pub fn slots_stream(pool: &PoolId) -> String {
    format!("H1_SLOTS_{pool}")
}

/// Subject of one session's slot.
#[must_use]
pub fn slot(pool: &PoolId, session: &SessionKey) -> String {
    format!("h1.slots.{pool}.{session}")
}

/// Subjects of all slots of a pool.
#[must_use]
pub fn slot_wildcard(pool: &PoolId) -> String {
    format!("h1.slots.{pool}.*")
}

/// Stream of a pool's leases, readable as a key-value bucket.
#[must_use]
pub fn leases_stream(pool: &PoolId) -> String {
    format!("KV_h1_leases_{pool}")
}

/// Subjects of all leases of a pool.
#[must_use]
pub fn lease_wildcard(pool: &PoolId) -> String {
    format!("$KV.h1_leases_{pool}.*")
}

/// All subjects of a pool's leases' stream.
#[must_use]
pub fn leases_bucket(pool: &PoolId) -> String {
    format!("$KV.h1_leases_{pool}.>")
}

/// Subject of one session's lease.
#[must_use]
pub fn lease(pool: &PoolId, session: &SessionKey) -> String {
    format!("$KV.h1_leases_{pool}.{session}")
}

/// Subject of one worker's key.
#[must_use]
pub fn worker(worker: &WorkerId) -> String {
    format!("$KV.h1_workers.{worker}")
}

/// Subject of the claim of a worker's id, in the same stream. No run of any worker has such a name.
#[must_use]
pub fn worker_claim(id: &WorkerId) -> String {
    format!("$KV.h1_workers.claim_{id}")
}

/// Subject of one execution's record.
#[must_use]
pub fn execution(pool: &PoolId, session: &SessionKey, key: &RecordKey) -> String {
    format!("$KV.h1_executions.{pool}.{session}.{key}")
}

/// Subjects of the records of all executions of a session.
#[must_use]
pub fn executions_of(pool: &PoolId, session: &SessionKey) -> String {
    format!("$KV.h1_executions.{pool}.{session}.*")
}

/// Subjects of the records of all executions of a pool.
#[must_use]
pub fn executions_of_pool(pool: &PoolId) -> String {
    format!("$KV.h1_executions.{pool}.*.*")
}

/// Subject of an execution that waits in the queue of its pool.
#[must_use]
pub fn queued(pool: &PoolId, session: &SessionKey) -> String {
    format!("h1.jobs.{pool}.{session}")
}

/// Subjects of all executions that wait in the queue of a pool.
#[must_use]
pub fn queue(pool: &PoolId) -> String {
    format!("h1.jobs.{pool}.*")
}

/// Durable consumer through which all workers share out the queue of a pool.
#[must_use]
pub fn queue_consumer(pool: &PoolId) -> String {
    format!("pool_{pool}")
}

/// Key of the object that holds the long code of an execution in the queue, beside its results: it may
/// be read more than once.
#[must_use]
pub fn queued_code_key(
    pool: &PoolId,
    session: &SessionKey,
    key: &RecordKey,
    nonce: &str,
) -> String {
    format!("{RESULTS}/{pool}/{session}/{key}-code-{nonce}")
}

/// Inbox prefix of an ingress instance; `instance` must be one subject token.
#[must_use]
pub fn ingress_inbox(instance: &str) -> String {
    format!("_INBOX_ingress.{instance}")
}

/// Where an ingress says which pools it knows; `instance` must be one subject token.
#[must_use]
pub fn fleet_pools(instance: &str) -> String {
    format!("$KV.h1_fleet.pools.{instance}")
}

/// Inbox prefix of a worker's run, or of what has the same rights; `run` must be one subject token.
#[must_use]
pub fn worker_inbox(run: &impl Display) -> String {
    format!("_INBOX_worker.{run}")
}

/// What the keys of all staging objects start with.
pub const STAGING: &str = "staging";

/// Key of a staging object. The operation id is a caller's text, so only its digest enters the key;
/// `purpose` keeps a job's upload and its answer apart.
#[must_use]
pub fn staging_key(
    pool: &PoolId,
    session: &SessionKey,
    operation: &OperationId,
    purpose: &str,
    nonce: &str,
) -> String {
    let digest = Sha256::digest(operation.as_str().as_bytes());
    let (head, _) = digest.split_at(15);
    let operation = BASE32_NOPAD.encode(head).to_ascii_lowercase();
    format!("{STAGING}/{pool}/{session}/{operation}-{purpose}-{nonce}")
}

/// What the keys of all results of executions start with.
pub const RESULTS: &str = "results";

/// Key of the object that holds the result of an execution with a record. `nonce` is different for
/// every writer, so that one who lost the record never changes what the winner stored.
#[must_use]
pub fn result_key(pool: &PoolId, session: &SessionKey, key: &RecordKey, nonce: &str) -> String {
    format!("{RESULTS}/{pool}/{session}/{key}-{nonce}")
}
