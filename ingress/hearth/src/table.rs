//! Answers as a table for people or as JSON for programs.

use std::io::{self, Write};

use process::preflight::Output;
use serde::Serialize;

/// One line of a table.
pub(crate) trait Row: Serialize {
    /// Names of the columns.
    const HEAD: &'static [&'static str];
    /// A text for each column.
    fn cells(&self) -> Vec<String>;
}

/// Writes rows to standard output.
///
/// # Errors
/// They cannot be written.
pub(crate) fn print<R: Row>(rows: &[R], output: Output) -> io::Result<()> {
    write(&match output {
        Output::Text => lines(&[vec![head::<R>()], rows.iter().map(Row::cells).collect()].concat()),
        Output::Json => json(&rows)?,
    })
}

/// Writes one thing to standard output, a line for each of its columns.
///
/// # Errors
/// It cannot be written.
pub(crate) fn print_one<R: Row>(row: &R, output: Output) -> io::Result<()> {
    write(&match output {
        Output::Text => {
            let pairs = head::<R>().into_iter().zip(row.cells());
            lines(
                &pairs
                    .map(|(name, cell)| vec![name, cell])
                    .collect::<Vec<_>>(),
            )
        }
        Output::Json => json(row)?,
    })
}

fn head<R: Row>() -> Vec<String> {
    R::HEAD.iter().map(|name| (*name).to_owned()).collect()
}

fn json(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn write(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever read the beginning may have seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Columns below each other. What a terminal would obey is not passed on: callers choose names.
fn lines(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn printable(cell: &str) -> String {
    cell.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// A span of time, as people say it.
#[must_use]
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["a", "bb"], ["ccc", "d"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(lines(&rows), "a    bb\nccc  d\n");
    }

    #[test]
    fn a_name_cannot_command_the_terminal() {
        let text = lines(&[vec!["\u{1b}[2Jx\ny".to_owned()]]);
        assert_eq!(text, "\u{fffd}[2Jx\u{fffd}y\n");
    }

    #[test]
    fn spans_are_said_in_the_unit_that_fits() {
        let spans = [0, 119, 120, 7199, 7200].map(span);
        assert_eq!(spans, ["0 s", "119 s", "2 min", "119 min", "2 h"]);
    }
}
