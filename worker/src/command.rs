//! The program: from its command line to its exit status. It is a library's, so that nothing is compiled again
//! for the binary.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use process::{
    failure,
    hangup::Hangup,
    metrics::{Build, Metrics},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use crate::{
    accept, admin,
    app::{Ended, Worker},
    config::{Arguments, Config},
    patience, preflight, remedy, sandbox,
};

const BUILD: Build = Build {
    program: "worker",
    version: env!("CARGO_PKG_VERSION"),
};

/// Pause before a worker whose bus had lost its data tries again to begin.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Does what the command line says. A failure is one line on standard error.
#[must_use]
pub fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            // Not through the log, which may be turned off or be what failed.
            eprintln!("{}", failure::line("worker", &error, remedy::KNOWN));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new().context("failed to start the runtime")?;
    // First of all: until it is heard, a SIGHUP ends the process.
    let hangup = runtime.block_on(async { Hangup::listen() })?;
    match arguments {
        Arguments::Serve(config) => {
            patience::set(config.patience);
            let log = config.log.clone().start("worker", runtime.handle())?;
            let export = log.export();
            runtime.spawn(log.follow(hangup));
            sandbox::require_root()?;
            preflight::require_memory()?;
            allow_many_files().context("failed to raise the limit of open files")?;
            let served = runtime.block_on(serve(*config));
            runtime.block_on(export.end());
            served.map(|()| ExitCode::SUCCESS)
        }
        Arguments::AcceptNewBus(arguments) => {
            runtime.block_on(accept::accept(*arguments))?;
            Ok(ExitCode::SUCCESS)
        }
        Arguments::Check(check) => {
            let found = runtime.block_on(preflight::look(&check.config));
            found.print(check.output)?;
            Ok(found.exit_code())
        }
    }
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
    let metrics = Metrics::default();
    metrics.show("build", BUILD);
    let health = admin::open(config.admin.admin_listen, metrics.clone()).await?;
    // A worker whose bus has lost its data ends its sessions, stays, and begins anew once it is back.
    let mut lost_before = false;
    loop {
        admin::begin(&health);
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
        metrics.show("counts", worker.counts());
        metrics.show("store", worker.store_errors());
        metrics.show("worker", worker.figures());
        let failed = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            () = worker.told_to_drain() => None,
            () = worker.failed() => Some(Ended::Machinery),
            () = worker.replaced() => Some(Ended::Replaced),
            _ = worker.bus_lost() => Some(Ended::BusLost),
        };
        if failed.is_some() && worker.loss().is_some() {
            tracing::warn!("all sessions end here: the bus has lost its data");
            lost_before = true;
            // Its sandboxes go with it, not when the next one serves.
            metrics.hide("worker");
            if let Err(error) = worker.end_without_bus().await {
                tracing::warn!("{error:#}");
            }
            continue;
        }
        worker.end().await?;
        return match failed {
            Some(ended) => Err(ended.into()),
            None => Ok(()),
        };
    }
}
