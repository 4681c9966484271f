//! Reads files of `/proc` and of control groups, whose length nobody knows beforehand.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longer than most of them.
const USUAL_BYTES: usize = 4096;

/// Reads a file in one piece where it can. ([`std::fs::read`] believes such a file to be empty and finds its
/// way in pieces of 32, 64, 128 … bytes, with a system call for each.)
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file of plain text.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_read_to_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "0123456789".repeat(USUAL_BYTES);
        std::fs::write(file.path(), &text).unwrap();
        assert_eq!(read_text(file.path()).unwrap(), text);
    }

    #[test]
    fn a_file_that_says_that_it_is_empty_is_read_all_the_same() {
        let path = Path::new("/proc/self/stat");
        assert_eq!(path.metadata().unwrap().len(), 0);
        assert!(read_text(path).unwrap().ends_with('\n'));
    }
}
