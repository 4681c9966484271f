//! The one place where failures become HTTP: every code of the contract with its status.

use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use proto::{
    fault::{Fault, FaultCode},
    file::PathError,
    id::IdError,
    trace::TraceContext,
};
use serde::Serialize;
use utoipa::ToSchema;

pub mod code;

pub use code::ErrorCode;

use routing::served::Served;

use crate::{
    bus::BusError,
    headers::{ERROR_CODE, Repeated, UNDERSTOOD},
    route::{RouteError, once::OnceError},
    service::ServiceError,
    trace,
};

impl ErrorCode {
    /// Whether another path might lead somewhere.
    #[must_use]
    pub fn is_about_the_path(self) -> bool {
        matches!(
            self,
            Self::FileNotFound | Self::SessionRequestValidationFailed
        )
    }

    /// Seconds after which trying again makes sense, where nothing better is known.
    #[must_use]
    pub fn retry_after(self) -> Option<u32> {
        match self {
            Self::SessionBusy | Self::ExecutionPending => Some(1),
            Self::NoCapacity | Self::BusUnavailable | Self::StorageUnavailable => Some(2),
            Self::ExecutionQueueFull => Some(5),
            Self::SessionPoolFull | Self::ExecutionRecordsFull | Self::PoolNotServed => Some(10),
            Self::BusLost => Some(30),
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
    /// Whether the code may have run, where that is known and not obvious.
    pub may_have_executed: Option<bool>,
    /// Seconds after which trying again makes sense, where that is known better than from the code.
    pub retry_after: Option<u32>,
}

impl ApiError {
    /// A failure with its words.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let ran = matches!(
            code,
            ErrorCode::ExecutionLost
                | ErrorCode::ExecutionPending
                | ErrorCode::FilesNotDurable
                | ErrorCode::TooManyFiles
                | ErrorCode::PathTooLong
        );
        Self {
            code,
            message: message.into(),
            may_have_executed: ran.then_some(true),
            retry_after: None,
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
            | IdError::RecordKey
            | IdError::BodyDigest
            | IdError::ClusterKey
            | IdError::Fingerprint => ErrorCode::SessionRequestValidationFailed,
        };
        Self::new(code, error.to_string())
    }
}

impl From<PathError> for ApiError {
    fn from(error: PathError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<Repeated> for ApiError {
    fn from(error: Repeated) -> Self {
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
            FaultCode::DiskFull | FaultCode::StoppedForDisk => ErrorCode::DiskFull,
            FaultCode::FileTooLarge => ErrorCode::RequestTooLarge,
            FaultCode::StorageUnavailable => ErrorCode::StorageUnavailable,
            FaultCode::FilesNotDurable => ErrorCode::FilesNotDurable,
            FaultCode::TooManyFiles => ErrorCode::TooManyFiles,
            FaultCode::PathTooLong => ErrorCode::PathTooLong,
            FaultCode::SandboxUnavailable => ErrorCode::SandboxUnavailable,
            FaultCode::Fenced | FaultCode::ExecutionLost => ErrorCode::ExecutionLost,
            FaultCode::OperationConflict => ErrorCode::OperationConflict,
            FaultCode::BusLost => ErrorCode::BusLost,
            FaultCode::RecordsFull => ErrorCode::ExecutionRecordsFull,
            FaultCode::Stopping => ErrorCode::SessionStopped,
            // `Refused` is a worker's word for "start it over".
            FaultCode::Busy | FaultCode::Expired | FaultCode::Refused => ErrorCode::NoCapacity,
            FaultCode::Unsupported => ErrorCode::SessionRequestNotSupported,
            FaultCode::NotOwner
            | FaultCode::LostRace
            | FaultCode::Internal
            | FaultCode::Unknown => ErrorCode::InternalError,
        };
        let stopped = fault.code == FaultCode::StoppedForDisk;
        let error = Self::new(code, fault.message);
        Self {
            may_have_executed: error.may_have_executed.or_else(|| stopped.then_some(true)),
            retry_after: fault.retry_after_s,
            ..error
        }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Route(error) => error.into(),
            ServiceError::Once(error) => error.into(),
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
            ServiceError::QueueFull => Self {
                may_have_executed: Some(false),
                ..Self::new(ErrorCode::ExecutionQueueFull, error.to_string())
            },
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
            RouteError::PoolNotServed(served) => {
                let message = match served {
                    Served::Differently => {
                        "the workers serve this pool with other settings than this ingress has"
                    }
                    Served::Same | Served::Nowhere | Served::Unknown => {
                        "no worker serves this pool"
                    }
                };
                Self::new(ErrorCode::PoolNotServed, message)
            }
            RouteError::OwnerSilent => {
                let message = "the session's worker does not answer; nothing was done";
                Self::new(ErrorCode::NoCapacity, message)
            }
            RouteError::Lost { .. } => Self::new(
                ErrorCode::ExecutionLost,
                "the session's worker was lost; the request may have had effects",
            ),
            // The service reads the session's log then.
            RouteError::Unowned(_) => Self::internal(&error),
            RouteError::Bus(BusError::Lost(_)) => Self::new(
                ErrorCode::BusLost,
                "the service lost the data that tells which sessions live; this request did nothing",
            ),
            RouteError::Bus(cause) => {
                tracing::error!(error = &cause as &dyn std::error::Error, "bus");
                Self::new(
                    ErrorCode::BusUnavailable,
                    "the service is not connected; this request did nothing",
                )
            }
            RouteError::Wire(_) => Self::internal(&error),
        }
    }
}

impl From<OnceError> for ApiError {
    fn from(error: OnceError) -> Self {
        match error {
            OnceError::Refused(error) => Self {
                may_have_executed: Some(false),
                ..error.into()
            },
            OnceError::Failed(fault) => Self {
                may_have_executed: Some(true),
                ..fault.into()
            },
            OnceError::Bus(error) => RouteError::Bus(error).into(),
            OnceError::Conflict => Self::new(ErrorCode::OperationConflict, error.to_string()),
            OnceError::Pending | OnceError::Queued(_) => {
                let message = "the execution has not ended yet, or its end is not known yet; \
                               ask again with the same operation-id";
                Self::new(ErrorCode::ExecutionPending, message)
            }
        }
    }
}

/// The body of a refusal.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct Body {
    error: Failure,
}

/// A failure as it is told inside an answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    code: ErrorCode,
    /// What happened, for people.
    message: String,
    /// The trace under which it is logged: 32 hexadecimal digits, the caller's own if it sent a
    /// `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    innererror: Option<InnerError>,
}

/// What more is known.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct InnerError {
    /// Whether the code may have run.
    may_have_executed: bool,
}

impl ApiError {
    /// The body that tells it, with the id of the trace under which it is logged.
    #[must_use]
    pub fn into_body(self, trace: TraceContext) -> Body {
        let trace_id = trace.trace_id();
        if self.code.status().is_server_error() {
            tracing::warn!(trace.id = trace_id, code = ?self.code, "{}", self.message);
        }
        Body {
            error: self.into_failure(Some(trace_id)),
        }
    }

    /// The failure as a part of an answer that is none itself.
    #[must_use]
    pub fn into_failure(self, trace_id: Option<String>) -> Failure {
        Failure {
            code: self.code,
            message: self.message,
            trace_id,
            innererror: self
                .may_have_executed
                .map(|may_have_executed| InnerError { may_have_executed }),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (code, retry_after) = (self.code, self.retry_after);
        let mut response = (code.status(), Json(self.into_body(trace::current()))).into_response();
        let headers = response.headers_mut();
        headers.insert(ERROR_CODE, HeaderValue::from_static(code.name()));
        if code == ErrorCode::UnsupportedContentEncoding {
            let understood = HeaderValue::from_static(UNDERSTOOD);
            headers.insert(header::ACCEPT_ENCODING, understood);
        }
        if code == ErrorCode::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after.or_else(|| code.retry_after()) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use proto::record::lost;

    use super::*;

    #[test]
    fn an_execution_with_a_record_is_told_by_name_whether_it_may_have_run() {
        let full = Fault::new(FaultCode::SessionPoolFull, "full");
        let stopped = Fault::new(FaultCode::Stopping, "stopped");
        let table = [
            (OnceError::Failed(lost()), 500, "ExecutionLost", Some(true)),
            (
                OnceError::Failed(stopped),
                409,
                "SessionStopped",
                Some(true),
            ),
            (OnceError::Pending, 504, "ExecutionPending", Some(true)),
            (OnceError::Conflict, 409, "OperationConflict", None),
            (
                OnceError::Refused(full.into()),
                429,
                "SessionPoolFull",
                Some(false),
            ),
            (
                OnceError::Refused(RouteError::OwnerSilent),
                503,
                "NoCapacity",
                Some(false),
            ),
        ];
        for (error, status, code, ran) in table {
            let error = ApiError::from(error);
            assert_eq!(error.code.status(), status, "{code}");
            assert_eq!(format!("{:?}", error.code), code);
            assert_eq!(error.may_have_executed, ran, "{code}");
        }
    }

    #[test]
    fn a_lost_execution_without_a_record_may_have_run() {
        let error = ApiError::from(RouteError::Lost { accepted: false });
        assert_eq!(error.code, ErrorCode::ExecutionLost);
        assert_eq!(error.may_have_executed, Some(true));
        let body = serde_json::to_value(InnerError {
            may_have_executed: true,
        });
        assert_eq!(
            body.unwrap(),
            serde_json::json!({ "mayHaveExecuted": true })
        );
    }
}
