//! The worker's binary. Run again under the names that [`worker::sandbox`] defines, it is one of
//! the worker's helper processes instead.

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use proto::health::Health;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use worker::{accept, app::Worker, config::Config, sandbox};

/// Pause before a worker whose bus had lost its data tries again to begin.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // The helpers must stay single-threaded and touch neither arguments nor environment.
    match std::env::args_os()
        .next()
        .as_deref()
        .and_then(std::ffi::OsStr::to_str)
    {
        Some(sandbox::CAGED) => sandbox::caged::main(),
        Some(sandbox::ZYGOTE) => sandbox::launcher::main(),
        _ => {}
    }
    let done = match std::env::args_os().nth(1) {
        Some(command) if command == accept::COMMAND => accept::run(),
        _ => run(Config::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    allow_many_files().context("the limit of open files was not raised")?;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_new(&config.log)?)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
    runtime.block_on(serve(config))
}

/// A session takes about seven descriptors, and the usual soft limit is 1024.
fn allow_many_files() -> std::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let health = Health::default();
    // A worker whose bus has lost its data ends its sessions, stays, and begins anew once it is back.
    let mut lost_before = false;
    loop {
        let started = tokio::select! {
            started = Worker::start(config.clone(), health.clone()) => started,
            // The helpers end with this process, and the next start sweeps.
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let worker = match started {
            Ok(worker) => worker,
            Err(error) if lost_before => {
                tracing::warn!("the worker cannot begin anew yet: {error:#}");
                tokio::select! {
                    () = tokio::time::sleep(AGAIN_AFTER) => continue,
                    _ = terminate.recv() => return Ok(()),
                    _ = interrupt.recv() => return Ok(()),
                }
            }
            Err(error) => return Err(error),
        };
        let failed = tokio::select! {
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
            () = worker.told_to_drain() => false,
            () = worker.failed() => true,
            _ = worker.bus_lost() => true,
        };
        if failed && worker.loss().is_some() {
            tracing::warn!("all sessions end here: the bus has lost its data");
            lost_before = true;
            if let Err(error) = worker.end_without_bus().await {
                tracing::warn!("{error:#}");
            }
            continue;
        }
        worker.end().await?;
        return if failed {
            Err(anyhow::anyhow!("the sandbox machinery failed"))
        } else {
            Ok(())
        };
    }
}
