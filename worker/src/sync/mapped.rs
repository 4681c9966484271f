//! Which files are mapped by the processes of a cage, so that they can be written without a trace.
//!
//! A store into a page that is dirty already changes no time of the file, so the times of a file
//! with a writable shared mapping say nothing: it is read at every look. Writing its pages back
//! makes them clean, and the next store is seen again; that is done whenever a mapped file is read.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
};

use rustix::io::Errno;

use crate::sandbox::{SharedMapping, next_shared_mapping};

/// Bytes of a process's table of mappings read at once.
const TABLE_BYTES: usize = 64 * 1024;

/// Files of one filesystem with a shared mapping, by inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapped {
    /// Whether one of the mappings can be written at the moment.
    files: HashMap<u64, bool>,
}

impl Mapped {
    /// Files of the device `(major, minor)` that any of the processes has mapped.
    pub(super) fn by(processes: &[u32], device: (u32, u32)) -> io::Result<Self> {
        let mut mapped = Self::default();
        for process in processes {
            match mapped.look(*process, device) {
                // It has ended, and its mappings with it.
                Err(error)
                    if matches!(
                        Errno::from_io_error(&error),
                        Some(Errno::NOENT | Errno::SRCH)
                    ) => {}
                looked => looked?,
            }
        }
        Ok(mapped)
    }

    #[cfg(test)]
    pub(super) fn of(files: impl IntoIterator<Item = (u64, bool)>) -> Self {
        Self {
            files: files.into_iter().collect(),
        }
    }

    /// Whether the file can be written through a mapping at the moment.
    pub(super) fn writable(&self, inode: u64) -> bool {
        self.files.get(&inode).copied().unwrap_or_default()
    }

    /// Whether the file is mapped in any way that could be made writable.
    pub(super) fn contains(&self, inode: u64) -> bool {
        self.files.contains_key(&inode)
    }

    fn look(&mut self, process: u32, device: (u32, u32)) -> io::Result<()> {
        let mut maps = File::open(format!("/proc/{process}/maps"))?;
        let mut from = 0;
        loop {
            match next_shared_mapping(&maps, from) {
                Ok(Some(mapping)) => {
                    from = mapping.end;
                    self.note(&mapping, device);
                }
                Ok(None) => return Ok(()),
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTTY) => break,
                Err(error) => return Err(error),
            }
        }
        // An older Linux has only the text, which takes ten times as long.
        let mut table = Vec::with_capacity(TABLE_BYTES);
        maps.read_to_end(&mut table)?;
        for mapping in parse(&table) {
            self.note(&mapping, device);
        }
        Ok(())
    }

    fn note(&mut self, mapping: &SharedMapping, device: (u32, u32)) {
        if mapping.device == device {
            *self.files.entry(mapping.inode).or_default() |= mapping.writable;
        }
    }
}

/// The shared mappings of files in a table of mappings.
fn parse(table: &[u8]) -> impl Iterator<Item = SharedMapping> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(|line| parse_line(std::str::from_utf8(first_fields(line)).ok()?))
}

/// All but the name, which may be anything.
fn first_fields(line: &[u8]) -> &[u8] {
    const FIELDS: usize = 5;
    let spaces = line.iter().enumerate().filter(|(_, byte)| **byte == b' ');
    let end = spaces.map(|(at, _)| at).nth(FIELDS - 1);
    line.get(..end.unwrap_or(line.len())).unwrap_or_default()
}

fn parse_line(line: &str) -> Option<SharedMapping> {
    let mut fields = line.split(' ');
    let (range, rights, _offset) = (fields.next()?, fields.next()?, fields.next()?);
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    if inode == 0 || !rights.ends_with('s') {
        return None;
    }
    let (_, end) = range.split_once('-')?;
    Some(SharedMapping {
        end: u64::from_str_radix(end, 16).ok()?,
        writable: rights.contains('w'),
        device: (
            u32::from_str_radix(major, 16).ok()?,
            u32::from_str_radix(minor, 16).ok()?,
        ),
        inode,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::sync::tests::mapper::Mapper;

    #[test]
    fn only_shared_mappings_of_files_count() {
        let table = b"\
55d0c0a00000-55d0c0a02000 rw-p 00000000 fd:01 11 /private
7f0000000000-7f0000001000 rw-s 00000000 fd:01 12 /written
7f0000001000-7f0000002000 r--s 00001000 fd:01 13 /re ad\n7f0000002000-7f0000003000 rw-s 00000000 00:05 0 
7f0000003000-7f0000004000 rwxs 00000000 103:1f 14 /\xff\xfe
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";
        let found: Vec<_> = parse(table)
            .map(|mapping| (mapping.inode, mapping.device, mapping.writable))
            .collect();
        assert_eq!(
            found,
            [
                (12, (0xfd, 1), true),
                (13, (0xfd, 1), false),
                (14, (0x103, 0x1f), true)
            ]
        );
    }

    #[test]
    fn a_process_is_seen_with_the_files_that_it_maps_and_gone_when_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let (written, read) = (directory.path().join("w"), directory.path().join("r"));
        std::fs::write(&written, [0; 8192]).unwrap();
        std::fs::write(&read, [0; 8192]).unwrap();
        let metadata = written.metadata().unwrap();
        let device = (
            rustix::fs::major(metadata.dev()),
            rustix::fs::minor(metadata.dev()),
        );
        let mut mapper = Mapper::start();
        mapper.map(&written);
        mapper.map_readable(&read);
        let pid = mapper.pid();
        let mapped = Mapped::by(&[pid], device).unwrap();
        assert!(mapped.writable(metadata.ino()));
        let inode = read.metadata().unwrap().ino();
        assert!(mapped.contains(inode) && !mapped.writable(inode));
        // The text says the same.
        let mut by_text = Mapped::default();
        for mapping in parse(&std::fs::read(format!("/proc/{pid}/maps")).unwrap()) {
            by_text.note(&mapping, device);
        }
        assert_eq!(by_text, mapped);
        drop(mapper);
        assert_eq!(Mapped::by(&[pid], device).unwrap(), Mapped::default());
    }
}
