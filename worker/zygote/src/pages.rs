//! Makes a fork cheap. It copies the tables of all memory pages, and takes a reference on each page:
//! with huge pages there are 512 times fewer.

use std::fs;
use std::io::Result;

/// Size of a huge page.
const HUGE: usize = 2 << 20;

/// Since Linux 6.1; older kernels refuse it, and forks take longer.
const MADV_COLLAPSE: libc::c_int = 25;

/// Puts this process's own memory into huge pages where it can be. What a child writes to later is
/// split for it alone.
pub(crate) fn collapse() -> Result<()> {
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let Some((start, end)) = own_memory(line) else {
            continue;
        };
        let first = start.next_multiple_of(HUGE);
        for page in (first..end.saturating_sub(HUGE - 1)).step_by(HUGE) {
            // SAFETY: the contents of the memory stay what they are. Where it fails, nothing changes.
            unsafe { libc::madvise(page as *mut libc::c_void, HUGE, MADV_COLLAPSE) };
        }
    }
    Ok(())
}

/// The range of a line of `/proc/self/maps`, if it is private, writable and of no file.
fn own_memory(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, rights) = (fields.next()?, fields.next()?);
    let name = fields.nth(3).unwrap_or("[anonymous]");
    if rights != "rw-p" || !(name == "[heap]" || name == "[anonymous]") {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some((number(start)?, number(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_memory_is_touched() {
        let heap = "01000000-01400000 rw-p 00000000 00:00 0                          [heap]";
        assert_eq!(own_memory(heap), Some((0x0100_0000, 0x0140_0000)));
        let arena = "7f0000000000-7f0000400000 rw-p 00000000 00:00 0 ";
        assert_eq!(
            own_memory(arena),
            Some((0x7f00_0000_0000, 0x7f00_0040_0000))
        );
        for other in [
            "7f00-7f40 rw-p 00000000 00:00 0 [stack]",
            "7f00-7f40 r--p 00000000 00:00 0 ",
            "7f00-7f40 rw-s 00000000 00:01 7 /dev/shm/x",
            "7f00-7f40 rw-p 00000000 08:01 7 /usr/lib/libc.so.6",
            "",
        ] {
            assert_eq!(own_memory(other), None, "{other}");
        }
    }
}
