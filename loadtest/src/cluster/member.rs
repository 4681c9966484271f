//! Who takes part in a stack.

use std::fmt;

/// One process of a stack. Numbers count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// The bus.
    Nats,
    /// An ingress.
    Ingress(usize),
    /// A worker.
    Worker(usize),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nats => f.write_str("nats"),
            Self::Ingress(number) => write!(f, "ingress-{}", number + 1),
            Self::Worker(number) => write!(f, "worker-{}", number + 1),
        }
    }
}
