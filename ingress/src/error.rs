//! The one place where failures become HTTP: every code of the contract with its status.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use proto::{
    fault::{Fault, FaultCode},
    file::PathError,
    id::IdError,
};
use serde::Serialize;
use ulid::Ulid;

use crate::{route::RouteError, service::ServiceError};

/// Name of the header that repeats the code.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// The closed set of codes that a caller can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ErrorCode {
    /// `code` is not where it is expected.
    SessionPropertiesMissing,
    /// Some part of the request is wrong; the message says which.
    SessionRequestValidationFailed,
    /// The path or method is not of this api-version or pool.
    SessionRequestNotSupported,
    /// The session is not running.
    SessionWithIdentifierNotFound,
    /// The identifier is shorter than 4 or longer than 128 characters.
    InvalidLengthOfSessionIdentifier,
    /// No token, or one that is not valid.
    Unauthorized,
    /// A valid token without the right.
    Forbidden,
    /// No such pool.
    SessionPoolNotFound,
    /// No such path.
    PathNotFound,
    /// No such file.
    FileNotFound,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The upload, the code or the file is too long.
    RequestTooLarge,
    /// The session ended while the request waited or ran.
    SessionStopped,
    /// The pool's maximum of live sessions is reached.
    SessionPoolFull,
    /// Too many requests wait in the session.
    SessionBusy,
    /// `/mnt/data` is full.
    DiskFull,
    /// No worker has room.
    NoCapacity,
    /// No connection to the bus.
    BusUnavailable,
    /// The object store failed.
    StorageUnavailable,
    /// The work was done, but its files are not in the object store.
    FilesNotDurable,
    /// The part of a file that was asked for is not there.
    RangeNotSatisfiable,
    /// The sandbox could not be made or kept.
    SandboxUnavailable,
    /// The worker was lost; the code may have run.
    ExecutionLost,
    /// Anything else.
    InternalError,
}

impl ErrorCode {
    /// The HTTP status of the code.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::SessionPropertiesMissing
            | Self::SessionRequestValidationFailed
            | Self::SessionRequestNotSupported
            | Self::SessionWithIdentifierNotFound
            | Self::InvalidLengthOfSessionIdentifier => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::SessionPoolNotFound | Self::PathNotFound | Self::FileNotFound => {
                StatusCode::NOT_FOUND
            }
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::SessionStopped => StatusCode::CONFLICT,
            Self::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SessionPoolFull | Self::SessionBusy => StatusCode::TOO_MANY_REQUESTS,
            Self::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            Self::NoCapacity | Self::BusUnavailable | Self::StorageUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            // Not 502, 503 or 504: clients repeat those by themselves, and the code may have run.
            Self::SandboxUnavailable
            | Self::ExecutionLost
            | Self::FilesNotDurable
            | Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        }
    }

    /// Whether another path might lead somewhere.
    #[must_use]
    pub fn is_about_the_path(self) -> bool {
        matches!(
            self,
            Self::FileNotFound | Self::SessionRequestValidationFailed
        )
    }

    /// Seconds after which trying again makes sense.
    fn retry_after(self) -> Option<u32> {
        match self {
            Self::SessionBusy => Some(1),
            Self::NoCapacity | Self::BusUnavailable | Self::StorageUnavailable => Some(2),
            Self::SessionPoolFull => Some(10),
            _ => None,
        }
    }
}

/// A failure on its way to the caller.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Its name.
    pub code: ErrorCode,
    /// What happened, for people; safe to show.
    pub message: String,
}

impl ApiError {
    /// A failure with its words.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A wrong part of the request.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::SessionRequestValidationFailed, message)
    }

    /// No or no valid token. The reason is for the caller and never holds the token.
    #[must_use]
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unauthorized, message)
    }

    /// A failure whose cause is logged here and not shown.
    #[must_use]
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = cause, "request failed");
        Self::new(
            ErrorCode::InternalError,
            "the request failed for a reason inside the service",
        )
    }
}

impl From<IdError> for ApiError {
    fn from(error: IdError) -> Self {
        let code = match error {
            IdError::IdentifierLength(_) => ErrorCode::InvalidLengthOfSessionIdentifier,
            IdError::IdentifierCharacter
            | IdError::Operation
            | IdError::PoolName
            | IdError::Worker
            | IdError::Ulid
            | IdError::SessionKey
            | IdError::ClusterKey => ErrorCode::SessionRequestValidationFailed,
        };
        Self::new(code, error.to_string())
    }
}

impl From<PathError> for ApiError {
    fn from(error: PathError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        let code = match fault.code {
            FaultCode::SessionPoolFull => ErrorCode::SessionPoolFull,
            FaultCode::SessionBusy => ErrorCode::SessionBusy,
            FaultCode::FileNotFound => ErrorCode::FileNotFound,
            FaultCode::WrongFileType | FaultCode::InvalidPath => {
                ErrorCode::SessionRequestValidationFailed
            }
            FaultCode::DiskFull => ErrorCode::DiskFull,
            FaultCode::FileTooLarge => ErrorCode::RequestTooLarge,
            FaultCode::StorageUnavailable => ErrorCode::StorageUnavailable,
            FaultCode::FilesNotDurable => ErrorCode::FilesNotDurable,
            FaultCode::SandboxUnavailable => ErrorCode::SandboxUnavailable,
            FaultCode::Fenced => ErrorCode::ExecutionLost,
            FaultCode::Stopping => ErrorCode::SessionStopped,
            FaultCode::Busy | FaultCode::Expired => ErrorCode::NoCapacity,
            FaultCode::Unsupported => ErrorCode::SessionRequestNotSupported,
            FaultCode::NotOwner
            | FaultCode::LostRace
            | FaultCode::Internal
            | FaultCode::Unknown => ErrorCode::InternalError,
        };
        Self::new(code, fault.message)
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Route(error) => error.into(),
            ServiceError::Store(cause) => {
                tracing::error!(error = &cause as &dyn std::error::Error, "object store");
                Self::new(
                    ErrorCode::StorageUnavailable,
                    "the object store did not answer",
                )
            }
            ServiceError::Outcome(cause) => {
                tracing::error!(error = &cause as &dyn std::error::Error, "object store");
                let message = "the code ran, but its result could not be fetched";
                Self::new(ErrorCode::ExecutionLost, message)
            }
            ServiceError::Log(cause) => {
                tracing::error!(error = &*cause, "session log");
                let message = "the session's files could not be read";
                Self::new(ErrorCode::StorageUnavailable, message)
            }
            ServiceError::Answer | ServiceError::Wire(_) => Self::internal(&error),
        }
    }
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::Fault(fault) => fault.into(),
            RouteError::NoCapacity => Self::new(
                ErrorCode::NoCapacity,
                "no worker has room for a new session",
            ),
            RouteError::OwnerSilent => {
                let message = "the session's worker does not answer; nothing was done";
                Self::new(ErrorCode::NoCapacity, message)
            }
            RouteError::Lost => Self::new(
                ErrorCode::ExecutionLost,
                "the session's worker was lost; the request may have had effects",
            ),
            // The service reads the session's log then.
            RouteError::Unowned(_) => Self::internal(&error),
            RouteError::Bus(cause) => {
                tracing::error!(error = &cause as &dyn std::error::Error, "bus");
                Self::new(
                    ErrorCode::BusUnavailable,
                    "the service is not connected; nothing ran",
                )
            }
            RouteError::Wire(_) => Self::internal(&error),
        }
    }
}

#[derive(Serialize)]
struct Body {
    error: BodyError,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BodyError {
    code: ErrorCode,
    message: String,
    trace_id: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let trace_id = Ulid::new().to_string();
        if status.is_server_error() {
            tracing::warn!(trace.id = %trace_id, code = ?self.code, "{}", self.message);
        }
        let mut name = format!("{:?}", self.code);
        name.retain(|character| character.is_ascii_alphanumeric());
        let error = BodyError {
            code: self.code,
            message: self.message,
            trace_id,
        };
        let mut response = (status, Json(Body { error })).into_response();
        let headers = response.headers_mut();
        if let Ok(name) = HeaderValue::from_str(&name) {
            headers.insert(ERROR_CODE, name);
        }
        if self.code == ErrorCode::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.code.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
