//! HTTP. What is below a pool goes through [`front`], which finds the pool, checks the token and reads what every
//! request carries. The contracts declare its operations, each with its path, its method, its handler and its
//! description: [`v2024_02`] and [`v2024_10`].

use axum::{Router, extract::Request, middleware, routing::get};
use tower::{
    ServiceBuilder, ServiceExt,
    util::{MapRequestLayer, service_fn},
};

use crate::{app::App, trace};

pub mod accept;
pub mod address;
pub mod body;
pub mod coding;
pub mod content;
pub mod contract;
pub mod cors;
pub mod declare;
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

/// The server: what it tells anybody of itself, and below pools one chain from the front to the operations of the
/// contract that a request speaks.
pub fn router(app: App) -> Router {
    let [old, new] = Contract::ALL.map(operations);
    let spoken = service_fn(move |request: Request| {
        let caller = request.extensions().get::<Caller>();
        let operations = match caller.map(|caller| caller.contract) {
            Some(Contract::New) => &new,
            Some(Contract::Old) | None => &old,
        };
        operations.clone().oneshot(request)
    });
    let below_pools = ServiceBuilder::new()
        .layer(middleware::from_fn_with_state(
            app.requests.clone(),
            trace::follow,
        ))
        .layer(middleware::from_fn_with_state(app.clone(), front::enter))
        .service(spoken);
    let (new, old) = (
        openapi::answer(Contract::New),
        openapi::answer(Contract::Old),
    );
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(new.clone()))
        .route("/openapi/new.json", get(new))
        .route("/openapi/old.json", get(old))
        .route_layer(middleware::from_fn(host::demand))
        .fallback_service(below_pools)
        .layer(MapRequestLayer::new(linger::over_rest))
        .with_state(app)
}

/// Operations as a contract has them. All paths that only one contract has lead where they lead in that one.
fn operations(contract: Contract) -> Router {
    let shared = match contract {
        Contract::Old => old::shared(),
        Contract::New => new::shared(),
    };
    let all = old::routes().merge(new::routes()).merge(shared);
    Router::from(all)
        .route_layer(middleware::from_fn(trace::note_route))
        .fallback(front::unknown_operation)
        .method_not_allowed_fallback(front::unknown_method)
        // Else axum would make every handler into a service again for each request.
        .with_state(())
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::MatchedPath};
    use serde_json::Value;

    use super::*;
    use crate::{error::ErrorCode, headers::ERROR_CODE};

    /// Which route a request takes. Handlers refuse it: it did not come through the front.
    async fn route(contract: Contract, method: &str, path: &str) -> Option<String> {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).unwrap();
        let answer = operations(contract).oneshot(request).await.unwrap();
        let reached = answer.headers()[ERROR_CODE] == ErrorCode::InternalError.name();
        let route = answer.extensions().get::<MatchedPath>();
        route
            .filter(|_| reached)
            .map(|route| route.as_str().to_owned())
    }

    #[tokio::test]
    async fn whatever_is_described_is_reached() {
        for contract in Contract::ALL {
            let document: Value = serde_json::from_str(&openapi::text(contract)).unwrap();
            for (path, item) in document["paths"].as_object().unwrap() {
                for method in item.as_object().unwrap().keys() {
                    let asked = path.replace(['{', '}'], "");
                    let method = method.to_uppercase();
                    let route = route(contract, &method, &asked).await;
                    let what = format!("{contract:?} {method} {path}");
                    let route = route.unwrap_or_else(|| panic!("{what} is not reached"));
                    // The rest of a path is the handler's business below `files` and `file`.
                    let (fixed, _) = route.split_once('{').unwrap_or((&route, ""));
                    assert!(path.starts_with(fixed), "{what} is reached at {route}");
                }
            }
        }
    }

    #[tokio::test]
    async fn whatever_is_not_described_is_not_reached() {
        for (method, path) in [
            ("GET", "/none"),
            ("PUT", "/files"),
            ("GET", "/executions/a/b"),
        ] {
            for contract in Contract::ALL {
                assert_eq!(route(contract, method, path).await, None, "{method} {path}");
            }
        }
    }
}
