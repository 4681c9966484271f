//! `ingress check`: looks at this host and the settings of an ingress without serving.

mod certificate;

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use process::{
    failure::causes,
    preflight::{Finding, Preflight, bus, store},
};
use proto::subject;
use routing::bus::rights;
use ulid::Ulid;

use crate::{auth::keys::Keys, config::Config, remedy};

const POOLS: &str = "pools";
const CLUSTER_KEY: &str = "cluster-key";
const KEY_SET: &str = "key-set";
const PORTS: &str = "ports";

/// Everything that can be known of them before a start. Changes nothing but some small objects in the
/// store, which it removes again.
pub async fn look(config: &Config) -> Preflight {
    let mut findings = vec![pools(config), cluster_key(config), key_set(config).await];
    findings.extend(certificate::look(config).await);
    findings.push(ports(config));
    // Another name than that of a process that may be running.
    let inbox = subject::ingress_inbox(&format!("check-{}", Ulid::new()));
    let visitor = bus::Visitor {
        servers: &config.nats,
        auth: &config.nats_auth,
        inbox: &inbox,
        rights: rights::INGRESS,
        stream: subject::EXECUTIONS_STREAM,
    };
    findings.extend(bus::look(visitor).await);
    findings.push(store::look(&config.store).await);
    Preflight::of(findings)
}

fn refused(name: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> Finding {
    let what = causes(&error);
    Finding::fail(name, what, remedy::of(&error.into()).unwrap_or_default())
}

fn pools(config: &Config) -> Finding {
    match config.read_pools() {
        Ok(pools) if pools.pool.is_empty() => Finding::warn(
            POOLS,
            format!("{} holds no pool", config.pools.display()),
            "add a [[pool]]: without one every request is refused",
        ),
        Ok(pools) => Finding::ok(POOLS, format!("pools: {}", pools.pool.len())),
        Err(error) => refused(POOLS, error),
    }
}

fn cluster_key(config: &Config) -> Finding {
    match config.read_cluster_key() {
        Ok(_) if others_read(&config.cluster_key) => Finding::warn(
            CLUSTER_KEY,
            format!("others can read {}", config.cluster_key.display()),
            "`chmod 600` it: who knows it can compute the names of all sessions",
        ),
        Ok(_) => Finding::ok(
            CLUSTER_KEY,
            "64 hexadecimal digits that only their owner reads",
        ),
        Err(error) => refused(CLUSTER_KEY, error),
    }
}

fn others_read(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
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

fn ports(config: &Config) -> Finding {
    let addresses = [Some(config.listen), config.tls_listen];
    for address in addresses.into_iter().flatten() {
        if let Err(error) = TcpListener::bind(address) {
            return cannot_listen(address, error);
        }
    }
    Finding::ok(PORTS, "free")
}

fn cannot_listen(address: SocketAddr, error: std::io::Error) -> Finding {
    let what = format!("failed to listen at {address}: {error}");
    Finding::fail(PORTS, what, remedy::of(&error.into()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use process::preflight::Outcome;

    use super::*;

    #[test]
    fn a_port_that_is_taken_fails_with_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = TcpListener::bind(address).unwrap_err();
        let finding = cannot_listen(address, error);
        assert_eq!(finding.outcome, Outcome::Fail);
        assert!(finding.remedy.unwrap().contains("--listen"));
    }

    #[test]
    fn a_key_is_only_its_owners_to_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mode = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            others_read(file.path())
        };
        assert!(!mode(0o600));
        assert!(mode(0o640));
        assert!(mode(0o604));
    }
}
