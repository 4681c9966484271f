//! What every request below a pool goes through, in this order: token, pool, api-version,
//! identifier.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Uri},
    response::{IntoResponse, Response},
};
use proto::{
    id::{Identifier, OperationId},
    pool::Pool,
};
use tower::ServiceExt;
use ulid::Ulid;

use super::{address::Address, query::Query};
use crate::{
    app::App,
    error::{ApiError, ErrorCode},
    service::Session,
};

/// Name of the header with the caller's id of the operation.
const OPERATION_ID: &str = "operation-id";

/// What the front found out; handlers take it as an extension.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The pool of the path.
    pub pool: Arc<Pool>,
    /// The decoded query.
    pub query: Query,
    /// The session named by path or query.
    pub identifier: Option<Identifier>,
    /// The caller's operation id, or a new one.
    pub operation: OperationId,
}

impl Caller {
    /// The session that the request is about.
    ///
    /// # Errors
    /// The request names none.
    pub fn session(&self, app: &App) -> Result<Session, ApiError> {
        match &self.identifier {
            Some(identifier) => Ok(self.session_of(app, identifier.clone())),
            None => Err(ApiError::invalid(
                "the query parameter `identifier` is missing",
            )),
        }
    }

    /// The session of this name.
    #[must_use]
    pub fn session_of(&self, app: &App, identifier: Identifier) -> Session {
        app.service
            .session(self.pool.clone(), identifier, self.operation.clone())
    }
}

/// Handles every path that is not the server's own.
pub async fn enter(State(app): State<App>, request: Request) -> Response {
    match admit(&app, request).await {
        Ok((request, operation)) => {
            let answered = app.operations().oneshot(request).await;
            let mut response = answered.unwrap_or_else(|never| match never {});
            if let Ok(value) = HeaderValue::from_str(operation.as_str()) {
                response.headers_mut().insert(OPERATION_ID, value);
            }
            response
        }
        Err(error) => error.into_response(),
    }
}

async fn admit(app: &App, mut request: Request) -> Result<(Request, OperationId), ApiError> {
    app.authenticator.check(request.headers()).await?;
    let address = Address::parse(request.uri().path())
        .ok_or_else(|| ApiError::new(ErrorCode::PathNotFound, "the path names no session pool"))?;
    let pool = app.pool(&address).ok_or_else(|| {
        ApiError::new(
            ErrorCode::SessionPoolNotFound,
            "there is no session pool of this name",
        )
    })?;
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    let oldest = address.operation.starts_with("/python/");
    query.check_version(!oldest)?;
    if query.is_new_contract()? && in_both_contracts(&address.operation) {
        let message = "this api-version of the operation is not supported by this server yet: \
                       use 2024-02-02-preview";
        return Err(ApiError::new(
            ErrorCode::SessionRequestNotSupported,
            message,
        ));
    }
    let identifier = match (query.get("identifier")?, address.identifier.as_deref()) {
        (Some(query), Some(path)) if query != path => {
            return Err(ApiError::invalid(
                "path and query name different identifiers",
            ));
        }
        (Some(name), _) | (None, Some(name)) => Some(name.parse()?),
        (None, None) => None,
    };
    let operation = match request.headers().get(OPERATION_ID) {
        Some(id) => id.to_str().unwrap_or_default().parse()?,
        None => OperationId::from_ulid(Ulid::new()),
    };
    let uri = Uri::try_from(&address.operation)
        .map_err(|_| ApiError::new(ErrorCode::PathNotFound, "the path is malformed"))?;
    *request.uri_mut() = uri;
    let caller = Caller {
        pool,
        query,
        identifier,
        operation: operation.clone(),
    };
    request.extensions_mut().insert(caller);
    Ok((request, operation))
}

/// Whether the path means the same in both contracts and is answered in another shape in each. A
/// client of the new one would read the old shape as an empty success.
fn in_both_contracts(path: &str) -> bool {
    let below = path.strip_prefix("/files/");
    path == "/files"
        || below.is_some_and(|name| name != "upload" && name != "uploadFile" && !name.contains('/'))
}

/// A path below a pool that means nothing here.
pub async fn unknown_operation(uri: Uri) -> ApiError {
    const NEWER: [&str; 6] = [
        "/executions",
        "/listSessions",
        "/metadata",
        "/mcp",
        "/.management/listSessions",
        "/.management/getSession",
    ];
    let path = uri.path();
    let content = path.starts_with("/files/") && path.ends_with("/content");
    if content || NEWER.iter().any(|newer| path.starts_with(newer)) {
        let message = "this operation is not supported by this server yet";
        return ApiError::new(ErrorCode::SessionRequestNotSupported, message);
    }
    ApiError::new(ErrorCode::PathNotFound, "there is no such operation")
}

/// A method that the path does not have.
pub async fn unknown_method() -> ApiError {
    ApiError::invalid("this path does not have this method")
}
