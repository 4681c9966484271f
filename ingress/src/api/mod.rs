//! HTTP. What is below a pool goes through [`front`], which finds the pool, checks the token and reads what every
//! request carries. The contracts declare its operations, each with its path, its method, its handler and its
//! description: [`v2024_02`] and [`v2024_10`].

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::Request,
    middleware,
    response::Response,
    routing::{future::RouteFuture, get},
};
use tower::{Service, ServiceBuilder, util::MapRequestLayer};
use utoipa_axum::router::OpenApiRouter;

use crate::{app::App, trace};

pub mod accept;
pub mod address;
pub mod body;
pub mod coding;
pub mod content;
pub mod contract;
pub mod cors;
pub mod execution;
pub mod extension;
pub mod file_name;
pub mod files;
pub mod front;
pub mod health;
pub mod host;
pub mod json;
pub mod linger;
pub mod link;
pub mod multipart;
pub mod openapi;
pub mod outcome;
pub mod query;
pub mod ran;
pub mod range;
pub mod request;
pub mod result;
pub mod schema;
pub mod sent;
pub mod stream;
pub mod strict;
pub mod surrogates;
pub mod timestamp;
pub mod v2024_02;
pub mod v2024_10;

use contract::Contract;
use front::Caller;
use v2024_02 as old;
use v2024_10 as new;

/// The server: what it tells anybody of itself, and below pools one chain from the front to the operations.
pub fn router(app: App) -> Router {
    let below_pools = ServiceBuilder::new()
        .layer(middleware::from_fn_with_state(app.clone(), front::enter))
        .service(Operations::declared());
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(openapi::new_contract))
        .route("/openapi/new.json", get(openapi::new_contract))
        .route("/openapi/old.json", get(openapi::old_contract))
        .route_layer(middleware::from_fn(host::demand))
        .fallback_service(below_pools)
        .layer(MapRequestLayer::new(linger::over_rest))
        .with_state(app)
}

/// Operations below a pool. A request goes to the contract that it speaks; in both, all paths that only one of them
/// has lead where they lead in that one.
#[derive(Clone, Debug)]
struct Operations {
    old: Router,
    new: Router,
}

impl Operations {
    fn declared() -> Self {
        Self {
            old: with_paths_of_one(old::shared()),
            new: with_paths_of_one(new::shared()),
        }
    }
}

impl Service<Request> for Operations {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    /// Routers are always ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let caller = request.extensions().get::<Caller>();
        match caller.map(|caller| caller.contract) {
            Some(Contract::New) => self.new.call(request),
            Some(Contract::Old) | None => self.old.call(request),
        }
    }
}

fn with_paths_of_one(shared: OpenApiRouter) -> Router {
    let all = old::routes().merge(new::routes()).merge(shared);
    let (router, _) = all.split_for_parts();
    router
        .route_layer(middleware::from_fn(trace::note_route))
        .fallback(front::unknown_operation)
        .method_not_allowed_fallback(front::unknown_method)
        // Else axum would make every handler into a service again for each request.
        .with_state(())
}
