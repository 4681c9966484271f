//! Sessions that this worker owns. Each is one task, the [`actor`], that asks the pure
//! [`machine`] what to do and does it.

use std::sync::Arc;

use async_nats::Client;
use proto::health::Health;
use store::Store;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{bus::Doubt, journal::Journal, record::Records, stock::Stock, sync::Transfers};

pub mod actor;
pub mod answer;
pub mod end;
pub mod execution;
pub mod file_job;
pub mod machine;
pub mod opening;
mod perform;
pub mod place;
mod receive;
pub mod recent;
pub mod recorded;
pub mod saver;
pub mod table;
pub mod work;

/// What every session of a worker shares.
#[derive(Clone, Debug)]
pub struct Context {
    /// How this worker's checks stand.
    pub health: Health,
    /// The connection to the bus.
    pub client: Client,
    /// Occasions to make sure of an ownership.
    pub doubt: Doubt,
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
    /// One permit for each session that may be handed over at once: each takes processor time and
    /// memory for its variables.
    pub handing_over: Arc<Semaphore>,
}
