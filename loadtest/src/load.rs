//! `loadtest load`: steady load on a running deployment.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures_util::future::join_all;

use crate::{
    client::{Client, ClientError, Session, Status},
    statistics::Samples,
};

/// What load, for how long, and on whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Management endpoint of the pool.
    #[arg(long, env = "POOL_ENDPOINT")]
    pub endpoint: String,
    /// Bearer token.
    #[arg(long, env = "TOKEN", hide_env_values = true)]
    pub token: String,
    /// Sessions in use at once; each has one execution under way.
    #[arg(long, default_value_t = 16)]
    pub sessions: usize,
    /// How long, in seconds.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Executions after which a session is given up for a new one.
    #[arg(long, default_value_t = 100)]
    pub executions_per_session: usize,
    /// The cell.
    #[arg(long, default_value = "1+1")]
    pub code: String,
}

/// What one stream of sessions saw.
#[derive(Debug, Default)]
struct Seen {
    first: Samples,
    later: Samples,
    failures: usize,
    refusals: usize,
}

/// Puts load on a pool and prints what came of it.
///
/// # Errors
/// A connection failed, or a session could not be ended.
pub async fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let client = Client::new(options.endpoint.trim_end_matches('/'), &options.token)?;
    let started = Instant::now();
    let until = started + Duration::from_secs(options.seconds);
    let streams = (0..options.sessions).map(|_| stream(&client, options, until));
    let mut all = Seen::default();
    for seen in join_all(streams).await {
        all.add(seen?);
    }
    let seconds = started.elapsed().as_secs_f64();
    for (name, samples) in [
        ("first executions", &all.first),
        ("later executions", &all.later),
    ] {
        let summary = samples.summary();
        writeln!(
            out,
            "{name}: {} in {seconds:.1} s, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            summary.count, summary.p50_ms, summary.p99_ms, summary.max_ms
        )?;
    }
    writeln!(
        out,
        "failed cells: {}, refused requests: {}",
        all.failures, all.refusals
    )?;
    Ok(())
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.first.extend(other.first);
        self.later.extend(other.later);
        self.failures += other.failures;
        self.refusals += other.refusals;
    }
}

/// One session after the other.
async fn stream(client: &Client, options: &Options, until: Instant) -> Result<Seen> {
    let mut seen = Seen::default();
    while Instant::now() < until {
        let session = client.fresh();
        for number in 0..options.executions_per_session {
            if Instant::now() >= until || !execute(&session, options, number, &mut seen).await? {
                break;
            }
        }
        match session.delete().await {
            Ok(()) | Err(ClientError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(seen)
}

/// Whether the session is worth going on with.
async fn execute(
    session: &Session,
    options: &Options,
    number: usize,
    seen: &mut Seen,
) -> Result<bool> {
    let started = Instant::now();
    match session.execute(&options.code).await {
        Ok(executed) => {
            let samples = if number == 0 {
                &mut seen.first
            } else {
                &mut seen.later
            };
            samples.push(started.elapsed());
            seen.failures += usize::from(executed.status == Status::Failure);
            Ok(true)
        }
        Err(ClientError::Refused { retry_after, .. }) => {
            seen.refusals += 1;
            tokio::time::sleep(Duration::from_secs(retry_after.unwrap_or(1))).await;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}
