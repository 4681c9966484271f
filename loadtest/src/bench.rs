//! `loadtest bench`: Hearth through its full HTTP path against Jupyter Kernel Gateway and ipykernel
//! over ZMQ, on the same cells, on the same two cores, in interleaved rounds, so that whatever else
//! the machine does hits all of them.

mod durability;
mod figures;
mod libraries;
mod memory;
mod peers;
mod sessions;
mod stacks;

use std::{fs, io::Write, path::PathBuf};

use anyhow::{Context, Result};

use self::{
    durability::Durability,
    figures::Figures,
    memory::Memory,
    peers::{Peer, Peers, What},
    sessions::{burst, first_events, new_sessions, warm},
    stacks::{Stacks, Stock},
};
use crate::{places, statistics::Samples};

/// The smallest cell.
const ONE: &str = "1+1";
/// A new session's first cell as data people write it.
const IMPORTS: &str = "import numpy, pandas; 1+1";
/// The same with one operation on a frame.
const FRAME: &str = "import pandas as pd\npd.DataFrame({'a': range(1000)}).a.sum()";
/// New sessions of the burst.
const BURST: usize = 100;

/// How much is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rounds; each measures everything once, so that noise hits all alike.
    #[arg(long, default_value_t = 10)]
    pub rounds: usize,
    /// Processors that everything shares, load generator included.
    #[arg(long, default_value_t = 2)]
    pub cores: usize,
    /// Do not measure the gateway and ipykernel.
    #[arg(long)]
    pub without_peers: bool,
    /// Where the figures for machines go [default: .hearth/bench.json].
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Times of everything that is measured in rounds.
#[derive(Debug, Default)]
struct Times {
    warm: Samples,
    gateway_warm: Samples,
    zmq_warm: Samples,
    gateway_new: Samples,
    zmq_new: Samples,
    new: Vec<NewTimes>,
    bursts: Samples,
    events: Samples,
}

/// First answers of new sessions of one kind.
#[derive(Debug)]
struct NewTimes {
    stock: Stock,
    code: &'static str,
    runs: usize,
    samples: Samples,
}

/// Runs the benchmark, prints its table and writes its figures.
///
/// # Errors
/// A part of the stack or of the peers is missing, or a request failed.
pub async fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let peers = if options.without_peers {
        None
    } else {
        Some(Peers::start()?)
    };
    let mut rounds = Rounds {
        stacks: Stacks::start().await?,
        peers,
        times: Times::new(),
    };
    for round in 1..=options.rounds {
        writeln!(out, "round {round} of {}", options.rounds)?;
        if let Err(error) = rounds.one().await {
            return Err(error.context(rounds.stacks.tails()));
        }
    }
    let memory = memory::measure(&rounds.stacks).await?;
    let mut figures = rounds.times.figures(&memory, options);
    for library in libraries::measure(&rounds.stacks).await? {
        let name = format!("{}: with one thread / by default", library.name);
        let (one, many) = (&library.single_threaded, &library.by_default);
        figures.ratio(&name, one, many, Some(1.0 / 1.1));
    }
    // Idle stacks take their share of the processors too.
    drop(rounds);
    let mut durability = Durability::start().await?;
    for round in 1..=options.rounds {
        writeln!(out, "round {round} of {} of durability", options.rounds)?;
        if let Err(error) = durability.round().await {
            return Err(error.context(durability.tails()));
        }
    }
    durability.figures(&mut figures);
    write!(out, "{}", figures.table())?;
    let path = options.json.clone().unwrap_or_else(places::bench_report);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&path, figures.json()?).with_context(|| path.display().to_string())?;
    writeln!(out, "written to {}", path.display())?;
    Ok(())
}

struct Rounds {
    stacks: Stacks,
    peers: Option<Peers>,
    times: Times,
}

impl Rounds {
    async fn one(&mut self) -> Result<()> {
        let times = &mut self.times;
        times.warm.extend(warm(&self.stacks, ONE, 200).await?);
        let events = first_events(&self.stacks, 20).await?;
        times.events.extend(events);
        if let Some(peers) = &mut self.peers {
            times
                .gateway_warm
                .extend(peers.time(Peer::Gateway, What::Warm, ONE, 20).await?);
            times
                .zmq_warm
                .extend(peers.time(Peer::Zmq, What::Warm, ONE, 50).await?);
        }
        for new in &mut times.new {
            let samples = new_sessions(&self.stacks, new.stock, new.code, new.runs).await?;
            new.samples.extend(samples);
        }
        if let Some(peers) = &mut self.peers {
            times
                .gateway_new
                .extend(peers.time(Peer::Gateway, What::New, IMPORTS, 1).await?);
            times
                .zmq_new
                .extend(peers.time(Peer::Zmq, What::New, IMPORTS, 1).await?);
        }
        times.bursts.push(burst(&self.stacks, ONE, BURST).await?);
        Ok(())
    }
}

impl Times {
    fn new() -> Self {
        let kinds = [
            (Stock::Spare, ONE, 5),
            (Stock::Spare, IMPORTS, 5),
            (Stock::Spare, FRAME, 5),
            (Stock::Cage, ONE, 5),
            (Stock::Cage, IMPORTS, 5),
            (Stock::Nothing, ONE, 3),
            (Stock::Nothing, IMPORTS, 3),
        ];
        let new = kinds.map(|(stock, code, runs)| NewTimes {
            stock,
            code,
            runs,
            samples: Samples::default(),
        });
        Self {
            new: new.into(),
            ..Self::default()
        }
    }

    fn figures(&self, memory: &Memory, options: &Options) -> Figures {
        let mut figures = Figures::new(options.rounds, options.cores);
        self.own_times(&mut figures);
        let idle = "private memory of an idle session after 1+1";
        figures.size(idle, memory.idle_session, Some(8 << 20));
        let ingress = "resident memory of ingress";
        figures.size(ingress, memory.ingress, Some(40 << 20));
        self.peers_times(&mut figures);
        self.ratios(&mut figures);
        figures
    }

    fn own_times(&self, figures: &mut Figures) {
        figures.time("warm 1+1", &self.warm, Some(1.5));
        figures.time("from a print to its event", &self.events, Some(5.0));
        for new in &self.new {
            let target = match (new.stock, new.code) {
                (Stock::Spare, IMPORTS) => Some(5.0),
                (Stock::Cage, IMPORTS) => Some(14.0),
                (Stock::Spare, FRAME) => Some(12.0),
                _ => None,
            };
            let name = format!("new session, {}: {}", new.stock, title(new.code));
            figures.time(&name, &new.samples, target);
        }
        let burst = format!("burst of {BURST} new sessions, all answered");
        figures.time(&burst, &self.bursts, Some(2000.0));
    }

    fn peers_times(&self, figures: &mut Figures) {
        figures.time("gateway: warm 1+1", &self.gateway_warm, None);
        figures.time("ipykernel over ZMQ: warm 1+1", &self.zmq_warm, None);
        let name = format!("gateway: new kernel: {IMPORTS}");
        figures.time(&name, &self.gateway_new, None);
        let name = format!("ipykernel over ZMQ: new kernel: {IMPORTS}");
        figures.time(&name, &self.zmq_new, None);
    }

    fn ratios(&self, figures: &mut Figures) {
        let (warm, gateway, zmq) = (&self.warm, &self.gateway_warm, &self.zmq_warm);
        figures.ratio("warm 1+1, gateway / Hearth", gateway, warm, Some(20.0));
        figures.ratio("warm 1+1, ipykernel / Hearth", zmq, warm, Some(2.0));
        let (spare, cage) = (self.imports(Stock::Spare), self.imports(Stock::Cage));
        let (gateway, zmq) = (&self.gateway_new, &self.zmq_new);
        let name = "new with imports, gateway / Hearth with a spare";
        figures.ratio(name, gateway, &spare, Some(60.0));
        let name = "new with imports, gateway / Hearth with a cage";
        figures.ratio(name, gateway, &cage, None);
        let name = "new with imports, ipykernel / Hearth with a spare";
        figures.ratio(name, zmq, &spare, None);
    }

    /// First answers of new sessions that import.
    fn imports(&self, stock: Stock) -> Samples {
        let mut all = self.new.iter();
        let found = all.find(|new| new.stock == stock && new.code == IMPORTS);
        found.map(|new| new.samples.clone()).unwrap_or_default()
    }
}

/// A cell on one line.
fn title(code: &str) -> String {
    code.replace('\n', "; ")
}
