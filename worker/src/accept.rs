//! `worker accept-new-bus`: an operator's word that the data of the bus is lost for good.

use std::io::Write;

use async_nats::jetstream;
use clap::Parser;
use fleet::Acceptance;
use process::settings::FleetSettings;
use proto::{ambient::Ids, id::WorkerId};
use routing::bus::NatsAuth;
use store::Store;

use crate::{bus::connect, lease::Replicas};

/// Its name, as the first argument.
pub const COMMAND: &str = "accept-new-bus";

/// Accepts that the bus lost its data: gives store and bus a new generation, so that the fleet serves again.
/// Without --yes it only says what becomes unreachable.
#[derive(Debug, Parser)]
#[command(name = "worker accept-new-bus", version)]
pub struct Arguments {
    /// The fleet whose bus it is; the bus as a worker reaches it.
    #[command(flatten)]
    fleet: FleetSettings,
    /// Servers of the bus that hold each record: 1, or 3 in a cluster of three or more servers.
    #[arg(long, env = "HEARTH_REPLICAS", default_value_t = Replicas::ONE)]
    replicas: Replicas,
    /// Do it.
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
///
/// # Errors
/// A setting is wrong, store or bus failed, or there is nothing to accept.
pub async fn accept(arguments: Arguments) -> anyhow::Result<()> {
    let FleetSettings { bus, store, .. } = &arguments.fleet;
    let pools = arguments.fleet.read_pools()?;
    let ids = Ids::random();
    let store = Store::open(store, ids.clone())?;
    let operator: WorkerId = "accept-new-bus".parse::<WorkerId>()?.of_run(ids.next())?;
    let auth = NatsAuth::read(&bus.nats_auth)?;
    let (client, _) = connect(&bus.nats, auth, &operator).await?;
    let context = jetstream::new(client);
    let acceptance = Acceptance::consider(store, context, &pools).await?;
    if !acceptance.is_needed() {
        anyhow::bail!("there is nothing to accept: {}", acceptance.verdict);
    }
    report(&format!("{}.", acceptance.verdict));
    report("Once a new generation is accepted:");
    for pool in &acceptance.pools {
        report(&format!(
            "  pool `{}`: the files of {} session(s) in {} log(s) become unreachable",
            pool.pool, pool.sessions, pool.logs
        ));
    }
    report(
        "  sessions whose leases this bus does not hold begin anew, empty, when they are asked for;\n  \
           records of executions that it does not hold are gone: their operation-ids may run again;\n  \
           the files stay in the store for seven days.",
    );
    if !arguments.yes {
        anyhow::bail!(
            "nothing was changed; put the bus's data back, or repeat the command with --yes"
        );
    }
    let generation = acceptance.accept(arguments.replicas.into()).await?;
    report(&format!(
        "Accepted: store and bus have generation {generation}. Waiting workers serve within seconds."
    ));
    Ok(())
}

/// Says something to the operator. Who closed the output does not want to hear it.
fn report(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}
