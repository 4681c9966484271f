//! Which test provokes each error and each ending: file and function.

use ingress::error::ErrorCode;

#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn of_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::SessionPropertiesMissing => {
            "loadtest/tests/it/contract.rs::a_body_without_code_is_refused_by_name"
        }
        ErrorCode::SessionRequestValidationFailed => {
            "loadtest/tests/it/contract.rs::versions_are_required_and_known"
        }
        ErrorCode::SessionRequestNotSupported => {
            "loadtest/tests/it/shell.rs::what_no_shell_understands_is_refused_by_name"
        }
        ErrorCode::SessionWithIdentifierNotFound => {
            "loadtest/tests/it/identifiers.rs::deleting_a_session_that_does_not_run_is_refused_by_name"
        }
        ErrorCode::InvalidLengthOfSessionIdentifier => {
            "loadtest/tests/it/identifiers.rs::identifiers_have_4_to_128_characters"
        }
        ErrorCode::Unauthorized => {
            "loadtest/tests/it/auth.rs::requests_without_a_bearer_token_are_refused_with_the_contracts_body"
        }
        ErrorCode::Forbidden => {
            "loadtest/tests/it/auth.rs::a_good_token_without_the_required_role_is_forbidden"
        }
        ErrorCode::SessionPoolNotFound => {
            "loadtest/tests/it/contract.rs::an_unknown_pool_is_not_found"
        }
        ErrorCode::PathNotFound => {
            "loadtest/tests/it/contract.rs::unknown_addresses_and_methods_are_refused_with_the_contracts_body"
        }
        ErrorCode::FileNotFound => {
            "loadtest/tests/it/new_contract.rs::a_file_is_stored_told_sent_and_removed"
        }
        ErrorCode::ExecutionNotFound => {
            "loadtest/tests/it/async_executions.rs::what_is_not_there_or_not_meant_is_refused_by_name"
        }
        ErrorCode::RequestTimeout => {
            "loadtest/tests/it/errors.rs::a_body_that_does_not_arrive_is_not_waited_for"
        }
        ErrorCode::SessionStopped => {
            "loadtest/tests/it/operations.rs::a_stopped_session_ends_what_runs_in_it_by_name_and_for_ever"
        }
        ErrorCode::OperationConflict => {
            "loadtest/tests/it/operations.rs::another_body_under_the_same_id_is_a_conflict"
        }
        ErrorCode::RequestTooLarge => {
            "loadtest/tests/it/hostile_files.rs::a_file_of_holes_is_refused_instead_of_sent"
        }
        ErrorCode::UnsupportedContentEncoding => {
            "loadtest/tests/it/bodies.rs::a_body_that_is_packed_otherwise_is_refused_by_name"
        }
        ErrorCode::RangeNotSatisfiable => {
            "loadtest/tests/it/new_contract.rs::a_part_of_a_file_is_sent"
        }
        ErrorCode::SessionPoolFull => {
            "loadtest/tests/it/operations.rs::a_result_outlives_its_session_and_needs_no_room_in_the_pool"
        }
        ErrorCode::SessionBusy => {
            "loadtest/tests/it/operations.rs::a_busy_session_refuses_without_spending_the_id"
        }
        ErrorCode::ExecutionQueueFull => {
            "loadtest/tests/it/async_executions.rs::a_session_with_too_many_waiting_executions_refuses_more"
        }
        ErrorCode::ExecutionLost => {
            "loadtest/tests/it/failover.rs::a_call_whose_worker_is_killed_hears_so_and_finds_the_files_of_the_last_commit"
        }
        ErrorCode::FilesNotDurable => {
            "loadtest/tests/it/failover.rs::what_cannot_be_saved_is_said_and_nothing_runs_until_it_is"
        }
        ErrorCode::SandboxUnavailable => {
            "loadtest/tests/it/errors.rs::a_session_whose_sandbox_cannot_be_made_is_refused"
        }
        ErrorCode::InternalError => {
            "loadtest/tests/it/fuzz.rs::whatever_is_asked_is_answered_as_described_and_never_fails"
        }
        ErrorCode::NoCapacity => "loadtest/tests/it/failover.rs::files_are_read_without_any_worker",
        ErrorCode::PoolNotServed => {
            "loadtest/tests/it/contradictions.rs::a_pool_that_no_worker_serves_has_an_error_of_its_own"
        }
        ErrorCode::BusLost => {
            "loadtest/tests/it/bus_lost.rs::a_wiped_bus_is_noticed_and_nothing_is_served_or_swept_until_it_is_back"
        }
        ErrorCode::BusUnavailable => {
            "loadtest/tests/it/errors.rs::without_its_bus_the_service_says_so"
        }
        ErrorCode::StorageUnavailable => {
            "loadtest/tests/it/failover.rs::what_cannot_be_saved_is_said_and_nothing_runs_until_it_is"
        }
        ErrorCode::ExecutionRecordsFull => {
            "loadtest/tests/it/records.rs::a_pool_that_fills_its_share_is_refused_truthfully_and_no_other_pool_is"
        }
        ErrorCode::ExecutionPending => {
            "loadtest/tests/it/operations.rs::a_caller_whose_time_is_over_asks_again_and_gets_the_result"
        }
        ErrorCode::DiskFull => {
            "loadtest/tests/it/disk.rs::a_session_that_fills_the_disk_is_stopped_by_name_and_its_neighbour_goes_on"
        }
        ErrorCode::TooManyFiles => {
            "loadtest/tests/it/unkept_files.rs::code_makes_room_where_there_are_too_many_files"
        }
        ErrorCode::PathTooLong => {
            "loadtest/tests/it/unkept_files.rs::code_makes_room_where_a_path_is_too_long"
        }
    }
}

/// By the name of its row in [`super::endings`].
pub(super) fn of_ending(name: &str) -> &'static str {
    match name {
        "Exited" => {
            "loadtest/tests/it/shell.rs::a_command_is_answered_with_its_exit_status_as_text"
        }
        "Raised" => {
            "loadtest/tests/it/execute.rs::a_traceback_names_the_callers_line_without_colours"
        }
        "Timeout" => {
            "loadtest/tests/it/hostile_code.rs::an_endless_loop_is_interrupted_and_variables_are_kept"
        }
        "OutOfMemory" => {
            "loadtest/tests/it/hostile_code.rs::a_memory_bomb_is_aborted_and_the_session_goes_on_with_its_files"
        }
        "KernelCrashed" => {
            "loadtest/tests/it/hostile_code.rs::a_process_that_ends_is_aborted_and_the_session_goes_on_with_its_files"
        }
        "Cancelled" => {
            "loadtest/tests/it/async_executions.rs::what_waits_is_told_so_and_can_be_cancelled_like_what_runs"
        }
        "ProcessLimit" => {
            "loadtest/tests/it/hostile_code.rs::the_limit_of_processes_is_an_error_that_code_can_catch"
        }
        "DiskFull" => {
            "loadtest/tests/it/hostile_code.rs::a_full_data_directory_is_named_to_code_and_to_callers"
        }
        unnamed => panic!("no test is named for {unnamed}"),
    }
}
