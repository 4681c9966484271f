//! Times of requests to Hearth.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;

use super::stacks::{Stacks, Stock};
use crate::{
    client::{Session, Status},
    statistics::Samples,
};

/// Between the end of one session and the beginning of the next: what is measured is the time of a
/// session, not how it competes with the removal of the last one.
const PAUSE: Duration = Duration::from_millis(100);

/// Times of `runs` executions in one session that has run the cell before.
pub(super) async fn warm(stacks: &Stacks, code: &str, runs: usize) -> Result<Samples> {
    let session = stacks.client(Stock::Spare)?.fresh();
    run(&session, code).await?;
    let mut samples = Samples::default();
    for _ in 0..runs {
        samples.push(run(&session, code).await?);
    }
    session.delete().await?;
    Ok(samples)
}

/// Times until the first answer of new sessions, one after the other, each with full stock and over
/// a connection that is open already.
pub(super) async fn new_sessions(
    stacks: &Stacks,
    stock: Stock,
    code: &str,
    runs: usize,
) -> Result<Samples> {
    let client = stacks.client(stock)?;
    let opener = client.fresh();
    run(&opener, "1").await?;
    let mut samples = Samples::default();
    for _ in 0..runs {
        stacks.stocked(stock, 1).await?;
        tokio::time::sleep(PAUSE).await;
        let session = client.fresh();
        samples.push(run(&session, code).await?);
        session.delete().await?;
    }
    opener.delete().await?;
    Ok(samples)
}

/// Time until `count` new sessions that were asked for at once have all answered.
pub(super) async fn burst(stacks: &Stacks, code: &str, count: usize) -> Result<Duration> {
    stacks.stocked(Stock::Spare, 0).await?;
    let client = stacks.client(Stock::Spare)?;
    let sessions: Vec<Session> = (0..count).map(|_| client.fresh()).collect();
    let started = Instant::now();
    try_join_all(sessions.iter().map(|session| run(session, code))).await?;
    let took = started.elapsed();
    for session in &sessions {
        session.delete().await?;
    }
    Ok(took)
}

/// Time of one execution, which must succeed.
pub(super) async fn run(session: &Session, code: &str) -> Result<Duration> {
    let started = Instant::now();
    let executed = session.execute(code).await?;
    let took = started.elapsed();
    ensure!(
        executed.status == Status::Success,
        "the cell failed: {}",
        executed.stderr
    );
    Ok(took)
}
