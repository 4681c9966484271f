//! `loadtest load`: load on any pool at a stated rate, and whether it kept its promises meanwhile.
//!
//! Requests are sent when they are due, whether earlier ones were answered or not, and times count from when they
//! were due: a pool that falls behind cannot slow its own measurement down.

mod objective;
mod plan;
mod plot;
mod report;
mod send;

use std::{fs, io::Write, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use self::{
    objective::Objective,
    plan::{Mix, Plan},
    report::Report,
    send::Target,
};
use crate::{chance::Chance, client::Client};

/// What load, for how long, on whom, and what must hold.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Management endpoint of the pool.
    #[arg(long, env = "POOL_ENDPOINT")]
    pub endpoint: String,
    /// Bearer token.
    #[arg(long, env = "TOKEN", hide_env_values = true)]
    pub token: String,
    /// Takes any certificate, such as the one of a development stack.
    #[arg(long)]
    pub insecure: bool,
    /// Requests a second, on average; they come by chance, as those of many callers do.
    #[arg(long, default_value_t = 20.0)]
    pub rate: f64,
    /// How long, in seconds.
    #[arg(long, default_value_t = 30)]
    pub seconds: u32,
    /// Kinds of requests with their weights: `warm` (code in a session that runs already), `new` (the first code of
    /// a session), `upload` and `download` (of a file of 1 KiB).
    #[arg(long, default_value = "warm=80,new=10,upload=5,download=5")]
    pub mix: Mix,
    /// Sessions that are made before and used in turn.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub sessions: u32,
    /// The code of `warm` and `new`.
    #[arg(long, default_value = "1+1")]
    pub code: String,
    /// Most requests that may be unanswered; one that would be more is not sent, and has failed.
    #[arg(long, default_value_t = 1000)]
    pub outstanding: usize,
    /// What must hold, such as `warm:p99<=50ms`, `new:p50<=20ms` or `all:ok>=99.9%`; may be given more than once.
    /// If it does not, the command fails.
    #[arg(long)]
    pub slo: Vec<Objective>,
    /// File for the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// File for a plot (SVG): for each kind, which part of the requests took how long.
    #[arg(long)]
    pub plot: Option<PathBuf>,
    /// Seed of everything that is random; printed in any case.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Puts load on a pool, and says what came of it. Whether every objective was met is the result.
///
/// # Errors
/// The pool could not be used at all, or a report not written.
pub async fn run(options: &Options, out: &mut impl Write) -> Result<bool> {
    let seed = options.seed.unwrap_or_else(seed_of_now);
    let plan = Plan::draw(
        &mut Chance::new(seed),
        options.rate,
        Duration::from_secs(options.seconds.into()),
        &options.mix,
    )?;
    writeln!(
        out,
        "{} requests in {} s ({} a second), seed {seed}",
        plan.arrivals.len(),
        options.seconds,
        options.rate
    )?;
    let endpoint = options.endpoint.trim_end_matches('/');
    let client = Client::with_certificates(endpoint, &options.token, options.insecure)?;
    let target = Target::prepare(client, options.sessions, &options.code);
    let target = target.await.context("failed to make the sessions")?;
    let sent = send::all(&target, &plan, options.outstanding).await;
    target.clean_up().await;
    let report = Report::of(seed, &sent, &options.slo);
    report.write(out)?;
    if let Some(file) = &options.json {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(file, json).with_context(|| format!("failed to write {}", file.display()))?;
    }
    if let Some(file) = &options.plot {
        let plot = plot::draw(&sent);
        fs::write(file, plot).with_context(|| format!("failed to write {}", file.display()))?;
    }
    Ok(report.holds())
}

fn seed_of_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.subsec_nanos().into())
}
