//! Sessions that this worker owns. Each is one task, the [`actor`], that asks the pure
//! [`machine`] what to do and does it.

use std::sync::Arc;

use proto::health::Health;
use records::fleet::Standing;
use store::Store;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    bus::{Interruptions, Outbox},
    clock::Clock,
    journal::Journal,
    lease::{
        Ownership,
        orphan::{self, Leave},
    },
    metrics::Counts,
    record::Records,
    sync::Transfers,
};

pub mod actor;
pub mod answer;
pub mod claim;
mod closing;
pub mod file_job;
mod grace;
mod hand_over;
mod inspect;
pub mod machine;
pub mod name;
pub mod opening;
pub mod ports;
pub mod program;
mod progress;
pub mod queue;
mod receive;
pub mod recent;
pub mod recorded;
pub mod running;
pub mod saver;
#[cfg(test)]
mod simulation;
pub mod state;
#[cfg(test)]
mod stories;
pub mod table;
pub mod turns;

/// Sessions that are handed over at once.
const HAND_OVER_AT_ONCE: usize = 8;

/// What every session of a worker shares.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Where answers go out.
    pub outbox: Arc<dyn Outbox>,
    /// Occasions to make sure of an ownership.
    pub interruptions: Interruptions,
    /// Where long bodies are.
    pub store: Store,
    /// What keeps executions from running twice.
    pub records: Records,
    /// Where starts of executions are noted.
    pub journal: Journal,
    /// The living sessions.
    pub table: table::Table,
    /// All tasks that serve sessions.
    pub tasks: TaskTracker,
    /// No new sessions are taken after this.
    pub draining: CancellationToken,
    /// Turns of sessions that are handed over.
    pub handing_over: turns::Turns,
    /// What is counted of sessions.
    pub counts: Counts,
}

impl Shared {
    /// Shared by nobody yet. Answers go out through `outbox`.
    #[must_use]
    pub fn new(
        outbox: Arc<dyn Outbox>,
        interruptions: Interruptions,
        store: Store,
        (records, journal): (Records, Journal),
    ) -> Self {
        Self {
            outbox,
            interruptions,
            store,
            records,
            journal,
            table: table::Table::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            handing_over: turns::Turns::new(HAND_OVER_AT_ONCE),
            counts: Counts::default(),
        }
    }

    /// Gives a lease up that no session has, once the bus says that it is there.
    fn give_up_later(&self, ownership: Ownership, reason: orphan::Reason, leave: Leave) {
        let giving_up = orphan::give_up(ownership, reason, leave, self.draining.clone());
        self.tasks.spawn(giving_up);
    }
}

/// What it takes to make sessions here.
#[derive(Clone, Debug)]
pub struct Context {
    /// What they share.
    pub shared: Shared,
    /// How this worker's checks stand.
    pub health: Health,
    /// Where jobs are listened for.
    pub bus: Arc<dyn ports::ListenPort>,
    /// Whether this host's clock is right.
    pub clock: Clock,
    /// Where sandboxes come from.
    pub stock: Arc<dyn ports::StockPort>,
    /// One permit for each session that this worker may hold.
    pub room: Arc<Semaphore>,
    /// Memory for files on their way between sessions and the store.
    pub transfers: Transfers,
    /// Whether the bus has the data that it had.
    pub standing: Standing,
}
