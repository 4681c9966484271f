//! `ingress check`: looks at this host and the settings of an ingress without serving.

pub(crate) mod certificate;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use process::{
    preflight::{
        Finding, Preflight, ports,
        visit::{self, Visitor},
    },
    remedy::Remedy,
};
use records::{execution::Stamps, fleet::FleetStream};
use routing::{bus::Bus, disagreement};

use crate::{
    auth::keys::Keys,
    config::{Config, read_cluster_key},
    membership::Misfit,
};

const POOLS: &str = "pools";
const CLUSTER_KEY: &str = "cluster-key";
const KEY_SET: &str = "key-set";

/// How long whoever listens at the address for HTTPS may take to answer.
const ASK_WITHIN: Duration = Duration::from_secs(3);

/// Everything that can be known of them before a start. Changes nothing but some small objects in the
/// store, which it removes again.
pub async fn look(config: &Config) -> Preflight {
    let stamps = Stamps::real();
    let visit = visit::look(&config.fleet, Visitor::Ingress, &stamps).await;
    let bus = visit.reached_bus();
    let mut findings = vec![
        pools(config, bus).await,
        cluster_key(config, bus).await,
        key_set(config).await,
    ];
    findings.extend(certificate::look(config, &stamps.clock).await);
    findings.push(ports(config).await);
    findings.extend(visit.bus);
    findings.push(visit.store);
    findings.push(visit.fleet);
    Preflight::of(findings)
}

/// The pool file, and whether workers serve its pools as it describes them.
async fn pools(config: &Config, bus: Option<&Bus>) -> Finding {
    let pools = match config.fleet.read_pools() {
        Ok(pools) => pools,
        Err(error) => return Finding::refused(POOLS, &error),
    };
    let workers = match bus {
        Some(bus) => bus.workers().await.unwrap_or_default(),
        None => Arc::default(),
    };
    let wrong = disagreement::Own::from(&pools).with_workers(&workers);
    if wrong.is_empty() {
        Finding::ok(POOLS, format!("pools: {}", pools.pool.len()))
    } else {
        Finding::warn(
            POOLS,
            format!("{}: they take no new sessions here", wrong.join("; ")),
            Remedy::PoolsDiffer,
        )
    }
}

/// The cluster key, and whether it is the fleet's.
async fn cluster_key(config: &Config, bus: Option<&Bus>) -> Finding {
    let ours = match read_cluster_key(&config.cluster_key) {
        Ok(key) => key.fingerprint(),
        Err(error) => return Finding::refused(CLUSTER_KEY, &error),
    };
    let theirs = match bus {
        Some(bus) => FleetStream::new(bus.jetstream()).key().await.ok().flatten(),
        None => None,
    };
    match theirs {
        Some(theirs) if theirs == ours => Finding::ok(CLUSTER_KEY, "it is the fleet's"),
        Some(theirs) => Finding::fail(
            CLUSTER_KEY,
            Misfit::Key { ours, theirs }.to_string(),
            Remedy::ClusterKeyOfFleet,
        ),
        None => Finding::ok(
            CLUSTER_KEY,
            "64 hexadecimal digits that only their owner reads; the fleet has none to compare yet",
        ),
    }
}

async fn key_set(config: &Config) -> Finding {
    match Keys::open(&config.jwks).await {
        Ok(_) if config.jwks.starts_with("http://") => Finding::warn(
            KEY_SET,
            "it comes over HTTP without TLS: who can change it on its way can sign tokens",
            "use an https:// address or a file",
        ),
        Ok(_) => Finding::ok(KEY_SET, "it holds keys that can verify tokens"),
        Err(error) => Finding::refused(KEY_SET, &error),
    }
}

async fn ports(config: &Config) -> Finding {
    let addresses: Vec<_> = [
        Some(config.listen),
        config.tls_listen,
        config.admin.admin_listen,
    ]
    .into_iter()
    .flatten()
    .collect();
    let held = |address| async move {
        match config.tls_listen {
            Some(secure) if secure == address => answers_securely(address).await,
            _ => ports::answers_as_hearth(address).await,
        }
    };
    ports::look(&addresses, held).await
}

/// Whether whoever listens there answers `GET /healthz` as Hearth does, over HTTPS with whatever certificate.
async fn answers_securely(address: SocketAddr) -> bool {
    let ask = async {
        let client = reqwest::Client::builder()
            .danger_accept_invalid_certs(true)
            .no_proxy()
            .timeout(ASK_WITHIN)
            .build()?;
        let url = format!("https://{}/healthz", ports::reachable(address));
        client.get(url).send().await?.text().await
    };
    ask.await.is_ok_and(|answer| answer == ports::ALIVE)
}
