//! Finds a place for contents: where the log holds them already, in the commit's own pack, or in a
//! blob.
//!
//! Contents are only compared with those of the same session: whether another one has the same
//! bytes must not be found out from how long a commit takes.

use std::{collections::HashMap, mem, sync::Arc};

use store::log::{
    commit::{Hash, PACK_BYTES, SMALL_FILE_BYTES, Source},
    manifest::Manifest,
};

use super::transfer::{Part, PartSink, Room, Stopped};

/// Where contents are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PackOffset {
    /// In the log already: a source and an offset in it.
    Held(Source, u32),
    /// In a part of this commit: its number and an offset in it.
    Part(usize, u32),
}

/// The pack that a commit carries itself.
#[derive(Debug)]
pub(super) struct Pack {
    /// Its number among the parts of the commit.
    pub(super) number: usize,
    pub(super) bytes: Vec<u8>,
}

/// Packs the contents of one commit.
#[derive(Debug)]
pub(super) struct Packer {
    manifest: Arc<Manifest>,
    /// Contents of this commit that the log does not hold yet.
    fresh: HashMap<(Hash, u32), (usize, u32)>,
    /// The pack that is being filled.
    pack: Pack,
    /// Number of the next part.
    next: usize,
}

impl Packer {
    pub(super) fn new(manifest: Arc<Manifest>) -> Self {
        Self {
            manifest,
            fresh: HashMap::new(),
            pack: Pack {
                number: 0,
                bytes: Vec::new(),
            },
            next: 1,
        }
    }

    /// Where contents are that the log or this commit has already.
    pub(super) fn known(&self, hash: Hash, len: u32) -> Option<PackOffset> {
        if let Some((source, start)) = self.manifest.find(&hash, len) {
            return Some(PackOffset::Held(source.clone(), start));
        }
        let (part, start) = *self.fresh.get(&(hash, len))?;
        Some(PackOffset::Part(part, start))
    }

    /// Whether a file of this size is small and goes into the pack that is being filled.
    pub(super) fn fits(&self, size: u64) -> bool {
        let filled = self.pack.bytes.len() as u64;
        size <= SMALL_FILE_BYTES && filled + size <= u64::from(PACK_BYTES)
    }

    /// Puts new contents into a pack. A pack that is full before leaves through the outlet.
    pub(super) fn pack(
        &mut self,
        content: (Hash, u32),
        bytes: &[u8],
        outlet: Option<&PartSink>,
    ) -> Result<PackOffset, Stopped> {
        if self.pack.bytes.len() + bytes.len() > PACK_BYTES as usize {
            let outlet = outlet.ok_or(Stopped)?;
            let number = self.take_number();
            let full = mem::replace(
                &mut self.pack,
                Pack {
                    number,
                    bytes: Vec::new(),
                },
            );
            outlet.send(Part {
                number: full.number,
                bytes: full.bytes,
                room: outlet.room()?,
            })?;
        }
        // No pack is longer than four bytes can say.
        let start = u32::try_from(self.pack.bytes.len()).unwrap_or(PACK_BYTES);
        self.pack.bytes.extend_from_slice(bytes);
        Ok(self.remember(content, self.pack.number, start))
    }

    /// Makes new contents a part of their own.
    pub(super) fn part(
        &mut self,
        content: (Hash, u32),
        bytes: Vec<u8>,
        outlet: Option<&PartSink>,
        room: Room,
    ) -> Result<PackOffset, Stopped> {
        let number = self.take_number();
        let part = Part {
            number,
            bytes,
            room,
        };
        outlet.ok_or(Stopped)?.send(part)?;
        Ok(self.remember(content, number, 0))
    }

    pub(super) fn finish(self) -> Pack {
        self.pack
    }

    fn take_number(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    fn remember(&mut self, content: (Hash, u32), part: usize, start: u32) -> PackOffset {
        self.fresh.insert(content, (part, start));
        PackOffset::Part(part, start)
    }
}
