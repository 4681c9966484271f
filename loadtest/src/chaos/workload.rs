//! Mixed traffic: clients that share sessions and files, each with a stream of chance of its own.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Result, bail};
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::{
    caller::{Caller, Wish},
    history::{Action, Answer, LOG, Recorder},
};
use crate::{chance::Chance, client::Client};

/// Sessions that live from the start of a run to its end.
pub const SESSIONS: u32 = 6;
/// Clients of each of them.
const CLIENTS: u32 = 2;
/// Files of a session besides the log.
const PATHS: [&str; 3] = ["a.bin", "b.bin", "c.bin"];
/// How long an idempotent request is repeated during the run.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the first and the last requests of a session are.
const LAST_PATIENCE: Duration = Duration::from_secs(120);
/// Longest time between an answer and the next request, in milliseconds.
const THINK_MS: u64 = 250;
/// How often a request that succeeded is sent once more under the same id, in thousandths.
const REPEATED: u16 = 100;

/// What a client does next.
#[derive(Clone, Copy, Debug)]
enum Next {
    AppendWithId,
    AppendWithoutId,
    Peek,
    Upload,
    Download,
    DownloadLog,
    Delete,
    List,
}

const MIX: [(u32, Next); 8] = [
    (30, Next::AppendWithId),
    (15, Next::AppendWithoutId),
    (6, Next::Peek),
    (15, Next::Upload),
    (14, Next::Download),
    (6, Next::DownloadLog),
    (6, Next::Delete),
    (8, Next::List),
];

/// The clients of a run.
#[derive(Debug)]
pub struct Workload<'a> {
    recorder: &'a Recorder,
    clients: Vec<Client>,
    seed: u64,
    operations: AtomicU32,
}

/// Names of the sessions: short enough for the name of a process.
pub fn names() -> impl Iterator<Item = String> {
    (1..=SESSIONS).map(|number| format!("chaos-{number}"))
}

impl<'a> Workload<'a> {
    /// Clients of these ingresses.
    #[must_use]
    pub fn new(recorder: &'a Recorder, clients: Vec<Client>, seed: u64) -> Self {
        Self {
            recorder,
            clients,
            seed,
            operations: AtomicU32::new(1),
        }
    }

    /// Makes all sessions.
    ///
    /// # Errors
    /// One cannot be made, although nothing disturbs it yet.
    pub async fn begin(&self) -> Result<()> {
        for name in names() {
            let caller = Caller::new(self.recorder, &self.clients, &name);
            let wish = self.append(true);
            let answer = caller.fulfil(&wish, 0, LAST_PATIENCE).await?;
            if !answer.answers() {
                bail!("session {name} does not begin: {answer:?}");
            }
        }
        Ok(())
    }

    /// Lets all clients work until that time.
    ///
    /// # Errors
    /// The history cannot be written.
    pub async fn run(&self, until: Instant) -> Result<()> {
        let clients =
            names().flat_map(|name| (1..=CLIENTS).map(move |number| (name.clone(), number)));
        let clients = clients.map(|(name, number)| self.client(name, number, until));
        try_join_all(clients).await.map(drop)
    }

    /// Asks for all that is left, through every ingress.
    ///
    /// # Errors
    /// The history cannot be written.
    pub async fn look_back(&self) -> Result<()> {
        let sessions = names().map(|name| async move {
            let caller = Caller::new(self.recorder, &self.clients, &name);
            for ingress in 0..self.clients.len() {
                let files = PATHS.into_iter().chain([LOG]);
                let downloads = files.map(|path| Action::Download(path.to_owned()));
                for action in downloads.chain([Action::List, Action::Peek]) {
                    let wish = Wish {
                        last: true,
                        ..self.wish(action)
                    };
                    caller.fulfil(&wish, ingress, LAST_PATIENCE).await?;
                }
            }
            Ok::<_, anyhow::Error>(())
        });
        try_join_all(sessions).await.map(drop)
    }

    async fn client(&self, name: String, number: u32, until: Instant) -> Result<()> {
        let mut chance = Chance::of(self.seed, &format!("client {number} of {name}"));
        let caller = Caller::new(self.recorder, &self.clients, &name);
        while Instant::now() < until {
            let wish = self.next(&mut chance);
            let ingress = usize::try_from(chance.below(self.clients.len() as u64))?;
            let answer = caller.fulfil(&wish, ingress, PATIENCE).await?;
            let succeeded = matches!(answer, Answer::Shown { .. }) && wish.id.is_some();
            if chance.happens(REPEATED) && succeeded {
                caller
                    .send(&wish, (ingress + 1) % self.clients.len())
                    .await?;
            }
            tokio::time::sleep(Duration::from_millis(chance.below(THINK_MS))).await;
        }
        Ok(())
    }

    fn next(&self, chance: &mut Chance) -> Wish {
        let next = chance.weighted(&MIX).copied().unwrap_or(Next::Peek);
        let path = chance
            .weighted(&PATHS.map(|path| (1, path)))
            .copied()
            .unwrap_or_default();
        match next {
            Next::AppendWithId => self.append(true),
            Next::AppendWithoutId => self.append(false),
            Next::Peek => self.wish(Action::Peek),
            Next::Upload => self.upload(path.to_owned()),
            Next::Download => self.wish(Action::Download(path.to_owned())),
            Next::DownloadLog => self.wish(Action::Download(LOG.to_owned())),
            Next::Delete => self.wish(Action::Delete(path.to_owned())),
            Next::List => self.wish(Action::List),
        }
    }

    fn wish(&self, action: Action) -> Wish {
        Wish {
            operation: self.operations.fetch_add(1, Ordering::Relaxed),
            action,
            id: None,
            last: false,
        }
    }

    fn append(&self, with_id: bool) -> Wish {
        let wish = self.wish(Action::Peek);
        Wish {
            action: Action::Append(wish.operation),
            id: with_id.then(|| format!("chaos/{}/{}", self.seed, wish.operation)),
            ..wish
        }
    }

    fn upload(&self, path: String) -> Wish {
        let wish = self.wish(Action::Peek);
        Wish {
            action: Action::Upload(path, wish.operation),
            ..wish
        }
    }
}
