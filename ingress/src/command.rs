//! The program: from its command line to its exit status. It is a library's, so that nothing is compiled again
//! for the binary.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use process::{failure, hangup::Hangup, log::LogSettings};
use tokio::runtime::{Handle, Runtime};

use crate::{
    config::{Arguments, CheckArguments, Command, Config},
    membership, preflight, remedy, server,
};

/// Does what the command line says. A failure is one line on standard error.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", failure::line("ingress", &error, remedy::KNOWN));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::AcceptNewKey(arguments) => {
            runtime()?.block_on(membership::accept_new_key(&arguments))?;
        }
        Command::Check(check) => return look(&check),
        Command::Serve(config) => runtime()?.block_on(serve(arguments.log, *config))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<Runtime> {
    Runtime::new().context("failed to start the runtime")
}

fn look(check: &CheckArguments) -> anyhow::Result<ExitCode> {
    tls_provider()?;
    let found = runtime()?.block_on(preflight::look(&check.config));
    found.print(check.output)?;
    Ok(found.exit_code())
}

fn tls_provider() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed"))
}

async fn serve(log: LogSettings, config: Config) -> anyhow::Result<()> {
    // First of all: until it is heard, a SIGHUP ends the process.
    let hangup = Hangup::listen()?;
    let log = log.start("ingress", &Handle::current())?;
    let export = log.export();
    tokio::spawn(log.follow(hangup.clone()));
    tls_provider()?;
    let served = Box::pin(server::serve(config, hangup)).await;
    export.end().await;
    served
}
