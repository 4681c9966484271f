//! What the worker and a zygote say to each other on their `SOCK_SEQPACKET` socket.
//!
//! The first packet to a zygote is the seccomp filter, as raw `sock_filter` records. Every later
//! one is a [`Join`] with file descriptors; every packet from a zygote is an [`Event`].

/// User and group id of a session, inside its cage.
pub const SESSION_ID: u32 = 1000;

/// File descriptors of a [`Join`], in this order, before those of the cage's `cgroup.procs` files.
pub const JOIN_DESCRIPTORS: usize = 4;

/// Most `cgroup.procs` descriptors of one [`Join`]: one per hierarchy.
pub const CGROUPS_MAX: usize = 16;

/// Longest filter: what the kernel accepts, 4096 records of 8 bytes.
pub const FILTER_BYTES_MAX: usize = 4096 * 8;

/// Asks the zygote to fork into a cage.
///
/// Carries the session's socket, its stdout, its stderr, a pidfd of the cage's PID 1, and the
/// cage's `cgroup.procs` files, opened for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// Chosen by the worker; comes back in the answer.
    pub id: u64,
}

impl Join {
    /// Size of an encoded message.
    pub const BYTES: usize = 8;

    /// The packet.
    #[must_use]
    pub fn encode(self) -> [u8; Self::BYTES] {
        self.id.to_le_bytes()
    }

    /// The message in a packet; `None` when it is anything else.
    #[must_use]
    pub fn decode(packet: &[u8]) -> Option<Self> {
        packet
            .try_into()
            .ok()
            .map(u64::from_le_bytes)
            .map(|id| Self { id })
    }
}

/// What a zygote reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The filter has arrived, the process has one thread, joins are welcome.
    Ready,
    /// A child was forked for this join. A pidfd of it comes along. It is still locking itself
    /// down; failing that it exits with the code of a [`Step`].
    Joined {
        /// The join.
        id: u64,
        /// The child, as seen by the worker.
        pid: u32,
    },
    /// No child was made.
    Refused {
        /// The join.
        id: u64,
        /// Why, as an `errno`.
        errno: i32,
    },
    /// A child has ended and was reaped.
    Exited {
        /// The child.
        pid: u32,
        /// As `waitpid` gave it.
        status: i32,
    },
}

impl Event {
    /// Size of an encoded event.
    pub const BYTES: usize = 16;

    /// The packet: kind, 32-bit value, 64-bit value; little-endian.
    #[must_use]
    pub fn encode(self) -> [u8; Self::BYTES] {
        let (kind, value, number) = match self {
            Self::Ready => (0, 0, 0),
            Self::Joined { id, pid } => (1, pid, id),
            Self::Refused { id, errno } => (2, errno.cast_unsigned(), id),
            Self::Exited { pid, status } => (3, pid, u64::from(status.cast_unsigned())),
        };
        let mut packet = [0; Self::BYTES];
        packet[0..4].copy_from_slice(&u32::to_le_bytes(kind));
        packet[4..8].copy_from_slice(&u32::to_le_bytes(value));
        packet[8..16].copy_from_slice(&u64::to_le_bytes(number));
        packet
    }

    /// The event in a packet; `None` when it is anything else.
    #[must_use]
    pub fn decode(packet: &[u8]) -> Option<Self> {
        let packet: [u8; Self::BYTES] = packet.try_into().ok()?;
        let [k0, k1, k2, k3, v0, v1, v2, v3, number @ ..] = packet;
        let value = u32::from_le_bytes([v0, v1, v2, v3]);
        let number = u64::from_le_bytes(number);
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            0 => Some(Self::Ready),
            1 => Some(Self::Joined {
                id: number,
                pid: value,
            }),
            2 => Some(Self::Refused {
                id: number,
                errno: value.cast_signed(),
            }),
            3 => {
                let status = u32::try_from(number).ok()?.cast_signed();
                Some(Self::Exited { pid: value, status })
            }
            _ => None,
        }
    }
}

/// A step of the lock-down of a forked child; the child ends with its [`exit
/// code`](Step::exit_code) when the step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Entering the cage's cgroups.
    Cgroups = 200,
    /// Entering the cage's namespaces.
    Namespaces,
    /// Bringing the loopback interface up.
    Loopback,
    /// Keeping descriptors 0 to 3 and closing all others.
    Descriptors,
    /// Leading a session of its own.
    Session,
    /// Lowering resource limits.
    ResourceLimits,
    /// Emptying the capability bounding set.
    BoundingSet,
    /// Becoming the session's user.
    User,
    /// Dropping all capabilities.
    Capabilities,
    /// Giving up new privileges for good.
    NoNewPrivileges,
    /// Entering the directory of the session's files.
    Directory,
    /// Installing the seccomp filter.
    Filter,
    /// Giving `/proc/self` back to the session.
    Dumpable,
    /// Removing memory that an earlier kernel of the cage left.
    Leftovers,
}

impl Step {
    const ALL: [Self; 14] = [
        Self::Cgroups,
        Self::Namespaces,
        Self::Loopback,
        Self::Descriptors,
        Self::Session,
        Self::ResourceLimits,
        Self::BoundingSet,
        Self::User,
        Self::Capabilities,
        Self::NoNewPrivileges,
        Self::Directory,
        Self::Filter,
        Self::Dumpable,
        Self::Leftovers,
    ];

    /// Exit code of a child that failed here.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        i32::from(self as u8)
    }

    /// The step that an exit code tells about.
    #[must_use]
    pub fn of_exit_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.exit_code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let join = Join { id: u64::MAX - 1 };
        assert_eq!(Join::decode(&join.encode()), Some(join));
        for event in [
            Event::Ready,
            Event::Joined {
                id: 7,
                pid: u32::MAX,
            },
            Event::Refused {
                id: u64::MAX,
                errno: 12,
            },
            Event::Exited { pid: 1, status: -1 },
        ] {
            assert_eq!(Event::decode(&event.encode()), Some(event));
        }
    }

    #[test]
    fn anything_else_is_no_message() {
        assert_eq!(Join::decode(&[0; 7]), None);
        assert_eq!(Event::decode(&[0; 15]), None);
        let mut unknown = Event::Ready.encode();
        unknown[0] = 9;
        assert_eq!(Event::decode(&unknown), None);
    }

    #[test]
    fn every_step_has_its_own_exit_code() {
        for step in Step::ALL {
            assert_eq!(Step::of_exit_code(step.exit_code()), Some(step));
        }
        assert_eq!(Step::of_exit_code(1), None);
    }
}
