//! A reader that stalls: code prints a lot while whoever asked for its events reads none of them. Neither
//! the code nor the memory of the platform may depend on the reader, and the reader learns what it missed.

use std::{io::Write, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    client::Session,
    cluster::{Cluster, Member},
    events::Events,
    inventory::memory,
};

/// The api-version that is spoken.
const VERSION: &str = "2025-02-02-preview";
/// Bytes of a line that is printed.
const LINE: u64 = 1000;
/// Lines after which the code pauses.
const BURST: u64 = 200;
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long, and how much.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Seconds in which the code prints; a pool allows 220 at most.
    #[arg(long, default_value_t = 200)]
    pub printing: u64,
    /// Seconds in which nothing is read.
    #[arg(long, default_value_t = 300)]
    pub stalled: u64,
    /// Megabytes that are printed.
    #[arg(long, default_value_t = 100)]
    pub megabytes: u64,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    process: u32,
    /// Resident before.
    pub before: u64,
    /// The most that was seen meanwhile.
    pub most: u64,
}

impl Growth {
    fn of(process: u32) -> Result<Self> {
        let before = resident(process)?;
        Ok(Self {
            process,
            before,
            most: before,
        })
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Bytes of output that were printed,
    pub printed: u64,
    /// told when the reader went on,
    pub told: u64,
    /// and marked as dropped.
    pub dropped: u64,
    /// When the code had ended, by the next execution in the session.
    pub ended_after: Duration,
    /// Memory of the ingress,
    pub ingress: Growth,
    /// and of the worker.
    pub worker: Growth,
}

/// Starts a stack, stalls, and prints what came of it.
///
/// # Errors
/// The stack does not start, or the stream is not what it should be.
pub async fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let cluster = Cluster::builder().start().await?;
    let session = cluster.client(0)?.fresh();
    let report = stall(&cluster, &session, options).await?;
    session.delete().await?;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    writeln!(
        out,
        "printed {:.1} MB in {} s while nothing was read for {} s: the code had ended after {:.1} s\n\
         told {:.1} MB, marked as dropped {:.1} MB",
        megabytes(report.printed),
        options.printing,
        options.stalled,
        report.ended_after.as_secs_f64(),
        megabytes(report.told),
        megabytes(report.dropped),
    )?;
    for (name, growth) in [("ingress", report.ingress), ("worker", report.worker)] {
        let (before, most) = (megabytes(growth.before), megabytes(growth.most));
        writeln!(out, "{name}: {before:.1} MB before, {most:.1} MB at most")?;
    }
    Ok(())
}

/// Stalls in one session.
///
/// # Errors
/// The stream does not end with a result, or does not account for everything that was printed.
pub async fn stall(cluster: &Cluster, session: &Session, options: &Options) -> Result<Report> {
    let lines = options.megabytes * 1_000_000 / LINE;
    let pause = options.printing as f64 * BURST as f64 / lines as f64;
    let line = LINE - 1;
    session.execute(&format!("line = 'x' * {line}")).await?;
    let mut growth = [
        Growth::of(cluster.pid(Member::Ingress(0)).await?)?,
        Growth::of(cluster.pid(Member::Worker(0)).await?)?,
    ];
    let code = format!(
        "import time\n\
         begin = time.monotonic()\n\
         for n in range({lines}):\n\
         \x20   print(line)\n\
         \x20   if n % {BURST} == 0:\n\
         \x20       time.sleep(max(0, begin + {pause} * n / {BURST} - time.monotonic()))",
    );
    let began = Instant::now();
    let body = json!({ "code": code });
    let mut events = Events::of(session, "executions", VERSION, &body).await?;
    let next = async {
        session.execute("1").await?;
        let ended_after = began.elapsed();
        sleep_until(began + Duration::from_secs(options.stalled)).await;
        anyhow::Ok(ended_after)
    };
    let ended_after = tokio::select! {
        ended_after = next => ended_after?,
        never = watch(&mut growth) => never?,
    };
    let (told, dropped) = rest(&mut events).await?;
    let printed = lines * LINE;
    ensure!(told + dropped == printed, "{told} told, {dropped} dropped");
    let [ingress, worker] = growth;
    Ok(Report {
        printed,
        told,
        dropped,
        ended_after,
        ingress,
        worker,
    })
}

/// Looks at memory for ever.
async fn watch(all: &mut [Growth]) -> Result<Duration> {
    loop {
        for growth in all.iter_mut() {
            growth.most = resident(growth.process)?.max(growth.most);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Reads to the end: bytes of output that were told, and that were dropped.
async fn rest(events: &mut Events) -> Result<(u64, u64)> {
    let (mut told, mut dropped, mut last) = (0, 0, String::new());
    while let Some((name, data)) = events.next().await? {
        match name.as_str() {
            "stdout" => told += number_of(&data, "text", |text| Some(text.as_str()?.len() as u64))?,
            "truncated" => dropped += number_of(&data, "stdout", Value::as_u64)?,
            _ => {}
        }
        last = name;
    }
    ensure!(last == "result", "the stream ended with {last:?}");
    Ok((told, dropped))
}

fn number_of(data: &Value, field: &str, of: fn(&Value) -> Option<u64>) -> Result<u64> {
    let number = data.get(field).and_then(of);
    number.with_context(|| format!("no {field} in an event"))
}

fn resident(process: u32) -> Result<u64> {
    memory(&format!("/proc/{process}/status"), &["VmRSS:"])
}
