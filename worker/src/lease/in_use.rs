//! Which sessions are claimed or owned by this process. Nobody may give up a lease of theirs: two claims of one
//! process over the same record name the same owner, epoch and life.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::id::SessionKey;

/// The sessions that are claimed or owned here, with how many claims and owners each has.
#[derive(Debug, Default)]
pub(super) struct InUse(Mutex<HashMap<SessionKey, usize>>);

/// One claim or owner among them, until it is dropped.
#[derive(Debug)]
pub(super) struct Use {
    all: Arc<InUse>,
    session: SessionKey,
}

impl InUse {
    pub(super) fn begin(self: &Arc<Self>, session: &SessionKey) -> Arc<Use> {
        *self.sessions().entry(session.clone()).or_default() += 1;
        Arc::new(Use {
            all: Arc::clone(self),
            session: session.clone(),
        })
    }

    pub(super) fn contains(&self, session: &SessionKey) -> bool {
        self.sessions().contains_key(session)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionKey, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut sessions = self.all.sessions();
        if let Some(uses) = sessions.get_mut(&self.session) {
            *uses -= 1;
            if *uses == 0 {
                sessions.remove(&self.session);
            }
        }
    }
}
