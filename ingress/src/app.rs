//! The server: what handlers share, and how it starts, serves and stops.

use std::{collections::HashMap, ops::Deref, sync::Arc, time::Duration};

use anyhow::Context;
use axum::Extension;
use axum_server::{Handle, accept::NoDelayAcceptor};
use proto::pool::{Pool, Pools};
use store::Store;
use time::OffsetDateTime;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use ulid::Ulid;

use crate::{
    api::{self, address::Address, link::Scheme},
    auth::{Authenticator, keys::Keys, token::Rules},
    bus::{Bus, NatsAuth},
    config::Config,
    connections, patience,
    service::Service,
    tls,
};

/// Time that open requests have when the server stops: the longest execution.
const STOP_WITHIN: Duration = Duration::from_secs(proto::limits::EXECUTION_SECONDS as u64 + 10);

/// What handlers share. Every layer of a router has a clone, and clones it for each request.
#[derive(Clone, Debug)]
pub struct App(Arc<Parts>);

/// What an [`App`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// Checks tokens.
    pub authenticator: Authenticator,
    /// The bus, for readiness.
    pub bus: Bus,
    /// The use cases.
    pub service: Service,
    pools: HashMap<(String, String, String), Arc<Pool>>,
    pools_written: OffsetDateTime,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Connects everything.
    ///
    /// # Errors
    /// A setting, the key set, the store or the bus fails.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let pools = by_address(config.read_pools()?);
        let keys = Keys::open(&config.jwks).await.context("key set")?;
        let rules = Rules {
            issuer: config.jwt_issuer.clone(),
            audiences: config.jwt_audience.clone(),
        };
        let authenticator = Authenticator::new(keys, rules, config.jwt_required_role.clone());
        let store = Store::open(&config.store)?;
        let instance = config.instance.clone();
        let instance = instance.unwrap_or_else(|| Ulid::new().to_string().to_lowercase());
        let bus = Bus::connect(&config.nats, NatsAuth::read(&config.nats_auth)?, &instance).await?;
        let wait = Duration::from_secs(config.sync_seconds.into());
        let service = Service::new(bus.clone(), store, config.read_cluster_key()?, wait);
        Ok(Self(Arc::new(Parts {
            authenticator,
            bus,
            service,
            pools,
            pools_written: config.pools_written(),
        })))
    }

    /// When the pool file was written that this process has read.
    #[must_use]
    pub fn pools_written(&self) -> OffsetDateTime {
        self.pools_written
    }

    /// The pool at an address; subscription and resource group are compared without case.
    #[must_use]
    pub fn pool(&self, address: &Address) -> Option<Arc<Pool>> {
        let Address {
            subscription,
            resource_group,
            pool,
            ..
        } = address;
        let subscription = subscription.to_ascii_lowercase();
        let resource_group = resource_group.to_ascii_lowercase();
        self.pools
            .get(&(subscription, resource_group, pool.clone()))
            .cloned()
    }
}

fn by_address(pools: Pools) -> HashMap<(String, String, String), Arc<Pool>> {
    let keyed = pools.pool.into_iter().map(|pool| {
        let subscription = pool.subscription.to_ascii_lowercase();
        let resource_group = pool.resource_group.to_ascii_lowercase();
        (
            (subscription, resource_group, pool.name.as_str().to_owned()),
            Arc::new(pool),
        )
    });
    keyed.collect()
}

/// Serves until SIGTERM or SIGINT, then lets open requests end.
///
/// # Errors
/// It cannot start, or a listener fails.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    patience::set(config.patience);
    let plain = std::net::TcpListener::bind(config.listen)
        .with_context(|| format!("{} cannot be listened at", config.listen))?;
    let secure = config
        .tls_listen
        .map(|address| {
            std::net::TcpListener::bind(address)
                .with_context(|| format!("{address} cannot be listened at"))
        })
        .transpose()?;
    let app = App::start(&config).await?;
    tokio::spawn(app.authenticator.keys().clone().keep_fresh());
    let router = api::router(app);

    let handle = Handle::new();
    let mut servers = JoinSet::new();
    plain.set_nonblocking(true)?;
    let server = axum_server::from_tcp(plain)?.handle(handle.clone());
    let idle = Duration::from_secs(config.idle_seconds.into());
    let server = connections::bounded(server, idle);
    servers.spawn(
        server.acceptor(NoDelayAcceptor::new()).serve(
            router
                .clone()
                .layer(Extension(Scheme::Http))
                .into_make_service(),
        ),
    );
    if let Some(secure) = secure {
        secure.set_nonblocking(true)?;
        let tls = tls::config(&config).await?;
        let server = axum_server::from_tcp_rustls(secure, tls)?.handle(handle.clone());
        let server = connections::bounded(server, idle).map(|acceptor| {
            let acceptor = acceptor.handshake_timeout(connections::HEAD_WITHIN);
            acceptor.acceptor(NoDelayAcceptor::new())
        });
        let router = router.layer(Extension(Scheme::Https));
        servers.spawn(server.serve(router.into_make_service()));
    }
    tracing::info!(listen = %config.listen, tls = ?config.tls_listen, "serving");

    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        Some(ended) = servers.join_next() => return Ok(ended??),
    }
    handle.graceful_shutdown(Some(STOP_WITHIN));
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    Ok(())
}
