//! Which sessions live here, to reach their actors from outside the bus.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::id::{PoolId, SessionKey};
use tokio::sync::mpsc;

/// What an actor is told by others in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Give the session to another worker once nothing runs in it: this one ends.
    HandOver,
    /// Give the session to another worker without waiting for what runs in it.
    HandOverNow,
    /// Its lease is someone else's.
    LeaseLost,
}

/// Notes that may wait for an actor; all kinds end it, so more than a few say nothing new.
const NOTES: usize = 4;

type Key = (PoolId, SessionKey);
type Entries = HashMap<Key, (u64, mpsc::Sender<Note>)>;

/// The living sessions of a worker.
#[derive(Clone, Debug, Default)]
pub struct Table {
    entries: Arc<Mutex<Entries>>,
    claims: Arc<Mutex<HashSet<Key>>>,
}

/// A claim of a session that is under way here.
#[derive(Debug)]
pub struct Claiming {
    table: Table,
    key: Key,
}

/// A session's place in the table; dropping it gives the place up.
#[derive(Debug)]
pub struct Seat {
    table: Table,
    key: Key,
    number: u64,
    notes: mpsc::Receiver<Note>,
}

impl Table {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a session. An older actor for the same session has lost its lease to this one.
    #[must_use]
    pub fn enter(&self, pool: &PoolId, session: &SessionKey) -> Seat {
        let (sender, notes) = mpsc::channel(NOTES);
        let key = (pool.clone(), session.clone());
        let mut entries = self.entries();
        let number = entries.get(&key).map_or(0, |(number, _)| number + 1);
        let old = entries.insert(key.clone(), (number, sender));
        drop(entries);
        if let Some((_, old)) = old {
            note(&old, Note::LeaseLost);
        }
        Seat {
            table: self.clone(),
            key,
            number,
            notes,
        }
    }

    /// Notes that a session is being claimed; `None` when it is already.
    #[must_use]
    pub fn claiming(&self, pool: &PoolId, session: &SessionKey) -> Option<Claiming> {
        let key = (pool.clone(), session.clone());
        let new = self.claims().insert(key.clone());
        new.then(|| Claiming {
            table: self.clone(),
            key,
        })
    }

    fn claims(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sessions that live here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Sessions that live here, by pool.
    #[must_use]
    pub fn by_pool(&self) -> BTreeMap<PoolId, usize> {
        let mut counts = BTreeMap::new();
        for (pool, _) in self.entries().keys() {
            *counts.entry(pool.clone()).or_default() += 1;
        }
        counts
    }

    /// Whether no session lives here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// Tells every actor.
    pub fn tell_all(&self, what: Note) {
        for (_, sender) in self.entries().values() {
            note(sender, what);
        }
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        self.table.claims().remove(&self.key);
    }
}

fn note(to: &mpsc::Sender<Note>, what: Note) {
    // A full channel holds notes that end the actor already, a closed one has no actor.
    to.try_send(what).ok();
}

impl Seat {
    /// The next note. Never returns when nobody can send one any more.
    pub async fn note(&mut self) -> Note {
        match self.notes.recv().await {
            Some(note) => note,
            None => std::future::pending().await,
        }
    }

    /// Lets a task of this session tell its actor.
    pub fn teller(&self) -> impl Fn(Note) + Send + 'static {
        let entries = self.table.entries();
        // Not that of a newer owner in this worker.
        let own = entries
            .get(&self.key)
            .filter(|(number, _)| *number == self.number);
        let sender = own.map(|(_, sender)| sender.clone());
        move |what| {
            if let Some(sender) = &sender {
                note(sender, what);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut entries = self.table.entries();
        if entries
            .get(&self.key)
            .is_some_and(|(number, _)| *number == self.number)
        {
            entries.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn key() -> (PoolId, SessionKey) {
        (
            "01JDE1KZ0000000000000000PY".parse().unwrap(),
            "a".repeat(26).parse().unwrap(),
        )
    }

    #[tokio::test]
    async fn a_newer_owner_in_the_same_worker_fences_the_older() {
        let (table, (pool, session)) = (Table::default(), key());
        let mut old = table.enter(&pool, &session);
        let mut new = table.enter(&pool, &session);
        assert_eq!(old.note().await, Note::LeaseLost);
        old.teller()(Note::LeaseLost);
        assert_eq!(new.note().now_or_never(), None, "the news is the old one's");
        drop(old);
        assert_eq!(
            table.len(),
            1,
            "the old actor's end leaves the new one's entry"
        );
        drop(new);
        assert!(table.is_empty());
    }
}
