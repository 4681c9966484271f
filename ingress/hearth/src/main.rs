//! `hearth`: asks a running fleet how it is, and tells it what an operator wants. It speaks to the bus, as the
//! bus's user `operator`, which may neither run code nor read files.
#![forbid(unsafe_code)]

mod arguments;
mod error;
mod fleet;
mod pools;
mod session;
mod sessions;
mod table;
mod workers;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use process::failure;
use tokio::runtime::Builder;

use arguments::{Arguments, Command};
use fleet::Fleet;
use table::{print, print_one};

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", failure::line("hearth", &error, &[]));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // The bus's refusals are heard only there.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_writer(std::io::stderr)
        .init();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start the runtime")?;
    runtime.block_on(obey(arguments))
}

async fn obey(arguments: &Arguments) -> anyhow::Result<()> {
    let (fleet, output) = (Fleet::connect(arguments).await?, arguments.output);
    match &arguments.command {
        Command::Workers => print(&workers::list(&fleet).await?, output)?,
        Command::Drain { worker, wait } => workers::drain(&fleet, worker, *wait).await?,
        Command::Pools => print(&pools::list(&fleet).await?, output)?,
        Command::Sessions { pool } => print(&sessions::list(&fleet, pool).await?, output)?,
        Command::Session { pool, identifier } => {
            print_one(&session::look(&fleet, pool, identifier).await?, output)?;
        }
        Command::Stop { pool, identifier } => session::stop(&fleet, pool, identifier).await?,
    }
    Ok(())
}
