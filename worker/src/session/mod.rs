//! Sessions that this worker owns. Each is one task, the [`actor`], that asks the pure
//! [`machine`] what to do and does it.

use std::sync::Arc;

use async_nats::Client;
use proto::health::Health;
use records::fleet::Standing;
use store::Store;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    bus::Interruptions, clock::Clock, journal::Journal, metrics::Counts, record::Records,
    stock::Stock, sync::Transfers,
};

pub mod actor;
pub mod answer;
pub mod claim;
pub mod end;
pub mod execution;
pub mod file_job;
mod grace;
mod hand_over;
mod inspect;
pub mod machine;
pub mod opening;
mod perform;
mod receive;
pub mod recent;
pub mod recorded;
pub mod saver;
pub mod table;
pub mod turns;
pub mod work;

/// What every session of a worker shares.
#[derive(Clone, Debug)]
pub struct Context {
    /// How this worker's checks stand.
    pub health: Health,
    /// The connection to the bus.
    pub client: Client,
    /// Occasions to make sure of an ownership.
    pub interruptions: Interruptions,
    /// Whether this host's clock is right.
    pub clock: Clock,
    /// Where long bodies are.
    pub store: Store,
    /// What keeps executions from running twice.
    pub records: Records,
    /// Where sandboxes come from.
    pub stock: Stock,
    /// Where starts of executions are noted.
    pub journal: Journal,
    /// One permit for each session that this worker may hold.
    pub room: Arc<Semaphore>,
    /// The living sessions.
    pub table: table::Table,
    /// All tasks that serve sessions.
    pub tasks: TaskTracker,
    /// No new sessions are taken after this.
    pub draining: CancellationToken,
    /// Memory for files on their way between sessions and the store.
    pub transfers: Transfers,
    /// Turns of sessions that are handed over.
    pub handing_over: turns::Turns,
    /// What is counted of sessions.
    pub counts: Counts,
    /// Whether the bus has the data that it had.
    pub standing: Standing,
}
