//! Room for what is read at once. It belongs to a thread and not to a session, and is cleared only once: to clear
//! 64 KiB for every read would take 7 µs of every cell.

use std::cell::RefCell;

/// Bytes that are read at once: the capacity of a pipe.
pub(super) const CHUNK: usize = 64 * 1024;

thread_local! {
    static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Lends [`CHUNK`] bytes for one read. They hold what was read before: whoever borrows them looks at nothing but
/// what he has read into them himself.
pub(super) fn with_chunk<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    ROOM.with(|room| match room.try_borrow_mut() {
        Ok(mut room) => read(&mut room),
        // One read within another.
        Err(_) => read(&mut vec![0; CHUNK]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_within_a_read_has_room_of_its_own() {
        with_chunk(|outer| {
            outer.fill(1);
            with_chunk(|inner| {
                assert_eq!(inner.len(), CHUNK);
                inner.fill(2);
            });
            assert!(outer.iter().all(|byte| *byte == 1));
        });
    }
}
