//! What is kept of what a kernel says, whatever it says. A kernel keeps to the same bounds, but code in
//! the sandbox can write to its socket.
//!
//! | a frame carries | bound | beyond it |
//! |---|---|---|
//! | its length | `KERNEL_FRAME_BYTES`, `KERNEL_CELL_BYTES` of one request | the kernel is broken |
//! | fields, ids, a status | those of [`super::frame`], the id of the request | the kernel is broken |
//! | mime types | `MIME_TYPES` of `MIME_TYPE_BYTES` | the kernel is broken |
//! | text of an output | `OUTPUT_TEXT_BYTES` | cut, counted in `truncated` |
//! | display outputs | `DISPLAYS`, `DISPLAY_BYTES` | dropped but for the last ones, counted in `truncated` |
//! | an exception's name and text | `ERROR_NAME_BYTES`, `ERROR_MESSAGE_BYTES` | cut |
//! | its traceback | half of the pool's `output_bytes`, with stderr all of it | cut, counted in `truncated` |
//! | variables and names of lost ones | `SNAPSHOT_BYTES`, `LOST_NAMES` of `LOST_NAME_CHARS` | the kernel is broken |

use proto::{
    execution::Bundle,
    limits::{ERROR_MESSAGE_BYTES, ERROR_NAME_BYTES, OUTPUT_TEXT_BYTES},
};

use super::frame::Raised;

/// Forms that are of no use if they are cut.
const WHOLE: &str = "image/";
/// What stands at the end of a text that was cut.
const CUT: &str = "\n[cut: longer than 4 MiB]";
const _: () = assert!(OUTPUT_TEXT_BYTES == 4 << 20);

/// Cuts the texts of an output; says whether there was anything to cut.
pub(super) fn cut_texts(bundle: &mut Bundle) -> bool {
    let mut cut = false;
    for (mime, content) in &mut bundle.0 {
        if content.len() > OUTPUT_TEXT_BYTES && !mime.starts_with(WHOLE) {
            content.truncate(content.floor_char_boundary(OUTPUT_TEXT_BYTES));
            content.push_str(CUT);
            cut = true;
        }
    }
    cut
}

/// Cuts an exception whose cell may print `output_bytes`; says how many bytes of its traceback are gone.
/// Why code failed stands at the end of a traceback, so its beginning goes.
pub(super) fn cut_error(error: &mut Raised, output_bytes: u64) -> u64 {
    let Raised {
        name,
        message,
        traceback,
    } = error;
    name.truncate(name.floor_char_boundary(ERROR_NAME_BYTES));
    message.truncate(message.floor_char_boundary(ERROR_MESSAGE_BYTES));
    let most = usize::try_from(output_bytes / 2).unwrap_or(usize::MAX);
    let gone = traceback.ceil_char_boundary(traceback.len().saturating_sub(most));
    if gone > 0 {
        let notice = format!("[traceback cut: {gone} bytes before its last {most}]\n");
        traceback.replace_range(..gone, &notice);
    }
    gone as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        let long = "ž".repeat(OUTPUT_TEXT_BYTES);
        let of = |mime: &str, content: String| Bundle(vec![(mime.to_owned(), content)]);
        let mut text = of("text/plain", format!("x{long}"));
        assert!(cut_texts(&mut text));
        let content = text.get("text/plain").unwrap();
        assert_eq!(content.len(), OUTPUT_TEXT_BYTES - 1 + CUT.len());
        assert!(content.ends_with("ž\n[cut: longer than 4 MiB]"));
        let mut whole = of("text/html", "x".repeat(OUTPUT_TEXT_BYTES));
        assert!(!cut_texts(&mut whole));
        for mime in ["image/png", "image/jpeg", "image/gif", "image/svg+xml"] {
            assert!(!cut_texts(&mut of(mime, long.clone())), "{mime}");
        }
    }

    #[test]
    fn the_end_of_a_traceback_is_kept() {
        let raised = |traceback: &str| Raised {
            name: "N".repeat(ERROR_NAME_BYTES + 1),
            message: "ž".repeat(ERROR_MESSAGE_BYTES),
            traceback: traceback.to_owned(),
        };
        let mut error = raised("žžž end");
        assert_eq!(cut_error(&mut error, 10), 6);
        let expected = "[traceback cut: 6 bytes before its last 5]\n end";
        assert_eq!(error.traceback, expected);
        assert_eq!(error.name.len(), ERROR_NAME_BYTES);
        assert_eq!(error.message.len(), ERROR_MESSAGE_BYTES);
        let mut short = raised("žžž end");
        assert_eq!(cut_error(&mut short, 20), 0);
        assert_eq!(short.traceback, "žžž end");
    }
}
