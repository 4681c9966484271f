//! `loadtest`: benchmarks, load, chaos, and the keeper of test stacks.
#![forbid(unsafe_code)]

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Load, benchmarks and test stacks for Hearth.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure Hearth, Jupyter Kernel Gateway and ipykernel on the same cells.
    Bench(loadtest::bench::Options),
    /// Kill, pause and restart everything under load, and prove that nothing is lost.
    Chaos(loadtest::chaos::Options),
    /// Put load on a pool at a stated rate, and say whether it kept its promises.
    Load(loadtest::load::Options),
    /// Print a lot to a reader that stalls, and see who minds.
    Stall(loadtest::stall::Options),
    /// Stand before an object store and make trouble on command (used by the harness).
    #[command(hide = true)]
    StoreProxy(loadtest::store_proxy::Options),
    /// Keep the processes of a test stack until standard input ends (used by the harness).
    #[command(hide = true)]
    Keep {
        /// Directory of the stack; removed at the end.
        directory: PathBuf,
    },
    /// Become PROGRAM, and get SIGTERM when PARENT ends (used by the harness).
    #[command(hide = true)]
    Leash {
        /// Process number of the caller.
        parent: u32,
        /// What to become.
        program: PathBuf,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Bench(options) => {
            share_processors(options.cores)?;
            block_on(loadtest::bench::run(&options, &mut std::io::stdout()))
        }
        Command::Chaos(options) => {
            let mut out = std::io::stdout();
            let report = block_on(loadtest::chaos::run(&options, &mut out))?;
            match report.violations().len() + report.casualties().len() {
                0 => Ok(()),
                count => bail!("{count} violations"),
            }
        }
        Command::Load(options) => {
            match block_on(loadtest::load::run(&options, &mut std::io::stdout()))? {
                true => Ok(()),
                false => bail!("an objective was missed"),
            }
        }
        Command::Stall(options) => block_on(loadtest::stall::run(&options, &mut std::io::stdout())),
        Command::StoreProxy(options) => block_on(loadtest::store_proxy::run(&options)),
        Command::Keep { directory } => loadtest::cluster::keep(&directory),
        Command::Leash {
            parent,
            program,
            arguments,
        } => loadtest::cluster::leash(parent, &program, &arguments),
    }
}

/// Keepers must stay single-threaded, so only what waits for answers gets a runtime.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Confines this process, and so everything that it will start, to `count` processors.
fn share_processors(count: usize) -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut shared = CpuSet::new();
    let all = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    all.take(count).for_each(|cpu| shared.set(cpu));
    Ok(sched_setaffinity(None, &shared)?)
}
