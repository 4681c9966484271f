//! The one line that a process says when it cannot go on.

use crate::remedy::{self, Known};

/// A failure in one line: what failed, every cause behind it, and what to do about it, of what all processes
/// know and of what this program alone knows.
#[must_use]
pub fn line(program: &str, error: &anyhow::Error, own: &[Known]) -> String {
    let cause = one_line(&causes(error.as_ref()));
    match remedy::of(error, own) {
        Some(remedy) => format!("{program}: {cause}; {}", remedy.text()),
        None => format!("{program}: {cause}"),
    }
}

/// An error and everything behind it. What one cause repeats of the one before is said once.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// Text without line breaks: those of a cause that draws pictures, such as a TOML error, become blanks.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The line, from 1, that this byte of a text is in.
#[must_use]
pub fn line_of(text: &str, byte: usize) -> usize {
    let before = text.bytes().take(byte);
    before.filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{remedy::Remedy, settings::PoolsError};

    #[test]
    fn a_cause_that_says_the_same_again_is_left_out() {
        let refused = std::io::Error::other("refused");
        let error = anyhow::Error::new(refused).context("no bus: refused");
        assert_eq!(causes(error.as_ref()), "no bus: refused");
        let error = error.context("start");
        assert_eq!(causes(error.as_ref()), "start: no bus: refused");
    }

    #[test]
    fn lines_count_from_one() {
        let text = "a\nb\nc";
        let lines: Vec<_> = [0, 1, 2, 4, 99].map(|byte| line_of(text, byte)).into();
        assert_eq!(lines, [1, 1, 2, 3, 3]);
    }

    #[test]
    fn a_failure_is_one_line_whatever_its_causes_look_like() {
        let cause = anyhow::anyhow!("line 1\n  |\n1 | x\n  | ^\n").context("pools.toml");
        assert_eq!(
            line("worker", &cause, &[]),
            "worker: pools.toml: line 1 | 1 | x | ^"
        );
    }

    #[test]
    fn what_to_do_about_it_stands_behind_the_cause() {
        let error = PoolsError::Read("pools.toml".into(), std::io::Error::other("gone"));
        assert_eq!(
            line("worker", &error.into(), &[]),
            format!(
                "worker: pools.toml cannot be read: gone; {}",
                Remedy::PoolFile.text()
            )
        );
    }
}
