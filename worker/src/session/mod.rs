//! Sessions that this worker owns. Each is one task, the [`actor`], that asks the pure
//! [`machine`] what to do and does it.

use std::sync::Arc;

use async_nats::Client;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{bus::Doubt, stock::Stock, store::Store};

pub mod actor;
pub mod answer;
pub mod end;
pub mod execution;
pub mod file_job;
pub mod machine;
pub mod place;
pub mod table;
pub mod work;

/// What every session of a worker shares.
#[derive(Clone, Debug)]
pub struct Context {
    /// The connection to the bus.
    pub client: Client,
    /// Occasions to make sure of an ownership.
    pub doubt: Doubt,
    /// Where long bodies are.
    pub store: Store,
    /// Where sandboxes come from.
    pub stock: Stock,
    /// One permit for each session that this worker may hold.
    pub room: Arc<Semaphore>,
    /// The living sessions.
    pub table: table::Table,
    /// All tasks that serve sessions.
    pub tasks: TaskTracker,
    /// No new sessions are taken after this.
    pub draining: CancellationToken,
}
