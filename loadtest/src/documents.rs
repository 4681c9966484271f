//! Documents that are made from the code: tests compare them with what is committed, and write them where
//! `HEARTH_WRITE_DOCUMENTS` is set (`make documents`).

use std::{env, fs, path::Path};

use clap::{Arg, ArgAction, Command};

/// Compares a committed file with what the code makes, or writes it.
///
/// # Panics
/// They differ, or it cannot be written.
pub fn keep(path: &Path, made: &str) {
    if writes() {
        write(path, made);
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == made,
        "{} differs from the code at {:?}: run `make documents` and look at the changes",
        path.display(),
        first_difference(&committed, made),
    );
}

/// As [`keep`], for the table of a program's settings in `docs/settings.md`: every argument of these commands
/// that is not hidden.
///
/// # Panics
/// They differ, or the page has no such part.
pub fn keep_settings<'a>(program: &str, commands: impl IntoIterator<Item = &'a Command>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    let page = fs::read_to_string(&path).unwrap_or_default();
    keep(&path, &with_part(&page, program, &table(commands)));
}

fn writes() -> bool {
    env::var_os("HEARTH_WRITE_DOCUMENTS").is_some()
}

#[expect(clippy::panic, reason = "only tests call this")]
fn write(path: &Path, text: &str) {
    let directory = path.parent().unwrap_or(path);
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(path, text))
        .unwrap_or_else(|error| panic!("failed to write {}: {error}", path.display()));
}

fn first_difference<'a>(committed: &'a str, made: &'a str) -> Option<(&'a str, &'a str)> {
    let lines = committed.lines().chain([""]).zip(made.lines().chain([""]));
    lines.into_iter().find(|(one, other)| one != other)
}

/// A page whose part between the comments that name a program is replaced.
#[expect(clippy::panic, reason = "only tests call this")]
fn with_part(page: &str, program: &str, part: &str) -> String {
    let begin = format!("<!-- settings of `{program}`, made by `make documents` -->\n");
    let (before, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("docs/settings.md has no line {begin}"));
    let end = "<!-- end -->";
    let after = rest.split_once(end).map_or("", |(_, after)| after);
    format!("{before}{begin}{part}{end}{after}")
}

fn table<'a>(commands: impl IntoIterator<Item = &'a Command>) -> String {
    let arguments = commands.into_iter().flat_map(Command::get_arguments);
    let rows = arguments
        .filter(|argument| !argument.is_hide_set())
        .filter_map(row);
    let head = "| setting | variable | default | meaning |\n|---|---|---|---|\n".to_owned();
    rows.fold(head, |table, row| table + &row)
}

fn row(argument: &Arg) -> Option<String> {
    let name = argument.get_long()?;
    let variable = argument
        .get_env()
        .map(|name| format!("`{}`", name.to_string_lossy()));
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let meaning = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let meaning = meaning.replace('|', "\\|");
    let stop = if meaning.ends_with('.') { "" } else { "." };
    let variable = variable.unwrap_or_default();
    let default = default(argument);
    Some(format!(
        "| `--{name}` | {variable} | {default} | {meaning}{stop} |\n"
    ))
}

fn default(argument: &Arg) -> String {
    let values = argument.get_default_values().iter();
    let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
    match argument.get_action() {
        _ if argument.is_required_set() => "required".to_owned(),
        ArgAction::SetTrue => "off".to_owned(),
        _ if values.is_empty() => "none".to_owned(),
        _ => format!("`{}`", values.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_page_is_replaced_and_the_rest_is_kept() {
        let page =
            "# Head\n<!-- settings of `x`, made by `make documents` -->\nold\n<!-- end -->\ntail\n";
        assert_eq!(
            with_part(page, "x", "new\n"),
            "# Head\n<!-- settings of `x`, made by `make documents` -->\nnew\n<!-- end -->\ntail\n"
        );
    }

    #[test]
    fn a_setting_is_a_line_with_its_default_and_meaning() {
        let command = Command::new("x")
            .arg(
                Arg::new("a")
                    .long("a")
                    .env("A")
                    .default_value("1")
                    .help("One | two"),
            )
            .arg(
                Arg::new("b")
                    .long("b")
                    .action(ArgAction::SetTrue)
                    .help("Off."),
            )
            .arg(Arg::new("c").long("c").required(true))
            .arg(Arg::new("d").long("d").hide(true));
        assert_eq!(
            table([&command]).lines().skip(2).collect::<Vec<_>>(),
            [
                "| `--a` | `A` | `1` | One \\| two. |",
                "| `--b` |  | off | Off. |",
                "| `--c` |  | required | . |",
            ]
        );
    }
}
