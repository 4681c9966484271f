//! Where a log lies in the store.

use object_store::path::Path;
use proto::id::{Incarnation, PoolId, SessionKey};

use super::commit::Seq;

/// Which log: one life of one session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogKey {
    /// The session's pool.
    pub pool: PoolId,
    /// The session.
    pub session: SessionKey,
    /// Its life.
    pub incarnation: Incarnation,
}

impl LogKey {
    /// What the keys of all its objects start with.
    pub(crate) fn prefix(&self) -> Path {
        let incarnation = self.incarnation.to_string();
        Path::from_iter([self.pool.as_str(), self.session.as_str(), &incarnation])
    }

    pub(crate) fn commits(&self) -> Path {
        self.prefix().join("c")
    }

    pub(crate) fn commit(&self, seq: Seq) -> Path {
        self.commits().join(seq.key())
    }

    pub(super) fn blobs(&self) -> Path {
        self.prefix().join("b")
    }

    pub(super) fn blob(&self, name: &str) -> Path {
        self.blobs().join(name)
    }

    pub(super) fn checkpoints(&self) -> Path {
        self.prefix().join("k")
    }

    pub(super) fn checkpoint(&self, seq: Seq) -> Path {
        self.checkpoints().join(seq.key())
    }

    /// The place that an object's key belongs to, if it is one of a log.
    pub(crate) fn of_key(key: &Path) -> Option<Self> {
        let mut parts = key.parts();
        let mut part = || parts.next().map(|part| part.as_ref().to_owned());
        Some(Self {
            pool: part()?.parse().ok()?,
            session: part()?.parse().ok()?,
            incarnation: part()?.try_into().ok()?,
        })
    }
}

impl Seq {
    /// Digits that sort as numbers do.
    fn key(self) -> String {
        format!("{:020}", self.0)
    }

    /// The number in the last part of an object's key.
    pub(super) fn of_key(key: &Path) -> Option<Self> {
        let name = key.filename()?;
        let digits = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| name.parse().map(Self).ok()).flatten()
    }
}
