//! The ingress's binary.
#![forbid(unsafe_code)]

use std::{io::IsTerminal, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use ingress::{
    app,
    config::{Arguments, Command},
    devkeys, documents, membership,
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ingress: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stdout,
    reason = "a token is printed for the caller of the command"
)]
fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::AcceptNewKey(arguments) => {
            let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
            runtime.block_on(membership::accept_new_key(&arguments))
        }
        Command::DevKeys(place) => devkeys::make(&place.out_dir),
        Command::Certificate(place) => devkeys::certificate(&place.out_dir),
        Command::Documents(place) => documents::write(&place.out_dir),
        Command::Token(token) => {
            println!("{}", devkeys::token(&token)?);
            Ok(())
        }
        Command::Serve(config) => {
            tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::try_new(&arguments.log)?)
                .with_ansi(std::io::stderr().is_terminal())
                .with_writer(std::io::stderr)
                .init();
            rustls::crypto::aws_lc_rs::default_provider()
                .install_default()
                .map_err(|_| anyhow::anyhow!("another TLS provider is installed"))?;
            let runtime = tokio::runtime::Runtime::new().context("no runtime")?;
            runtime.block_on(app::serve(*config))
        }
    }
}
