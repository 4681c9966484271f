//! Times of requests to Hearth.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::json;

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

/// Times between a print and its event at a client who reads along.
pub(super) async fn first_events(stacks: &Stacks, runs: usize) -> Result<Samples> {
    const PRINTS: &str = "import time\nprint(time.time_ns())\ntime.sleep(0.02)";
    let session = stacks.client(Stock::Spare)?.fresh();
    run(&session, PRINTS).await?;
    let mut samples = Samples::default();
    for _ in 0..runs {
        let request = session.request(Method::POST, "code/execute");
        let request = request.header("accept", "text/event-stream");
        let mut answer = request.json(&json!({ "code": PRINTS })).send().await?;
        let mut read = String::new();
        // The cell sleeps when it has printed, so the text comes alone.
        let arrived = loop {
            let chunk = answer.chunk().await?.context("no event")?;
            let now = SystemTime::now();
            read.push_str(&String::from_utf8_lossy(&chunk));
            if read.contains("event: stdout") && read.ends_with("\n\n") {
                break now;
            }
        };
        let printed: String = read.chars().filter(char::is_ascii_digit).collect();
        let printed = UNIX_EPOCH + Duration::from_nanos(printed.parse()?);
        samples.push(arrived.duration_since(printed)?);
        while answer.chunk().await?.is_some() {}
    }
    session.delete().await?;
    Ok(samples)
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
