//! What every request below a pool goes through, in this order: token, pool, api-version,
//! identifier.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderValue, Uri, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use proto::{
    execution::Language,
    file::{DirectoryPath, FilePath},
    id::{Identifier, OperationId},
    pool::Pool,
    trace::TraceContext,
};
use tokio::time::Instant;

use super::{
    address::Address, coding, contract::Contract, cors::Grant, host, link::Here, query::Query,
};
use crate::{
    app::App,
    error::{ApiError, ErrorCode},
    headers::single,
    service::Session,
    trace,
};

/// Name of the header with the caller's id of the operation.
pub const OPERATION_ID: &str = "operation-id";

/// Headers that decide what a request does, beside the token's and [`host`]'s.
const ONCE: [&str; 3] = [OPERATION_ID, "content-type", "range"];

/// Who asks, where and for what, as the front found out: all that handlers know beside the body.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What handlers share.
    pub app: App,
    /// The pool of the path.
    pub pool: Arc<Pool>,
    /// The contract in which it is answered where both have the path.
    pub contract: Contract,
    /// The decoded query.
    pub query: Query,
    /// The session named by path or query.
    pub identifier: Option<Identifier>,
    /// The caller's operation id, or a new one.
    pub operation: OperationId,
    /// It is the caller's.
    pub named: bool,
    /// Where the request went, for links in its answer.
    pub here: Here,
    /// When its head was read.
    pub arrived: Instant,
    /// The trace that it belongs to.
    pub trace: TraceContext,
}

impl Caller {
    /// The session that the request is about.
    ///
    /// # Errors
    /// The request names none.
    pub fn session(&self) -> Result<Session, ApiError> {
        match &self.identifier {
            Some(identifier) => Ok(self.session_of(identifier.clone())),
            None => Err(ApiError::invalid(
                "the query parameter `identifier` is missing",
            )),
        }
    }

    /// The path of a file as path and query name it.
    ///
    /// # Errors
    /// It is no path below `/mnt/data`.
    pub fn path(&self, name: &str) -> Result<FilePath, ApiError> {
        Ok(FilePath::in_directory(&self.directory()?, name)?)
    }

    /// The directory that the query names; the root without one.
    ///
    /// # Errors
    /// It is no path below `/mnt/data`.
    pub fn directory(&self) -> Result<DirectoryPath, ApiError> {
        Ok(self.query.get("path")?.unwrap_or_default().parse()?)
    }

    /// What code the pool runs.
    #[must_use]
    pub fn language(&self) -> Language {
        self.pool.container_type.language().unwrap_or_default()
    }

    /// Refuses a pool of shells where the contract has no words for commands.
    ///
    /// # Errors
    /// It is one.
    pub fn refuse_shell(&self) -> Result<(), ApiError> {
        if self.language() != Language::Shell {
            return Ok(());
        }
        let version = self
            .query
            .get("api-version")?
            .unwrap_or("2023-08-01-preview");
        let message = format!(
            "Shell execution is not supported in API version {version} at this path: \
             use `executions` with 2025-02-02-preview or later"
        );
        Err(ApiError::new(
            ErrorCode::SessionRequestNotSupported,
            message,
        ))
    }

    /// The session of this name.
    #[must_use]
    pub fn session_of(&self, identifier: Identifier) -> Session {
        let (pool, operation) = (self.pool.clone(), (self.operation.clone(), self.named));
        let service = &self.app.service;
        service.session(pool, identifier, operation, self.trace)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.remove();
        caller.ok_or_else(|| ApiError::internal(&NotAdmitted))
    }
}

/// An operation was reached around the front.
#[derive(Debug, thiserror::Error)]
#[error("the request did not come through the front")]
struct NotAdmitted;

/// Lets a request through to the operations below a pool.
pub async fn enter(State(app): State<App>, request: Request, next: Next) -> Response {
    let address = Address::parse(request.uri().path());
    let pool = address.as_ref().and_then(|address| {
        let (subscription, group) = (&address.subscription, &address.resource_group);
        app.pool(subscription, group, &address.pool)
    });
    let grant = Grant::of(pool.as_deref(), request.headers());
    let mut response = match grant.preflight(&request) {
        Some(response) => response,
        None => match admit(&app, request, address, pool).await {
            Ok((request, operation)) => {
                let mut response = next.run(request).await;
                // What is told of an execution carries that one's.
                if let Ok(value) = HeaderValue::from_str(operation.as_str()) {
                    response.headers_mut().entry(OPERATION_ID).or_insert(value);
                }
                response
            }
            Err(error) => error.into_response(),
        },
    };
    grant.describe(response.headers_mut());
    response
}

async fn admit(
    app: &App,
    mut request: Request,
    address: Option<Address>,
    pool: Option<Arc<Pool>>,
) -> Result<(Request, OperationId), ApiError> {
    let arrived = Instant::now();
    host::check(request.version(), request.headers())?;
    app.authenticator.check(request.headers()).await?;
    let here = Here::of(&request);
    let address = address
        .ok_or_else(|| ApiError::new(ErrorCode::PathNotFound, "the path names no session pool"))?;
    let pool = pool.ok_or_else(|| {
        ApiError::new(
            ErrorCode::SessionPoolNotFound,
            "there is no session pool of this name",
        )
    })?;
    trace::note_pool(pool.id.as_str());
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    query.check_version(&address.operation)?;
    let identifier = match (query.get("identifier")?, address.identifier.as_deref()) {
        (Some(query), Some(path)) if query != path => {
            return Err(ApiError::invalid(
                "path and query name different identifiers",
            ));
        }
        (Some(name), _) | (None, Some(name)) => Some(name.parse()?),
        (None, None) => None,
    };
    for name in ONCE {
        single(request.headers(), name)?;
    }
    let named = request.headers().get(OPERATION_ID);
    let named = named.map(|id| id.to_str().unwrap_or_default().parse());
    let (operation, named) = match named.transpose()? {
        Some(id) => (id, true),
        None => (OperationId::from_ulid(app.bus.ids().next()), false),
    };
    let uri = Uri::try_from(&address.operation)
        .map_err(|_| ApiError::new(ErrorCode::PathNotFound, "the path is malformed"))?;
    *request.uri_mut() = uri;
    let body = std::mem::take(request.body_mut());
    *request.body_mut() = coding::unpacked(request.headers(), body)?;
    let caller = Caller {
        app: app.clone(),
        pool,
        contract: query.contract()?,
        query,
        identifier,
        operation: operation.clone(),
        named,
        here,
        arrived,
        trace: trace::current(),
    };
    request.extensions_mut().insert(caller);
    Ok((request, operation))
}

/// A path below a pool that means nothing here.
pub async fn unknown_operation() -> ApiError {
    let message = "there is no such operation, or this server does not have it yet";
    ApiError::new(ErrorCode::SessionRequestNotSupported, message)
}

/// A method that the path does not have.
pub async fn unknown_method() -> ApiError {
    ApiError::invalid("this path does not have this method")
}
