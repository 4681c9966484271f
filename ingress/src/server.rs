//! The server: how it starts, serves and stops.

use std::{
    io,
    net::{SocketAddr, TcpListener},
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
use proto::{ambient::WallClock, health::Check};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use crate::{
    api::{self, link::Scheme},
    app::App,
    config::Config,
    connections,
    metrics::BusFigures,
    patience, tls,
};

const BUILD: Build = Build {
    program: "ingress",
    version: env!("CARGO_PKG_VERSION"),
};

/// Time that open requests have when the server stops: the longest execution.
const STOP_WITHIN: Duration = Duration::from_secs(proto::limits::EXECUTION_SECONDS as u64 + 10);

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
    let (listeners, reload) = ((plain, secure), (hangup, app.bus.wall_clock()));
    let mut servers = listen_and_serve(listeners, &router, &config, reload, &handle).await?;
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
    (hangup, clock): (Hangup, &WallClock),
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
        tokio::spawn(tls::follow(
            tls.clone(),
            config.clone(),
            clock.clone(),
            hangup,
        ));
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
