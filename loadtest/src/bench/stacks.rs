//! Three stacks that differ in what their workers keep ready.

use std::{collections::BTreeSet, fmt, time::Duration};

use anyhow::Result;

use crate::{
    client::Client,
    cluster::Cluster,
    inventory::{cgroups_of, processes_in},
    wait::until,
};

/// How long a worker may take to fill its stock.
const STOCKED_WITHIN: Duration = Duration::from_secs(60);
/// Spares that the stack with spares keeps.
const SPARES: usize = 4;
/// Cages that the stacks with cages keep.
const CAGES: usize = 8;

/// What is ready when a new session is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stock {
    /// Fully joined sandboxes.
    Spare,
    /// Empty cages only.
    Cage,
    /// Nothing but the zygote.
    Nothing,
}

impl fmt::Display for Stock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spare => "spare ready",
            Self::Cage => "cage ready",
            Self::Nothing => "nothing ready",
        })
    }
}

impl Stock {
    fn counts(self) -> (usize, usize) {
        match self {
            Self::Spare => (SPARES, CAGES),
            Self::Cage => (0, CAGES),
            Self::Nothing => (0, 0),
        }
    }
}

/// One stack per [`Stock`].
#[derive(Debug)]
pub(super) struct Stacks {
    spare: Cluster,
    cage: Cluster,
    nothing: Cluster,
}

impl Stacks {
    pub(super) async fn start() -> Result<Self> {
        let start = async |stock: Stock| {
            let (spares, cages) = stock.counts();
            let arguments = [
                "--spares".into(),
                spares.to_string(),
                "--cages".into(),
                cages.to_string(),
            ];
            Cluster::builder().worker_arguments(arguments).start().await
        };
        Ok(Self {
            spare: start(Stock::Spare).await?,
            cage: start(Stock::Cage).await?,
            nothing: start(Stock::Nothing).await?,
        })
    }

    pub(super) fn of(&self, stock: Stock) -> &Cluster {
        match stock {
            Stock::Spare => &self.spare,
            Stock::Cage => &self.cage,
            Stock::Nothing => &self.nothing,
        }
    }

    /// Ends of all logs.
    pub(super) fn tails(&self) -> String {
        let all = [Stock::Spare, Stock::Cage, Stock::Nothing];
        all.map(|stock| self.of(stock).tails()).concat()
    }

    pub(super) fn client(&self, stock: Stock) -> Result<Client> {
        self.of(stock).client(0)
    }

    /// Waits until the worker's stock is full beside `live` sessions of ours, as its cgroups show.
    pub(super) async fn stocked(&self, stock: Stock, live: usize) -> Result<()> {
        let id = self.of(stock).worker_id(0)?;
        let (spares, cages) = stock.counts();
        until("the stock is full", STOCKED_WITHIN, async || {
            let (joined, empty) = count(id);
            Ok((joined >= spares + live && empty >= cages).then_some(()))
        })
        .await
    }
}

/// Cages with a kernel, and cages with nothing but their process 1.
fn count(worker: &str) -> (usize, usize) {
    let mut cages = BTreeSet::new();
    for cgroup in cgroups_of(worker) {
        let processes = processes_in(&cgroup);
        if !processes.is_empty() {
            // The same cage stands in several hierarchies of version 1.
            cages.insert((
                cgroup.file_name().map(ToOwned::to_owned),
                processes.len() > 1,
            ));
        }
    }
    let joined = cages.iter().filter(|(_, joined)| *joined).count();
    (joined, cages.len() - joined)
}
