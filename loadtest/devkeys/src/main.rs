//! `devkeys`: makes the keys, the certificate and the tokens of a development stack.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use devkeys::TokenArguments;

/// Keys, certificates and tokens for development and tests.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a signing key and its public key set.
    Make(OutDir),
    /// Make a self-signed certificate for localhost.
    Certificate(OutDir),
    /// Print a token signed with such a key.
    Token(TokenArguments),
}

/// Where files are written; those that exist are kept.
#[derive(Debug, Args)]
struct OutDir {
    /// Directory; created if missing.
    #[arg(long)]
    out_dir: PathBuf,
}

#[expect(
    clippy::print_stdout,
    reason = "a token is printed for the caller of the command"
)]
fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Make(place) => devkeys::make(&place.out_dir)?,
        Command::Certificate(place) => devkeys::certificate(&place.out_dir)?,
        Command::Token(token) => println!("{}", devkeys::token(&token)?),
    }
    Ok(())
}
