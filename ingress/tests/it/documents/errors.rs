//! `ERRORS.md`, written from the code.

use ingress::error::ErrorCode;

use super::{endings, provoked};

/// `Retry-After` of a pool whose share of the records is full.
const UNTIL_ROOM: &str = "until records of the pool are old enough to go: up to 24 h";

/// The page.
pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    let codes = ErrorCode::ALL.iter().map(|code| {
        [
            code.status().as_u16().to_string(),
            format!("`{}`", code.name()),
            code.meaning().to_owned(),
            code.retry().words().to_owned(),
            match (code, code.retry_after()) {
                (ErrorCode::ExecutionRecordsFull, _) => UNTIL_ROOM.to_owned(),
                (_, Some(seconds)) => format!("{seconds} s"),
                (_, None) => String::new(),
            },
            test(provoked::of_code(*code)),
        ]
    });
    let mut codes: Vec<_> = codes.collect();
    codes.sort_by(|one, other| one[0].cmp(&other[0]));
    let head = [
        "HTTP",
        "code",
        "meaning",
        "sending it again",
        "`Retry-After`",
        "test",
    ];
    table(&mut page, head, codes);
    page.push_str(ENDINGS);
    let endings = endings::rows().into_iter().map(|row| {
        [
            row.name.to_owned(),
            row.meaning.to_owned(),
            row.session.to_owned(),
            test(provoked::of_ending(row.name)),
        ]
    });
    let head = ["name", "meaning", "the session afterwards", "test"];
    table(&mut page, head, endings);
    page
}

fn table<const N: usize>(
    page: &mut String,
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) {
    let mut line = |cells: &[String]| {
        page.push_str(&format!("| {} |\n", cells.join(" | ")));
    };
    line(&head.map(str::to_owned));
    line(&head.map(|_| "---".to_owned()));
    for row in rows {
        line(&row);
    }
}

fn test(place: &str) -> String {
    let (file, name) = place.split_once("::").unwrap_or(("", place));
    format!("[`{name}`](../{file})")
}

const HEAD: &str = "\
# Errors

Written from `ingress/src/error/` by `make documents`; a test fails when they differ.

## Requests that fail

The code stands in the body, `{\"error\":{\"code\":\"…\",\"message\":\"…\",\"traceId\":\"…\"}}`, and in the header
`x-ms-error-code`. Where the body says `\"innererror\":{\"mayHaveExecuted\":false}`, nothing was done, whatever
the table says in general; with `true` the code may have run. The test is one that provokes the code, or, where
nothing must, one that tries to.

";

const ENDINGS: &str = "
## Code that fails

These are answered with HTTP 200. The execution's status is `Failure` in the old contract, `Failed` in the new
one and the exit status in a Shell pool; the reason stands at the end of `stderr`. Whether to run the code
again is for its author to say.

";
