//! Who takes part in a stack.

use std::fmt;

/// One process of a stack. Numbers count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// A server of the bus.
    Nats(usize),
    /// The server of the object store.
    Store,
    /// The proxy between the object store and everybody else.
    StoreProxy,
    /// An ingress.
    Ingress(usize),
    /// A worker.
    Worker(usize),
    /// The process of this worker that makes its cages. The worker starts it, not the harness.
    Caged(usize),
    /// The process of this worker that its kernels are forked from. The worker starts it, not the
    /// harness.
    Zygote(usize),
}

impl Member {
    /// The worker that starts this process, for one that the harness does not start.
    #[must_use]
    pub fn starter(self) -> Option<usize> {
        match self {
            Self::Caged(worker) | Self::Zygote(worker) => Some(worker),
            Self::Nats(_) | Self::Store | Self::StoreProxy | Self::Ingress(_) | Self::Worker(_) => {
                None
            }
        }
    }

    /// Processes of a later stage need those of all earlier ones to start.
    pub(super) fn stage(self) -> u8 {
        match self {
            Self::Nats(_) | Self::Store => 0,
            Self::StoreProxy => 1,
            Self::Ingress(_) | Self::Worker(_) | Self::Caged(_) | Self::Zygote(_) => 2,
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, number) = match self {
            Self::Store => return f.write_str("store"),
            Self::StoreProxy => return f.write_str("store-proxy"),
            Self::Nats(number) => ("nats", number),
            Self::Ingress(number) => ("ingress", number),
            Self::Worker(number) => ("worker", number),
            Self::Caged(number) => ("caged", number),
            Self::Zygote(number) => ("zygote", number),
        };
        write!(f, "{name}-{}", number + 1)
    }
}
