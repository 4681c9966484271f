//! An operator gives the fleet another cluster key.

use records::{execution::Stamps, fleet::FleetStream};

use crate::{
    bus::{Bus, NatsAuth},
    config::{AcceptNewKey, read_cluster_key},
};

/// Makes the fleet take another cluster key.
///
/// # Errors
/// A setting is wrong, the bus failed, or the operator did not say so in so many words.
pub async fn accept_new_key(arguments: &AcceptNewKey) -> anyhow::Result<()> {
    let key = read_cluster_key(&arguments.cluster_key)?.fingerprint();
    if !arguments.yes {
        anyhow::bail!(
            "with the key of fingerprint {key} every identifier is another session: all that live \
             become unreachable; repeat the command with --yes to do it"
        );
    }
    let stamps = Stamps::real();
    let instance = stamps.ids.next().to_string().to_lowercase();
    let auth = NatsAuth::read(&arguments.bus.nats_auth)?;
    let bus = Bus::connect(&arguments.bus.nats, auth, &instance, stamps).await?;
    let stream = FleetStream::new(bus.jetstream());
    anyhow::ensure!(
        stream.agree_on_key(&key).await?.is_some(),
        "the bus has no generation yet: start a worker first"
    );
    Ok(stream.replace_key(&key).await?)
}
