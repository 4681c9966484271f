//! The worker's binary. Run again under the names that [`worker::sandbox`] defines, it is one of
//! the worker's helper processes instead.

use std::{io::IsTerminal, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use worker::{app::Worker, config::Config, patience, sandbox};

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
    match run(Config::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    patience::set(config.patience);
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
    let worker = tokio::select! {
        worker = Worker::start(config) => worker?,
        // The helpers end with this process, and the next start sweeps.
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let failed = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        () = worker.told_to_drain() => false,
        () = worker.failed() => true,
    };
    worker.end().await?;
    if failed {
        anyhow::bail!("the sandbox machinery failed")
    } else {
        Ok(())
    }
}
