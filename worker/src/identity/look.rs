//! Who has an id, looked at without claiming it.

use async_nats::{Client, jetstream::Context};
use proto::{ambient::Ids, id::WorkerId, lease::WorkerClaim, subject};
use records::{cas::BusError, fleet::is_missing, nats::NatsBus};

use super::{
    BOOT_ID, ask,
    decide::{Decision, Holder, decide},
    read,
};

/// How a start with this id would fare now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who has it.
    pub holder: Option<Holder>,
    /// Whether on this boot of this host.
    pub here: bool,
    /// What a start would do.
    pub decision: Decision,
}

/// Looks, and asks the holder whether it lives. Writes nothing.
///
/// # Errors
/// The bus did not answer.
pub async fn look(
    client: &Client,
    context: &Context,
    id: &WorkerId,
    ids: &Ids,
) -> Result<Standing, BusError> {
    let boot = std::fs::read_to_string(BOOT_ID)
        .map_err(|error| BusError::new("this host's boot was not read", error))?;
    let run = id.of_run(ids.next());
    let own = WorkerClaim {
        run: run.map_err(|error| BusError::new("no name was made", error))?,
        boot: boot.trim().to_owned(),
    };
    let claim = match context.get_stream(subject::WORKERS_STREAM).await {
        Ok(_) => read(&NatsBus::new(context.clone()), id).await?,
        // No worker was ever here.
        Err(error) if is_missing(&error.kind()) => None,
        Err(error) => return Err(BusError::new("stream was not described", error)),
    };
    let holder = match claim {
        None => None,
        Some((claim, revision)) => Some(Holder {
            sign: ask(client, &claim.run).await,
            claim,
            revision,
            renewed: false,
            unchanged_for: std::time::Duration::ZERO,
        }),
    };
    Ok(Standing {
        here: holder
            .as_ref()
            .is_some_and(|holder| holder.claim.boot == own.boot),
        decision: decide(&own, holder.as_ref()),
        holder,
    })
}
