//! What it costs that files are in the object store when the answer comes: the same cells in a pool
//! that saves them before the answer and in one that saves them behind it, taken in turns.

use std::time::Duration;

use anyhow::Result;

use super::{figures::Figures, sessions::run};
use crate::{
    client::{Client, Session},
    cluster::Cluster,
    statistics::Samples,
    store_proxy::Trouble,
};

/// The pool that answers first.
const BEHIND: &str = "behind";
/// Its window, long enough that nothing is saved while the next cells run.
const WINDOW_MS: u32 = 30_000;
/// What each request to the distant store takes longer.
const DISTANCE: Duration = Duration::from_millis(25);

/// What a cell leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    OneSmall,
    ManySmall,
    OneLarge,
}

impl Left {
    const ALL: [Self; 4] = [
        Self::Nothing,
        Self::OneSmall,
        Self::ManySmall,
        Self::OneLarge,
    ];

    /// Contents are new each time: what is stored already would not be stored again.
    fn code(self) -> &'static str {
        match self {
            Self::Nothing => "1",
            Self::OneSmall => "_ = open('/mnt/data/small', 'wb').write(os.urandom(1024))",
            Self::ManySmall => {
                "for n in range(1000): open(f'/mnt/data/{n}', 'wb').write(os.urandom(1024))"
            }
            Self::OneLarge => "_ = open('/mnt/data/large', 'wb').write(os.urandom(100_000_000))",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no file",
            Self::OneSmall => "one file of 1 KiB",
            Self::ManySmall => "1000 files of 1 KiB",
            Self::OneLarge => "one file of 100 MB",
        }
    }

    /// How often it is run in one round.
    fn runs(self) -> usize {
        match self {
            Self::Nothing | Self::OneSmall => 60,
            Self::ManySmall => 4,
            Self::OneLarge => 1,
        }
    }

    /// The most that saving it may take, by medians.
    fn target_ms(self) -> Option<f64> {
        match self {
            Self::OneSmall => Some(0.6),
            Self::Nothing | Self::ManySmall | Self::OneLarge => None,
        }
    }
}

/// Times of one kind of cell.
#[derive(Debug, Default)]
struct Times {
    before: Samples,
    behind: Samples,
    distant: Samples,
}

/// The stacks and what they took.
#[derive(Debug)]
pub(super) struct Durability {
    local: Cluster,
    distant: Cluster,
    times: [Times; 4],
}

impl Durability {
    pub(super) async fn start() -> Result<Self> {
        let stock = ["--spares", "2", "--cages", "2"];
        let local = Cluster::builder()
            .worker_arguments(stock)
            .pool(|pool| pool)
            .pool(|pool| pool.name(BEHIND).write_behind(WINDOW_MS));
        let distant = Cluster::builder().worker_arguments(stock);
        let distant = distant.s3_store_behind_proxy(1).start().await?;
        let trouble = Trouble {
            delayed: 1000,
            delay_ms: u64::try_from(DISTANCE.as_millis())?,
            ..Trouble::default()
        };
        distant.trouble(trouble).await?;
        Ok(Self {
            local: local.start().await?,
            distant,
            times: Default::default(),
        })
    }

    /// Ends of all logs.
    pub(super) fn tails(&self) -> String {
        [self.local.tails(), self.distant.tails()].concat()
    }

    /// Runs every cell in every pool, in turns.
    pub(super) async fn round(&mut self) -> Result<()> {
        let before = open(&self.local.client(0)?).await?;
        let behind = open(&self.local.client_of(BEHIND)?).await?;
        let distant = open(&self.distant.client(0)?).await?;
        for (left, times) in Left::ALL.into_iter().zip(&mut self.times) {
            for _ in 0..left.runs() {
                times.before.push(run(&before, left.code()).await?);
                times.behind.push(run(&behind, left.code()).await?);
            }
            for _ in 0..left.runs().div_ceil(6) {
                times.distant.push(run(&distant, left.code()).await?);
            }
        }
        for session in [before, behind, distant] {
            session.delete().await?;
        }
        Ok(())
    }

    /// Adds what was measured.
    pub(super) fn figures(&self, figures: &mut Figures) {
        for (left, times) in Left::ALL.into_iter().zip(&self.times) {
            let name = format!("cell that leaves {}, saved before the answer", left.name());
            figures.time(&name, &times.before, None);
            let name = format!("the same in a store {} ms away", DISTANCE.as_millis());
            figures.time(&name, &times.distant, None);
            let name = format!("what saving {} adds to the answer", left.name());
            figures.difference(&name, &times.before, &times.behind, left.target_ms());
        }
    }
}

async fn open(client: &Client) -> Result<Session> {
    let session = client.fresh();
    run(&session, "import os").await?;
    Ok(session)
}
