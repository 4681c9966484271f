//! `ingress check`: looks at this host and the settings of an ingress without serving.

pub(crate) mod certificate;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use process::{
    failure::causes,
    preflight::{Finding, Preflight, bus, fleet, ports, store},
};
use proto::subject;
use records::fleet::FleetStream;
use routing::{
    bus::{Bus, rights},
    disagreement,
};
use ulid::Ulid;

use crate::{auth::keys::Keys, config::Config, membership::Misfit, remedy};

const POOLS: &str = "pools";
const CLUSTER_KEY: &str = "cluster-key";
const KEY_SET: &str = "key-set";

/// How long whoever listens at the address for HTTPS may take to answer.
const ASK_WITHIN: Duration = Duration::from_secs(3);

/// Everything that can be known of them before a start. Changes nothing but some small objects in the
/// store, which it removes again.
pub async fn look(config: &Config) -> Preflight {
    // Another name than that of a process that may be running.
    let inbox = subject::ingress_inbox(&format!("check-{}", Ulid::new()));
    let visitor = bus::Visitor {
        servers: &config.fleet.bus.nats,
        auth: &config.fleet.bus.nats_auth,
        inbox: &inbox,
        rights: rights::INGRESS,
        stream: subject::EXECUTIONS_STREAM,
    };
    let visit = bus::look(visitor).await;
    let bus = visit.bus.as_ref().map(|(_, bus)| bus);
    let (store, opened) = store::look(&config.fleet.store).await;
    let mut findings = vec![
        pools(config, bus).await,
        cluster_key(config, bus).await,
        key_set(config).await,
    ];
    findings.extend(certificate::look(config).await);
    findings.push(ports(config).await);
    findings.extend(visit.findings);
    findings.push(store);
    findings.push(fleet::look(opened.as_ref(), bus, fleet::Visitor::Ingress).await);
    Preflight::of(findings)
}

fn refused(name: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> Finding {
    let what = causes(&error);
    Finding::fail(name, what, remedy::of(&error.into()).unwrap_or_default())
}

/// The pool file, and whether workers serve its pools as it describes them.
async fn pools(config: &Config, bus: Option<&Bus>) -> Finding {
    let pools = match config.fleet.read_pools() {
        Ok(pools) => pools,
        Err(error) => return refused(POOLS, error),
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
            wrong.join("; "),
            "compare --pools of ingresses and workers: these pools take no new sessions here",
        )
    }
}

/// The cluster key, and whether it is the fleet's.
async fn cluster_key(config: &Config, bus: Option<&Bus>) -> Finding {
    let ours = match config.read_cluster_key() {
        Ok(key) => key.fingerprint(),
        Err(error) => return refused(CLUSTER_KEY, error),
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
            "give --cluster-key the fleet's key",
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
        Err(error) => refused(KEY_SET, error),
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
    ports::look(&addresses, held, remedy::of_listening).await
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

#[cfg(test)]
mod tests {
    use process::preflight::Outcome;

    use super::*;

    #[tokio::test]
    async fn the_remedy_for_a_port_names_its_setting() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let finding = ports::look(&[address], async |_| false, remedy::of_listening).await;
        assert_eq!(finding.outcome, Outcome::Fail);
        assert!(finding.remedy.unwrap().contains("--listen"));
    }
}
