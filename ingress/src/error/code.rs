//! The codes of failures: the one table of which HTTP status each has, what it means, whether a retry is
//! safe and which test provokes it. `ERRORS.md` is written from it.

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
        $code:ident: $status:ident, $retry:ident, $test:literal;
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

            /// The test that provokes it: file and function.
            #[must_use]
            pub fn test(self) -> &'static str {
                match self {
                    $(Self::$code => $test,)+
                }
            }
        }
    };
}

codes! {
    /// `code` or `shellCommand` is not where it is expected.
    SessionPropertiesMissing: BAD_REQUEST, Useless,
        "loadtest/tests/it/contract.rs::a_body_without_code_is_refused_by_name";
    /// Some part of the request is wrong; the message says which.
    SessionRequestValidationFailed: BAD_REQUEST, Useless,
        "loadtest/tests/it/contract.rs::versions_are_required_and_known";
    /// There is no such operation, or not in this api-version or this kind of pool.
    SessionRequestNotSupported: BAD_REQUEST, Useless,
        "loadtest/tests/it/shell.rs::what_no_shell_understands_is_refused_by_name";
    /// No session of this identifier is running.
    SessionWithIdentifierNotFound: BAD_REQUEST, Useless,
        "loadtest/tests/it/identifiers.rs::deleting_a_session_that_does_not_run_is_refused_by_name";
    /// The identifier is shorter than 4 or longer than 128 characters.
    InvalidLengthOfSessionIdentifier: BAD_REQUEST, Useless,
        "loadtest/tests/it/identifiers.rs::identifiers_have_4_to_128_characters";
    /// There is no token, or one that is not valid.
    Unauthorized: UNAUTHORIZED, Useless,
        "loadtest/tests/it/auth.rs::requests_without_a_bearer_token_are_refused_with_the_contracts_body";
    /// The token is valid and lacks the role that this service requires.
    Forbidden: FORBIDDEN, Useless,
        "loadtest/tests/it/auth.rs::a_good_token_without_the_required_role_is_forbidden";
    /// There is no pool at this address.
    SessionPoolNotFound: NOT_FOUND, Useless,
        "loadtest/tests/it/contract.rs::an_unknown_pool_is_not_found";
    /// The address names no session pool.
    PathNotFound: NOT_FOUND, Useless,
        "loadtest/tests/it/contract.rs::unknown_addresses_and_methods_are_refused_with_the_contracts_body";
    /// The session has no such file.
    FileNotFound: NOT_FOUND, Useless,
        "loadtest/tests/it/new_contract.rs::a_file_is_stored_told_sent_and_removed";
    /// The session has no record of such an execution.
    ExecutionNotFound: NOT_FOUND, Useless,
        "loadtest/tests/it/async_executions.rs::what_is_not_there_or_not_meant_is_refused_by_name";
    /// The body did not arrive in time.
    RequestTimeout: REQUEST_TIMEOUT, Safe,
        "loadtest/tests/it/errors.rs::a_body_that_does_not_arrive_is_not_waited_for";
    /// The session ended while the request waited or ran.
    SessionStopped: CONFLICT, Unsafe,
        "loadtest/tests/it/operations.rs::a_stopped_session_ends_what_runs_in_it_by_name_and_for_ever";
    /// The `operation-id` was used for another request of the session.
    OperationConflict: CONFLICT, Useless,
        "loadtest/tests/it/operations.rs::another_body_under_the_same_id_is_a_conflict";
    /// The upload, the code or the file is too long.
    RequestTooLarge: PAYLOAD_TOO_LARGE, Useless,
        "loadtest/tests/it/hostile_files.rs::a_file_of_holes_is_refused_instead_of_sent";
    /// The part of a file that was asked for is not in it.
    RangeNotSatisfiable: RANGE_NOT_SATISFIABLE, Useless,
        "loadtest/tests/it/new_contract.rs::a_part_of_a_file_is_sent";
    /// The pool's maximum of live sessions is reached.
    SessionPoolFull: TOO_MANY_REQUESTS, Safe,
        "loadtest/tests/it/operations.rs::a_result_outlives_its_session_and_needs_no_room_in_the_pool";
    /// Too many requests wait in the session.
    SessionBusy: TOO_MANY_REQUESTS, Safe,
        "loadtest/tests/it/operations.rs::a_busy_session_refuses_without_spending_the_id";
    /// Too many executions wait in the queue of the session or its pool.
    ExecutionQueueFull: TOO_MANY_REQUESTS, Safe,
        "loadtest/tests/it/async_executions.rs::a_session_with_too_many_waiting_executions_refuses_more";
    /// The worker was lost while it had the request; the code may have run and will not run again.
    ExecutionLost: INTERNAL_SERVER_ERROR, Unsafe,
        "loadtest/tests/it/failover.rs::a_call_whose_worker_is_killed_hears_so_and_finds_the_files_of_the_last_commit";
    /// The code ran to its end, but what it left in `/mnt/data` is not in the object store.
    FilesNotDurable: INTERNAL_SERVER_ERROR, Unsafe,
        "loadtest/tests/it/failover.rs::what_cannot_be_saved_is_said_and_nothing_runs_until_it_is";
    /// The session's sandbox could not be made or was lost.
    SandboxUnavailable: INTERNAL_SERVER_ERROR, Unsafe,
        "loadtest/tests/it/errors.rs::a_session_whose_sandbox_cannot_be_made_is_refused";
    /// Something failed that must not fail; the service's log has it under the answer's `traceId`.
    InternalError: INTERNAL_SERVER_ERROR, Unsafe,
        "loadtest/tests/it/fuzz.rs::whatever_is_asked_is_answered_as_described_and_never_fails";
    /// No worker has room for the session, or its worker does not answer yet.
    NoCapacity: SERVICE_UNAVAILABLE, Safe,
        "loadtest/tests/it/failover.rs::files_are_read_without_any_worker";
    /// No worker serves the pool, or none with the settings that this ingress has.
    PoolNotServed: SERVICE_UNAVAILABLE, Safe,
        "loadtest/tests/it/contradictions.rs::a_pool_that_no_worker_serves_has_an_error_of_its_own";
    /// The bus lost its data, and with it which sessions live; an operator has to act.
    BusLost: SERVICE_UNAVAILABLE, Safe,
        "loadtest/tests/it/bus_lost.rs::a_wiped_bus_is_noticed_and_nothing_is_served_or_swept_until_it_is_back";
    /// The service is not connected to its bus.
    BusUnavailable: SERVICE_UNAVAILABLE, Safe,
        "loadtest/tests/it/errors.rs::without_its_bus_the_service_says_so";
    /// The object store failed.
    StorageUnavailable: SERVICE_UNAVAILABLE, Safe,
        "loadtest/tests/it/failover.rs::what_cannot_be_saved_is_said_and_nothing_runs_until_it_is";
    /// The pool has no room for more records of executions: of those with an `operation-id`, or that nobody waits for.
    ExecutionRecordsFull: SERVICE_UNAVAILABLE, Safe,
        "loadtest/tests/it/records.rs::a_pool_that_fills_its_share_is_refused_truthfully_and_no_other_pool_is";
    /// The execution has not ended, or its end is not known yet.
    ExecutionPending: GATEWAY_TIMEOUT, SameId,
        "loadtest/tests/it/operations.rs::a_caller_whose_time_is_over_asks_again_and_gets_the_result";
    /// `/mnt/data` is full; or the disk of the session's worker is, and the session, which took much of
    /// it, was stopped without saving what the code wrote: then the body says that it may have run.
    DiskFull: INSUFFICIENT_STORAGE, Unsafe,
        "loadtest/tests/it/disk.rs::a_session_that_fills_the_disk_is_stopped_by_name_and_its_neighbour_goes_on";
    /// It was done, but nothing in `/mnt/data` is saved from now on: it holds more than 100,000 files,
    /// directories and links, or 32 MiB of their paths, or files in more than 400,000 pieces. Code may
    /// run, and what it leaves is saved again once there is less.
    TooManyFiles: INSUFFICIENT_STORAGE, Unsafe,
        "loadtest/tests/it/unkept_files.rs::code_makes_room_where_there_are_too_many_files";
    /// It was done, but nothing in `/mnt/data` is saved from now on: a path in it is longer than 4,096
    /// bytes. Code may run, and what it leaves is saved again once there is none.
    PathTooLong: INSUFFICIENT_STORAGE, Unsafe,
        "loadtest/tests/it/unkept_files.rs::code_makes_room_where_a_path_is_too_long";
}
