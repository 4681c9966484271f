//! How much each data filesystem may grow until the disk is looked at again: a pure choice.
//!
//! What may be written without asking is never more than what the disk has. Half of the reserve is
//! everybody's in equal parts, so whoever writes little finds room even when the reserve is reached. What
//! lies above the reserve belongs to the sessions: half in equal parts, half to those that grow. As long as
//! more is free than all together write between two looks, each may take a quarter of the rest.

use std::time::Duration;

/// What all sessions together can write, in bytes per second.
const RATE_OF_ALL: u64 = 4 << 30;

/// Room below which a growing session cannot go on: the kernel asks for about as much for one write.
pub(super) const USEFUL_BYTES: u64 = 2 << 20;

/// Who grew by less lately does not count as growing.
pub(super) const GROWTH_BYTES: u64 = 64 << 10;

/// The fastest that a session is expected to fill its part, in bytes per second.
const RATE: u64 = 2 << 30;

/// Shortest time between two looks where filesystems could fill the disk, and the longest where it is small and
/// where it is large.
const LOOK: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(500),
    Duration::from_secs(3),
];
/// Time between two looks where all filesystems together cannot fill it: then only others can take its room.
const LOOK_AT_EASE: Duration = Duration::from_secs(1);

/// The disk below all data filesystems of a worker, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// What can still be stored.
    pub(super) free: u64,
    /// What is to stay free.
    pub(super) reserve: u64,
}

/// One data filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// Bytes that it could still take.
    pub(super) left: u64,
    /// Bytes that it took and that have not reached the disk.
    pub(super) pending: u64,
    /// Bytes that are about to be written into it, on behalf of the worker.
    pub(super) expected: u64,
    /// Bytes that it takes, on the disk or soon.
    pub(super) taken: u64,
    /// Bytes that it grew by lately.
    pub(super) grown: u64,
    /// What it is for.
    pub(super) role: Role,
}

/// What a data filesystem is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// No session has it yet.
    #[default]
    Stock,
    /// A session has it.
    Session,
    /// A session had it that is being stopped.
    Stopping,
    /// The same, and it takes long: others are stopped meanwhile.
    Stopped,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Bytes that each may take until the next look, in the order of the uses.
    pub(super) parts: Vec<u64>,
    /// The reserve is reached: no new sessions.
    pub(super) reached: bool,
    /// The session to stop.
    pub(super) stop: Option<usize>,
    /// When to look again.
    pub(super) look_after: Duration,
}

/// What lies above the reserve once everything that was taken is stored.
fn above_reserve(room: Room, uses: &[Use]) -> u64 {
    let pending = sum(uses, |one| one.pending);
    room.free
        .saturating_sub(pending)
        .saturating_sub(room.reserve)
}

/// Whether so many bytes may be promised to one filesystem beside what was promised before.
pub(super) fn can_promise(room: Room, uses: &[Use], bytes: u64) -> bool {
    let promised = sum(uses, |one| one.expected);
    let left = above_reserve(room, uses).saturating_sub(promised);
    left >= bytes.saturating_add(USEFUL_BYTES)
}

/// Chooses.
pub(super) fn plan(room: Room, uses: &[Use]) -> Plan {
    let above = above_reserve(room, uses);
    if sum(uses, |one| one.left) <= above {
        return Plan {
            parts: uses.iter().map(|one| one.left).collect(),
            // Nothing that is here grows beyond it, but nothing more fits.
            reached: above < USEFUL_BYTES,
            stop: None,
            look_after: LOOK_AT_EASE,
        };
    }
    let after = room.free.saturating_sub(sum(uses, |one| one.pending));
    let floor = share(after.min(room.reserve) / 2, uses.len());
    let shared = above.saturating_sub(sum(uses, |one| one.expected));
    let grows = |one: &Use| one.role == Role::Session && one.grown >= floor.max(GROWTH_BYTES);
    let sessions = uses.iter().filter(|one| one.role == Role::Session).count();
    let growing = uses.iter().filter(|one| grows(one)).count();
    // As long as more is free than all together write between two looks, each may take a quarter of the rest.
    let longest = longest_look(above);
    let burst = above
        .saturating_add(room.reserve / 2)
        .saturating_sub(written_within(longest))
        / 4;
    let part = |one: &Use| match one.role {
        Role::Stopping | Role::Stopped => 0,
        Role::Stock => coarse(floor.max(burst)),
        Role::Session => {
            let equal = share(shared / 2, sessions);
            let more = if grows(one) {
                share(shared / 2, growing)
            } else {
                0
            };
            (coarse(floor + equal + more) + one.expected).max(coarse(burst))
        }
    };
    let parts: Vec<u64> = uses.iter().map(|one| part(one).min(one.left)).collect();
    let both = || uses.iter().zip(&parts).enumerate();
    let starved = both().any(|(_, (one, part))| grows(one) && *part < USEFUL_BYTES.min(one.left));
    // Until a stopped session has given its space back, nobody else may come and take it.
    let stopping = uses.iter().any(|one| one.role == Role::Stopping);
    let reached = above < USEFUL_BYTES || starved || stopping;
    // Whoever may fill its own filesystem waits for nobody to look.
    let smallest = both()
        .filter(|(_, (one, part))| one.role == Role::Session && **part < one.left)
        .map(|(_, (_, part))| *part);
    Plan {
        stop: (reached && !stopping)
            .then(|| to_stop(uses, grows))
            .flatten(),
        reached,
        look_after: time_to_fill(smallest.min().unwrap_or(u64::MAX))
            .min(time_for_a_quarter(above))
            .clamp(LOOK[0], longest),
        parts,
    }
}

/// Filesystems from which on a newcomer gets its part from what was last seen of the others, where these are held
/// back.
const MANY: usize = 32;

/// The part of one filesystem more, or of one that a session has got, between two looks; `None` if all must be
/// looked at. `seen` is what was last seen of the others and `free` whether nobody was held back then: if so,
/// nobody is held back now without a look.
///
/// Looking at hundreds for each new session would cost more than the session. So others keep their parts until
/// the next look, and what is promised beside them is less than their own number's part of the half of the
/// reserve that nobody is promised.
pub(super) fn newcomer(room: Room, seen: &[Use], free: bool, new: Use) -> Option<u64> {
    if !free && seen.len() < MANY {
        return None;
    }
    let uses: Vec<Use> = seen.iter().copied().chain([new]).collect();
    let plan = plan(room, &uses);
    let part = *plan.parts.last()?;
    match free {
        true => (part == new.left).then_some(part),
        false => (!plan.reached).then_some(part),
    }
}

/// The session that must go so that the others can go on; none if no session `grows`, since then others
/// fill the disk.
///
/// It is the largest that grows, if that one has at least its equal part of what all sessions take. If it
/// has less, it is not what fills the disk, and the largest of all goes, at rest or not.
fn to_stop(uses: &[Use], grows: impl Fn(&Use) -> bool) -> Option<usize> {
    let sessions = || {
        let all = uses.iter().enumerate();
        all.filter(|(_, one)| one.role == Role::Session)
    };
    let growing = sessions().filter(|(_, one)| grows(one));
    let largest_growing = growing.max_by_key(|(_, one)| (one.taken, one.grown))?;
    let together = sessions().fold(0, |sum: u64, (_, one)| sum.saturating_add(one.taken));
    let (index, _) = if largest_growing.1.taken >= share(together, sessions().count()) {
        largest_growing
    } else {
        sessions().max_by_key(|(_, one)| one.taken)?
    };
    Some(index)
}

fn share(bytes: u64, count: usize) -> u64 {
    bytes / u64::try_from(count).unwrap_or(u64::MAX).max(1)
}

/// A little less. The disk always changes a little, and telling the kernel of hundreds of parts that are
/// nearly what they were costs more than looking at them.
fn coarse(bytes: u64) -> u64 {
    let dropped = bytes.checked_ilog2().unwrap_or(0).saturating_sub(5);
    bytes >> dropped << dropped
}

fn sum(uses: &[Use], of: impl Fn(&Use) -> u64) -> u64 {
    uses.iter().map(of).fold(0, u64::saturating_add)
}

fn longest_look(above: u64) -> Duration {
    time_for_a_quarter(above).clamp(LOOK[1], LOOK[2])
}

/// How long all sessions together need to fill a quarter of so many bytes.
fn time_for_a_quarter(bytes: u64) -> Duration {
    Duration::from_millis(bytes / 4 / (RATE_OF_ALL / 1000))
}

/// What all sessions together can write in this time, in bytes.
fn written_within(time: Duration) -> u64 {
    RATE_OF_ALL / 1000 * u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn time_to_fill(bytes: u64) -> Duration {
    Duration::from_millis(bytes / (RATE / 1000))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MIB: u64 = 1 << 20;
    /// A disk of 40 MB.
    const SMALL: Room = Room {
        free: 36 * MIB,
        reserve: 4 * MIB,
    };

    fn session(grown: u64) -> Use {
        Use {
            left: 1 << 30,
            taken: grown,
            grown,
            role: Role::Session,
            ..Use::default()
        }
    }

    fn stock() -> Use {
        Use {
            left: 1 << 30,
            ..Use::default()
        }
    }

    #[test]
    fn where_everything_fits_nothing_is_held_back() {
        let room = Room {
            free: 20 << 30,
            reserve: 4 << 30,
        };
        let plan = plan(room, &[session(9 << 20), stock()]);
        assert_eq!(plan.parts, [1 << 30; 2]);
        assert!(!plan.reached && plan.stop.is_none());
    }

    #[test]
    fn all_parts_together_are_never_more_than_a_small_disk_has() {
        for free in (0..=40).map(|mib| mib * MIB) {
            for sessions in [1_u64, 2, 7, 100] {
                for growing in [0, 1, sessions] {
                    let mut uses = vec![stock(); 12];
                    uses.extend((0..sessions).map(|one| session(u64::from(one < growing) << 24)));
                    let room = Room { free, ..SMALL };
                    let plan = plan(room, &uses);
                    let together: u64 = plan.parts.iter().sum();
                    assert!(together <= free, "{together} of {free}");
                    let kept = free.saturating_sub(together);
                    assert!(kept >= free.min(room.reserve) / 2, "{kept} kept of {free}");
                }
            }
        }
    }

    #[test]
    fn whoever_writes_little_has_room_when_the_reserve_is_reached() {
        let room = Room {
            free: 4 * MIB,
            ..SMALL
        };
        let plan = plan(room, &[session(30 * MIB), session(1000), stock()]);
        assert!(plan.reached);
        assert_eq!(plan.stop, Some(0));
        assert!(plan.parts[1] > 512 << 10, "{plan:?}");
    }

    #[test]
    fn the_largest_that_grows_is_stopped_and_one_at_a_time() {
        let room = Room {
            free: 4 * MIB,
            ..SMALL
        };
        let uses = [session(5 * MIB), session(9 * MIB), session(MIB)];
        assert_eq!(plan(room, &uses).stop, Some(1));
        let mut uses = uses;
        uses[1].role = Role::Stopping;
        let stopping = plan(room, &uses);
        assert_eq!((stopping.stop, stopping.parts[1]), (None, 0));
        assert!(stopping.reached);
    }

    #[test]
    fn a_large_disk_is_looked_at_less_often_but_before_all_together_can_fill_it() {
        let uses = vec![session(0); 500];
        let mut last = Duration::ZERO;
        for gigabytes in [1, 8, 20, 40, 400] {
            let room = Room {
                free: (gigabytes + 4) << 30,
                reserve: 4 << 30,
            };
            let look_after = plan(room, &uses).look_after;
            assert!(look_after >= last, "{gigabytes} GB: {look_after:?}");
            assert!(look_after <= LOOK[2]);
            assert!(written_within(look_after) <= gigabytes << 28);
            last = look_after;
        }
        assert_eq!(last, LOOK[2]);
    }

    #[test]
    fn whoever_may_fill_its_own_filesystem_is_not_waited_for() {
        let room = Room {
            free: 104 << 30,
            reserve: 4 << 30,
        };
        let small = Use {
            left: 16 * MIB,
            ..session(0)
        };
        let mut uses = vec![session(0); 500];
        uses.push(small);
        let plan = plan(room, &uses);
        assert_eq!(plan.parts[500], small.left);
        assert!(plan.look_after > LOOK[1]);
    }

    #[test]
    fn a_full_disk_is_full_without_any_filesystem_on_it() {
        let room = Room {
            free: 4 * MIB,
            ..SMALL
        };
        for uses in [&[][..], &[Use::default()]] {
            let full = plan(room, uses);
            assert!(full.reached && full.stop.is_none(), "{full:?}");
            assert!(!plan(SMALL, uses).reached);
        }
    }

    #[test]
    fn whoever_fills_the_disk_and_rests_is_stopped_rather_than_one_that_writes_a_little() {
        let room = Room {
            free: 4 * MIB,
            ..SMALL
        };
        let resting = Use {
            taken: 30 * MIB,
            ..session(0)
        };
        assert_eq!(plan(room, &[session(5 * MIB), resting]).stop, Some(1));
        let honest = Use {
            taken: 9 * MIB,
            ..session(0)
        };
        let uses = [honest, honest, session(8 * MIB), session(9 * MIB - 1)];
        assert_eq!(plan(room, &uses).stop, Some(3));
    }

    #[test]
    fn the_reserve_stays_reached_until_a_stopped_session_is_gone() {
        let room = Room {
            free: 8 * MIB,
            ..SMALL
        };
        let mut uses = [session(30 * MIB), session(0)];
        assert!(!plan(room, &uses).reached);
        uses[0].role = Role::Stopping;
        assert!(plan(room, &uses).reached);
    }

    #[test]
    fn nobody_is_stopped_for_what_others_did_to_the_disk() {
        let room = Room { free: 0, ..SMALL };
        let plan = plan(room, &[session(0), session(GROWTH_BYTES - 1), stock()]);
        assert!(plan.reached);
        assert_eq!(plan.stop, None);
    }

    #[test]
    fn a_growing_session_gets_most_of_what_is_there() {
        let plan = plan(SMALL, &[session(8 * MIB), session(0), stock()]);
        assert!(
            plan.parts[0] > 24 * MIB && plan.parts[1] >= 8 * MIB,
            "{plan:?}"
        );
        assert!(!plan.reached);
        assert!(plan.look_after < Duration::from_millis(50));
    }

    #[test]
    fn one_more_of_many_gets_its_part_without_a_look_at_the_others() {
        let mut many = vec![session(0); 199];
        many.push(session(8 * MIB));
        let part = newcomer(SMALL, &many, false, session(0)).unwrap();
        let uses: Vec<Use> = many.iter().copied().chain([session(0)]).collect();
        assert_eq!(Some(&part), plan(SMALL, &uses).parts.last());
        let before: u64 = plan(SMALL, &many).parts.iter().sum();
        assert!(before + part + SMALL.reserve / 3 <= SMALL.free);
        let roomy = Room {
            free: 500 << 30,
            ..SMALL
        };
        assert_eq!(newcomer(roomy, &many, true, session(0)), Some(1 << 30));
    }

    #[test]
    fn all_are_looked_at_for_one_more_of_few_or_one_that_changes_how_the_disk_stands() {
        let room = Room {
            free: 20 << 30,
            reserve: 4 << 30,
        };
        assert_eq!(newcomer(room, &[session(0); 9], false, session(0)), None);
        // Nobody was held back, and now somebody must be.
        let just = Room {
            free: SMALL.reserve + (2 << 30),
            ..SMALL
        };
        assert_eq!(
            newcomer(just, &[session(0)], true, session(0)),
            Some(1 << 30)
        );
        assert_eq!(newcomer(just, &[session(0); 2], true, session(0)), None);
        let full = Room {
            free: room.reserve,
            ..room
        };
        assert_eq!(newcomer(full, &[session(0); 100], false, session(0)), None);
    }

    #[test]
    fn on_a_disk_with_much_room_a_session_may_write_a_large_file_at_once() {
        let room = Room {
            free: 60 << 30,
            reserve: 4 << 30,
        };
        let plan = plan(room, &vec![session(0); 600]);
        assert!(plan.parts.iter().all(|part| *part == 1 << 30), "{plan:?}");
    }

    #[test]
    fn parts_stay_as_they_are_while_the_disk_changes_a_little() {
        let parts = |free_mib, sessions| {
            let room = Room {
                free: free_mib * MIB,
                reserve: 4 << 30,
            };
            plan(room, &vec![session(0); sessions]).parts[0]
        };
        let told: BTreeSet<u64> = (5_000..5_100).map(|free| parts(free, 270)).collect();
        assert!(told.len() <= 9, "{told:?}");
        let told: BTreeSet<u64> = (200..300).map(|sessions| parts(30_000, sessions)).collect();
        assert!(told.len() <= 32, "{told:?}");
        for bytes in [0, 1, 63, 64, 65, 1000, u64::MAX] {
            assert!((bytes - bytes / 32..=bytes).contains(&coarse(bytes)));
        }
    }

    #[test]
    fn what_was_taken_but_not_stored_yet_is_not_given_away_again() {
        let mut busy = session(20 * MIB);
        busy.pending = 20 * MIB;
        let plan = plan(SMALL, &[busy, session(0)]);
        assert!(plan.parts.iter().sum::<u64>() <= 14 * MIB, "{plan:?}");
    }

    #[test]
    fn what_is_promised_to_one_is_not_given_to_others() {
        let mut restored = session(0);
        restored.expected = 20 * MIB;
        let uses = [restored, session(0)];
        assert!(can_promise(SMALL, &[session(0)], 20 * MIB));
        assert!(!can_promise(SMALL, &uses, 20 * MIB));
        let plan = plan(SMALL, &uses);
        assert!(plan.parts[0] >= 20 * MIB, "{plan:?}");
        assert!(plan.parts.iter().sum::<u64>() <= 34 * MIB, "{plan:?}");
    }
}
