//! The workers: who serves, and who is to end.

use std::time::Duration;

use anyhow::Context;
use proto::{id::WorkerId, subject};
use routing::bus::workers::WorkerRun;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::{
    error::CommandError,
    fleet::Fleet,
    table::{Row, span},
};

/// How long a worker may take to hear that it is to end.
const HEARS_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two looks at whether it has ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A worker.
#[derive(Debug, Serialize)]
pub(crate) struct Worker {
    /// Name of its run.
    run: WorkerId,
    /// Sessions that it holds.
    sessions: u32,
    /// Sessions that it holds at most.
    capacity: u32,
    /// What it does with new sessions.
    state: &'static str,
    /// Pools that it serves; none of an older worker, which does not tell.
    pools: Option<usize>,
    /// Seconds since it said so.
    age_seconds: u64,
}

impl Row for Worker {
    const HEAD: &'static [&'static str] = &["WORKER", "STATE", "SESSIONS", "POOLS", "SEEN"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.run.to_string(),
            self.state.to_owned(),
            format!("{}/{}", self.sessions, self.capacity),
            self.pools
                .map_or_else(|| "?".to_owned(), |pools| pools.to_string()),
            format!("{} ago", span(self.age_seconds)),
        ]
    }
}

impl Worker {
    fn of(worker: WorkerRun, now: OffsetDateTime) -> Self {
        let WorkerRun { run, beat, at } = worker;
        Self {
            run,
            sessions: beat.sessions,
            capacity: beat.capacity,
            state: match beat.accepting {
                _ if beat.draining => "draining",
                Some(false) => "refusing",
                _ if beat.sessions >= beat.capacity => "full",
                Some(true) | None => "accepting",
            },
            pools: beat.pools.map(|pools| pools.len()),
            age_seconds: u64::try_from((now - at).whole_seconds()).unwrap_or_default(),
        }
    }
}

/// All workers that said lately that they serve, by name.
///
/// # Errors
/// The bus did not answer.
pub(crate) async fn list(fleet: &Fleet) -> anyhow::Result<Vec<Worker>> {
    let mut runs = fleet.bus.worker_runs().await?;
    runs.sort_unstable_by(|a, b| a.run.as_str().cmp(b.run.as_str()));
    let now = fleet.time().await?;
    Ok(runs.into_iter().map(|run| Worker::of(run, now)).collect())
}

/// Tells every run of this name or id to end, and says so on standard error.
///
/// # Errors
/// There is none, or it did not hear of it.
pub(crate) async fn drain(fleet: &Fleet, name: &WorkerId, wait: bool) -> anyhow::Result<()> {
    let runs = runs(fleet, name).await?;
    if runs.is_empty() {
        return Err(CommandError::NoWorker(name.clone()).into());
    }
    for run in &runs {
        hand_over(fleet, run).await?;
        eprintln!("worker {run} hands its sessions over and ends");
    }
    while wait && !self::runs(fleet, name).await?.is_empty() {
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn hand_over(fleet: &Fleet, run: &WorkerId) -> anyhow::Result<()> {
    let who = format!("worker {run}");
    let subject = subject::worker_drain(run);
    fleet
        .tell(&who, subject, HEARS_WITHIN)
        .await
        .with_context(|| format!("failed to drain {who}"))
}

async fn runs(fleet: &Fleet, name: &WorkerId) -> anyhow::Result<Vec<WorkerId>> {
    let runs = fleet.bus.worker_runs().await?.into_iter();
    let runs = runs.map(|worker| worker.run);
    Ok(runs.filter(|run| is_run_of(run, name)).collect())
}

/// Whether a run is the one of this name, or one of the worker of this id: its name is the id, a dash, and a part
/// without dashes.
fn is_run_of(run: &WorkerId, name: &WorkerId) -> bool {
    let id = run.as_str().rsplit_once('-').map(|(id, _)| id);
    run == name || id == Some(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_known_by_its_id_or_its_run() {
        let (run, id): (WorkerId, WorkerId) = (
            "host-1-s59z0swt".parse().unwrap(),
            "host-1".parse().unwrap(),
        );
        assert!(is_run_of(&run, &run));
        assert!(is_run_of(&run, &id));
        assert!(!is_run_of(&run, &"host".parse().unwrap()));
        assert!(!is_run_of(&id, &run));
    }
}
