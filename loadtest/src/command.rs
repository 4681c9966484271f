//! The program: its command line. It is a library's, so that nothing is compiled again for the binary.

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
    Bench(crate::bench::Options),
    /// Kill, pause and restart everything under load, and prove that nothing is lost.
    Chaos(crate::chaos::Options),
    /// Put load on a pool at a stated rate, and say whether it kept its promises.
    Load(crate::load::Options),
    /// Print a lot to a reader that stalls, and see who minds.
    Stall(crate::stall::Options),
    /// Stand before an object store and make trouble on command (used by the harness).
    #[command(hide = true)]
    StoreProxy(crate::store_proxy::Options),
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

/// Does what the command line says.
///
/// # Errors
/// It failed, or what it measured is not as it must be.
pub fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Bench(options) => {
            share_processors(options.cores)?;
            block_on(crate::bench::run(&options, &mut std::io::stdout()))
        }
        Command::Chaos(options) => {
            let mut out = std::io::stdout();
            let report = block_on(crate::chaos::run(&options, &mut out))?;
            match report.violations().len() + report.casualties().len() {
                0 => Ok(()),
                count => bail!("{count} violations"),
            }
        }
        Command::Load(options) => {
            match block_on(crate::load::run(&options, &mut std::io::stdout()))? {
                true => Ok(()),
                false => bail!("an objective was missed"),
            }
        }
        Command::Stall(options) => block_on(crate::stall::run(&options, &mut std::io::stdout())),
        Command::StoreProxy(options) => block_on(crate::store_proxy::run(&options)),
        Command::Keep { directory } => crate::cluster::keep(&directory),
        Command::Leash {
            parent,
            program,
            arguments,
        } => crate::cluster::leash(parent, &program, &arguments),
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
