//! Parameters that several operations have. `api-version` is in none of these: every operation has it, and it is
//! added where the documents are put together.

use utoipa::IntoParams;

/// Of whatever is about a session.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct InSession {
    /// Names the session. Any printable ASCII characters but spaces. Who uses a new one makes a session,
    /// except where sessions themselves are asked for.
    #[param(
        min_length = 4,
        max_length = 128,
        pattern = "^[!-~]{4,128}$",
        example = "user-1"
    )]
    pub identifier: String,
}

/// Of a request that may name the session in its body instead.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PerhapsInSession {
    /// Names the session, unless the body does.
    #[param(
        nullable = false,
        min_length = 4,
        max_length = 128,
        pattern = "^[!-~]{4,128}$",
        example = "user-1"
    )]
    pub identifier: Option<String>,
}

/// Of a request whose caller may name it.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct Named {
    /// Names the execution, uniquely in its session. The request may then be sent again: it is answered
    /// with the result of the one execution.
    #[param(
        rename = "operation-id",
        nullable = false,
        min_length = 1,
        max_length = 128,
        pattern = "^[!-~]([ -~]{0,126}[!-~])?$"
    )]
    pub operation_id: Option<String>,
}

/// Of an execution that has a record.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfExecution {
    /// Its `operation-id`, or the `id` of the answer to its request.
    #[param(min_length = 1, max_length = 128, pattern = "^[ -~]{1,128}$")]
    pub id: String,
}

/// Of a file.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfFile {
    /// The file's name below the directory, `/` as `%2F`. Parts are at most 255 bytes long and not `.` or
    /// `..`.
    #[param(
        min_length = 1,
        max_length = 1024,
        example = "table.csv",
        pattern = "^(/mnt/data/+)?(?!\\.{1,2}(/|$))[^/\\x00-\\x1f\\x7f-\\x9f]{1,255}(/(?!\\.{1,2}(/|$))[^/\\x00-\\x1f\\x7f-\\x9f]{1,255})*$"
    )]
    pub name: String,
}

/// Of whatever is in a directory.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct InDirectory {
    /// The directory, relative to `/mnt/data` or with it in front; `/mnt/data` itself if there is none.
    #[param(
        nullable = false,
        max_length = 1024,
        example = "sub/dir",
        pattern = "^/*((?!\\.{1,2}(/|$))[^/\\x00-\\x1f\\x7f-\\x9f]{1,255}(/(?!\\.{1,2}(/|$))[^/\\x00-\\x1f\\x7f-\\x9f]{1,255})*)?/*$"
    )]
    pub path: Option<String>,
}

/// Of a listing of files.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Recursive {
    /// Whether everything below the directory is listed; of 2025-10-02-preview.
    #[param(nullable = false)]
    pub recursive: Option<bool>,
}

/// Of a file that the query names.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ByName {
    /// The file's name.
    #[param(
        min_length = 1,
        max_length = 1024,
        example = "table.csv",
        pattern = "^(/mnt/data/+)?(?!\\.{1,2}(/|$))[^/\\x00-\\x1f\\x7f-\\x9f]{1,255}(/(?!\\.{1,2}(/|$))[^/\\x00-\\x1f\\x7f-\\x9f]{1,255})*$"
    )]
    pub filename: String,
}

/// Of a download.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct OfBytes {
    /// One range of bytes. Several, other units and conditions are answered with the whole file.
    #[param(rename = "Range", nullable = false, example = "bytes=0-1023")]
    pub range: Option<String>,
}

/// Of a listing that has pages.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paged {
    /// How many entries are left out at the start.
    #[param(nullable = false, minimum = 0)]
    pub skip: Option<i64>,
}
