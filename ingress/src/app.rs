//! The server: what handlers share, and how it starts, serves and stops.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    ops::Deref,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{Extension, Router};
use axum_server::{Handle, accept::NoDelayAcceptor};
use process::{
    admin::Admin,
    hangup::Hangup,
    metrics::{Build, Metrics},
};
use proto::{
    health::{Check, Health},
    pool::{Pool, Pools},
};
use records::{share::Share, watch::watch};
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
    connections,
    membership::{self, Membership},
    metrics::{BusFigures, Requests},
    patience,
    queues::Queues,
    readiness::Readiness,
    seal::Sealer,
    service::Service,
    tls,
};

const BUILD: Build = Build {
    program: "ingress",
    version: env!("CARGO_PKG_VERSION"),
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
    /// How this process's checks stand.
    pub health: Health,
    /// What is measured of them.
    pub readiness: Readiness,
    /// The bus.
    pub bus: Bus,
    /// What was answered.
    pub requests: Requests,
    /// The use cases.
    pub service: Service,
    membership: Membership,
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
        let pools = config.fleet.read_pools()?;
        let cluster_key = config.read_cluster_key()?;
        let keys = Keys::open(&config.jwks).await;
        let keys = keys.context("failed to open the key set")?;
        let rules = Rules {
            issuer: config.jwt_issuer.clone(),
            audiences: config.jwt_audience.clone(),
        };
        let authenticator = Authenticator::new(keys, rules, config.jwt_required_role.clone());
        let store = Store::open(&config.fleet.store)?;
        let instance = config.instance.clone();
        let instance = instance.unwrap_or_else(|| Ulid::new().to_string().to_lowercase());
        membership::demand_rights(config, &instance).await?;
        let auth = NatsAuth::read(&config.fleet.bus.nats_auth)?;
        let bus = Bus::connect(&config.fleet.bus.nats, auth, &instance).await?;
        let health = Health::default();
        let membership = Membership::take(
            store.clone(),
            &bus,
            &instance,
            &cluster_key,
            &pools,
            &health,
        );
        let membership = membership.await?;
        let wait = Duration::from_secs(config.sync_seconds.into());
        let readiness = Readiness {
            health: health.clone(),
            bus: bus.clone(),
            store: store.clone(),
        };
        let sealer = Sealer::new(&cluster_key)?;
        let service = Service::new(bus.clone(), store, cluster_key, sealer, wait);
        Box::pin(readiness.begin()).await;
        Ok(Self(Arc::new(Parts {
            authenticator,
            health,
            readiness,
            bus,
            requests: Requests::default(),
            service,
            membership,
            pools: by_address(pools),
            pools_written: config.fleet.pools_written().into(),
        })))
    }

    /// When the pool file was written that this process has read.
    #[must_use]
    pub fn pools_written(&self) -> OffsetDateTime {
        self.pools_written
    }

    /// Reports whether every pool has room for records of executions, for ever.
    pub fn watch_records(&self, health: Health) -> impl Future<Output = ()> + Send + use<> {
        let shares = self.pools.values().map(|pool| Share::from(&**pool));
        let mut shares: Vec<_> = shares.collect();
        shares.sort_by(|one, other| one.pool.cmp(&other.pool));
        watch(self.bus.records().clone(), shares, health)
    }

    /// Looks at the queue of every pool, for ever.
    fn watch_queues(&self) -> Queues {
        let pools = self.pools.values().map(|pool| pool.id.clone());
        let queues = Queues::default();
        tokio::spawn(queues.clone().watch(self.bus.clone(), pools.collect()));
        queues
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

/// Serves until SIGTERM or SIGINT, then lets open requests end. SIGHUP has the certificate read again.
///
/// # Errors
/// It cannot start, or a listener fails.
pub async fn serve(config: Config, hangup: Hangup) -> anyhow::Result<()> {
    patience::set(config.patience);
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let plain = listen(config.listen)?;
    let secure = config.tls_listen.map(listen).transpose()?;
    let admin = match config.admin.admin_listen {
        Some(address) => Some(Admin::listen(address).await?),
        None => None,
    };
    let app = tokio::select! {
        started = App::start(&config) => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let health = app.health.clone();
    if let Some(admin) = admin {
        let metrics = Metrics::default();
        metrics.show("build", BUILD);
        metrics.show("health", health.clone());
        metrics.show("requests", app.requests.clone());
        metrics.show("bus", BusFigures(app.bus.clone()));
        metrics.show("store", app.readiness.store.errors().clone());
        metrics.show("queues", app.watch_queues());
        admin.tell(health.clone(), metrics);
    }
    tokio::spawn(app.authenticator.keys().clone().keep_fresh());
    tokio::spawn(app.readiness.clone().keep());
    tokio::spawn(app.watch_records(app.health.clone()));
    let router = api::router(app.clone());
    let handle = Handle::new();
    let mut servers = listen_and_serve((plain, secure), &router, &config, hangup, &handle).await?;
    tracing::info!(listen = %config.listen, tls = ?config.tls_listen, "serving");

    let mut failed = None;
    tokio::select! {
        _ = terminate.recv() => {
            health.fail(Check::Draining, "this process was asked to end");
            // Whoever balances load looks at readiness now and then, and must not meet a closed door.
            let lame_duck = Duration::from_secs(config.lame_duck_seconds.into());
            tokio::select! {
                () = tokio::time::sleep(lame_duck) => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                Some(ended) = servers.join_next() => return Ok(ended??),
            }
        }
        _ = interrupt.recv() => {}
        // What it has begun it ends as ever: only new requests would meet other sessions.
        misfit = app.membership.ended() => {
            health.fail(Check::Draining, "this process does not belong to its fleet any more");
            tracing::error!("{misfit}");
            failed = Some(misfit);
        }
        Some(ended) = servers.join_next() => return Ok(ended??),
    }
    handle.graceful_shutdown(Some(STOP_WITHIN));
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    match failed {
        // What it told may be another fleet's.
        Some(misfit) => Err(misfit.into()),
        None => {
            app.membership.leave().await;
            Ok(())
        }
    }
}

/// Serves at these listeners, the second by TLS, until `handle` says otherwise.
async fn listen_and_serve(
    (plain, secure): (TcpListener, Option<TcpListener>),
    router: &Router,
    config: &Config,
    hangup: Hangup,
    handle: &Handle<SocketAddr>,
) -> anyhow::Result<JoinSet<io::Result<()>>> {
    let mut servers = JoinSet::new();
    let idle = Duration::from_secs(config.idle_seconds.into());
    plain.set_nonblocking(true)?;
    let server = axum_server::from_tcp(plain)?.handle(handle.clone());
    let server = connections::bounded(server, idle).acceptor(NoDelayAcceptor::new());
    let router_of = |scheme| router.clone().layer(Extension(scheme)).into_make_service();
    servers.spawn(server.serve(router_of(Scheme::Http)));
    if let Some(secure) = secure {
        secure.set_nonblocking(true)?;
        let tls = tls::config(config).await?;
        tokio::spawn(tls::follow(tls.clone(), config.clone(), hangup));
        let server = axum_server::from_tcp_rustls(secure, tls)?.handle(handle.clone());
        let server = connections::bounded(server, idle).map(|acceptor| {
            let acceptor = acceptor.handshake_timeout(connections::HEAD_WITHIN);
            acceptor.acceptor(NoDelayAcceptor::new())
        });
        servers.spawn(server.serve(router_of(Scheme::Https)));
    }
    Ok(servers)
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("failed to listen at {address}"))
}
