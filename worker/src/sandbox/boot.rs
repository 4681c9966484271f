//! What the zygote runs: Python, the boot files and the zygote library.

use std::fs;
use std::io;
use std::path::Path;

/// The image's interpreter.
pub(super) const PYTHON: &str = "/usr/bin/python3";

/// Isolated: neither the environment nor a user's directories decide what is imported. Without byte code:
/// it would lie among the session's files, beside the modules that it imports.
pub(super) const ARGUMENTS: [&str; 3] = ["-I", "-B", "/opt/hearth/boot.py"];

/// The Python side, beside the library in `/opt/hearth`.
const FILES: [(&str, &str); 14] = [
    ("boot.py", include_str!("../../kernel/boot.py")),
    (
        "hearth_command.py",
        include_str!("../../kernel/hearth_command.py"),
    ),
    (
        "hearth_frames.py",
        include_str!("../../kernel/hearth_frames.py"),
    ),
    (
        "hearth_kernel.py",
        include_str!("../../kernel/hearth_kernel.py"),
    ),
    (
        "hearth_loop.py",
        include_str!("../../kernel/hearth_loop.py"),
    ),
    (
        "hearth_network.py",
        include_str!("../../kernel/hearth_network.py"),
    ),
    (
        "hearth_packages.py",
        include_str!("../../kernel/hearth_packages.py"),
    ),
    (
        "hearth_pickle.py",
        include_str!("../../kernel/hearth_pickle.py"),
    ),
    (
        "hearth_share.py",
        include_str!("../../kernel/hearth_share.py"),
    ),
    (
        "hearth_shell.py",
        include_str!("../../kernel/hearth_shell.py"),
    ),
    (
        "hearth_stdlib.py",
        include_str!("../../kernel/hearth_stdlib.py"),
    ),
    (
        "hearth_tracebacks.py",
        include_str!("../../kernel/hearth_tracebacks.py"),
    ),
    (
        "hearth_variables.py",
        include_str!("../../kernel/hearth_variables.py"),
    ),
    (
        "hearth_warm.py",
        include_str!("../../kernel/hearth_warm.py"),
    ),
];

/// `KEY=VALUE` lines: the whole environment of the zygote and of every session.
const ENVIRONMENT: &str = include_str!("../../kernel/environment");

/// The environment as pairs.
pub(super) fn environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    ENVIRONMENT.lines().filter_map(|line| line.split_once('='))
}

/// Writes the boot files and the library.
pub(super) fn install(directory: &Path, library: &[u8]) -> io::Result<()> {
    for (name, contents) in FILES {
        fs::write(directory.join(name), contents)?;
    }
    fs::write(directory.join("libzygote.so"), library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_kernel_is_embedded() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/kernel");
        let mut found: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".py"))
            .collect();
        found.sort_unstable();
        assert_eq!(found, FILES.map(|(name, _)| name));
    }

    #[test]
    fn the_environment_is_complete_pairs() {
        let lines = ENVIRONMENT.lines().filter(|line| !line.is_empty()).count();
        assert_eq!(environment().count(), lines);
        assert!(environment().any(|pair| pair == ("HOME", "/home/session")));
    }
}
