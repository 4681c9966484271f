//! The command line. The doc comments are the manual.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use process::{preflight::Output, settings::BusSettings};
use proto::id::{Identifier, WorkerId};

/// Asks a running fleet how it is, and tells it what an operator wants.
#[derive(Debug, Parser)]
#[command(name = "hearth", version)]
pub(crate) struct Arguments {
    /// The bus, with the credentials of its user `operator`.
    #[command(flatten)]
    pub(crate) bus: BusSettings,
    /// Pool file (TOML), the same that ingresses and workers have.
    #[arg(long, env = "HEARTH_POOLS", global = true)]
    pub(crate) pools: Option<PathBuf>,
    /// How answers are written: `text`, or `json` for programs.
    #[arg(long, value_enum, default_value_t, global = true)]
    pub(crate) output: Output,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be asked or told.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the workers: their sessions, whether they take more, and how long ago they said so.
    Workers,
    /// Have a worker hand its sessions over and end, as SIGTERM does on its host.
    Drain {
        /// Its id, or the name of one of its runs.
        worker: WorkerId,
        /// Return only when it has ended.
        #[arg(long)]
        wait: bool,
    },
    /// List the pools: sessions, executions that wait in the queue, and records.
    Pools,
    /// List the sessions of a pool that live, those that were used last first.
    Sessions {
        /// The pool's name or id.
        pool: String,
    },
    /// Tell how one session stands, and what may hold it up. It shows neither code nor files.
    Session {
        /// The pool's name or id.
        pool: String,
        /// The session, as its callers call it.
        identifier: Identifier,
    },
    /// End a session. Its variables and files are gone then.
    Stop {
        /// The pool's name or id.
        pool: String,
        /// The session, as its callers call it.
        identifier: Identifier,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_committed_settings_are_those_of_the_code() {
        loadtest::documents::keep_settings("hearth", [&Arguments::command()]);
    }
}
