//! The codes of failures: the one table of which HTTP status each has, what it means and whether a retry
//! is safe. `ERRORS.md` is written from it, and from the tests that provoke them, by `ingress/tests/it/documents/`.

use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

/// Whether a request that failed may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing was done, and the same request will fail in the same way.
    Useless,
    /// Nothing was done; later it may succeed.
    Safe,
    /// It is safe with the same `operation-id`.
    SameId,
    /// Something may have been done.
    Unsafe,
}

impl Retry {
    /// For the table.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Useless => "no use: nothing was done, and it would fail again",
            Self::Safe => "safe: nothing was done",
            Self::SameId => "safe with the same `operation-id`",
            Self::Unsafe => "not safe: it may have been done",
        }
    }
}

/// Makes the codes. A code without its row is no code.
macro_rules! codes {
    ($(
        $(#[doc = $meaning:literal])+
        $code:ident: $status:ident, $retry:ident;
    )+) => {
        /// The closed set of codes that a caller can meet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
        pub enum ErrorCode {
            $($(#[doc = $meaning])+ $code,)+
        }

        impl ErrorCode {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$code),+];

            /// As it is written.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$code => stringify!($code),)+
                }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$code => concat!($($meaning),+).trim_ascii_start(),)+
                }
            }

            /// Its HTTP status.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self {
                    $(Self::$code => StatusCode::$status,)+
                }
            }

            /// Whether the request may be sent again.
            #[must_use]
            pub fn retry(self) -> Retry {
                match self {
                    $(Self::$code => Retry::$retry,)+
                }
            }
        }
    };
}

codes! {
    /// `code` or `shellCommand` is not where it is expected.
    SessionPropertiesMissing: BAD_REQUEST, Useless;
    /// Some part of the request is wrong; the message says which.
    SessionRequestValidationFailed: BAD_REQUEST, Useless;
    /// There is no such operation, or not in this api-version or this kind of pool.
    SessionRequestNotSupported: BAD_REQUEST, Useless;
    /// No session of this identifier is running.
    SessionWithIdentifierNotFound: BAD_REQUEST, Useless;
    /// The identifier is shorter than 4 or longer than 128 characters.
    InvalidLengthOfSessionIdentifier: BAD_REQUEST, Useless;
    /// There is no token, or one that is not valid.
    Unauthorized: UNAUTHORIZED, Useless;
    /// The token is valid and lacks the role that this service requires.
    Forbidden: FORBIDDEN, Useless;
    /// There is no pool at this address.
    SessionPoolNotFound: NOT_FOUND, Useless;
    /// The address names no session pool.
    PathNotFound: NOT_FOUND, Useless;
    /// The session has no such file.
    FileNotFound: NOT_FOUND, Useless;
    /// The session has no record of such an execution.
    ExecutionNotFound: NOT_FOUND, Useless;
    /// The body did not arrive in time.
    RequestTimeout: REQUEST_TIMEOUT, Safe;
    /// The session ended while the request waited or ran.
    SessionStopped: CONFLICT, Unsafe;
    /// The `operation-id` was used for another request of the session.
    OperationConflict: CONFLICT, Useless;
    /// The upload, the code or the file is too long.
    RequestTooLarge: PAYLOAD_TOO_LARGE, Useless;
    /// The body is packed in a way (`Content-Encoding`) that is not understood.
    UnsupportedContentEncoding: UNSUPPORTED_MEDIA_TYPE, Useless;
    /// The part of a file that was asked for is not in it.
    RangeNotSatisfiable: RANGE_NOT_SATISFIABLE, Useless;
    /// The pool's maximum of live sessions is reached.
    SessionPoolFull: TOO_MANY_REQUESTS, Safe;
    /// Too many requests wait in the session.
    SessionBusy: TOO_MANY_REQUESTS, Safe;
    /// Too many executions wait in the queue of the session or its pool.
    ExecutionQueueFull: TOO_MANY_REQUESTS, Safe;
    /// The worker was lost while it had the request; the code may have run and will not run again.
    ExecutionLost: INTERNAL_SERVER_ERROR, Unsafe;
    /// The code ran to its end, but what it left in `/mnt/data` is not in the object store.
    FilesNotDurable: INTERNAL_SERVER_ERROR, Unsafe;
    /// The session's sandbox could not be made or was lost.
    SandboxUnavailable: INTERNAL_SERVER_ERROR, Unsafe;
    /// Something failed that must not fail; the service's log has it under the answer's `traceId`.
    InternalError: INTERNAL_SERVER_ERROR, Unsafe;
    /// No worker has room for the session, or its worker does not answer yet.
    NoCapacity: SERVICE_UNAVAILABLE, Safe;
    /// No worker serves the pool, or none with the settings that this ingress has.
    PoolNotServed: SERVICE_UNAVAILABLE, Safe;
    /// The bus lost its data, and with it which sessions live; an operator has to act.
    BusLost: SERVICE_UNAVAILABLE, Safe;
    /// The service is not connected to its bus.
    BusUnavailable: SERVICE_UNAVAILABLE, Safe;
    /// The object store failed.
    StorageUnavailable: SERVICE_UNAVAILABLE, Safe;
    /// The pool has no room for more records of executions: of those with an `operation-id`, and of asynchronous ones.
    ExecutionRecordsFull: SERVICE_UNAVAILABLE, Safe;
    /// The execution has not ended, or its end is not known yet.
    ExecutionPending: GATEWAY_TIMEOUT, SameId;
    /// The session's disk is full, which `/mnt/data` and `~/.local` share; or the disk of the session's worker is,
    /// and the session, which took much of it, was stopped without saving what the code wrote: then the body says
    /// that it may have run.
    DiskFull: INSUFFICIENT_STORAGE, Unsafe;
    /// It was done, but nothing in `/mnt/data` is saved from now on: it holds more than 100,000 files,
    /// directories and links, or 32 MiB of their paths, or files in more than 400,000 pieces. Code may
    /// run, and what it leaves is saved again once there is less.
    TooManyFiles: INSUFFICIENT_STORAGE, Unsafe;
    /// It was done, but nothing in `/mnt/data` is saved from now on: a path in it is longer than 4,096
    /// bytes. Code may run, and what it leaves is saved again once there is none.
    PathTooLong: INSUFFICIENT_STORAGE, Unsafe;
}
