//! The turns in which the sessions of a worker that ends are handed over. Each turn takes processor time and
//! memory, so only a few are taken at once. A session whose variables are not there when its turn is over
//! waits for another, behind all that have had fewer: so those that hang, however many, keep nobody from a
//! first turn.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How long each turn of a session may take. Most need a small part of the first; the last is for what
/// really takes its time.
pub const TURNS: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_millis(1500),
    Duration::from_secs(5),
];

/// Who may take a turn now. Clones share it.
#[derive(Clone, Debug)]
pub struct Turns {
    line: Arc<Mutex<Line<oneshot::Sender<Turn>>>>,
    closed: CancellationToken,
}

/// A turn. It is over when this is dropped.
#[derive(Debug)]
#[must_use = "a dropped turn is over"]
pub struct Turn(Turns);

impl Turns {
    /// So many turns at once.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        Self {
            line: Arc::new(Mutex::new(Line::new(at_once))),
            closed: CancellationToken::new(),
        }
    }

    /// Waits for a turn behind all that have had fewer than `had`, or as many and waited before. Nothing when
    /// there are no more turns.
    pub async fn take(&self, had: usize) -> Option<Turn> {
        let (call, called) = oneshot::channel();
        self.line().join(had, call);
        self.call_next();
        called.await.ok()
    }

    /// There are no more turns: the worker's time is over.
    pub fn close(&self) {
        self.closed.cancel();
        let waiting = self.line().close();
        drop(waiting);
    }

    /// What comes of `work` within `time`; nothing when that is over, or all turns are.
    pub async fn within<T>(&self, time: Duration, work: impl Future<Output = T>) -> Option<T> {
        let working = tokio::time::timeout(time, work);
        self.closed.run_until_cancelled(working).await?.ok()
    }

    /// Whether there are no more turns.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.closed.is_cancelled()
    }

    fn call_next(&self) {
        loop {
            let Some(next) = self.line().next() else {
                return;
            };
            // Who waits no longer gives it back by dropping it, which calls the next.
            drop(next.send(Turn(self.clone())));
        }
    }

    fn line(&self) -> MutexGuard<'_, Line<oneshot::Sender<Turn>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.line().leave();
        self.0.call_next();
    }
}

/// Those that wait, and the places for turns.
#[derive(Debug)]
struct Line<W> {
    free: usize,
    closed: bool,
    arrivals: u64,
    /// By turns had and arrival.
    waiting: BTreeMap<(usize, u64), W>,
}

impl<W> Line<W> {
    fn new(free: usize) -> Self {
        Self {
            free,
            closed: false,
            arrivals: 0,
            waiting: BTreeMap::new(),
        }
    }

    fn join(&mut self, had: usize, waiter: W) {
        if !self.closed {
            self.arrivals += 1;
            self.waiting.insert((had, self.arrivals), waiter);
        }
    }

    /// Who takes a place that is free.
    fn next(&mut self) -> Option<W> {
        if self.free == 0 {
            return None;
        }
        let (_, next) = self.waiting.pop_first()?;
        self.free -= 1;
        Some(next)
    }

    fn leave(&mut self) {
        self.free += 1;
    }

    fn close(&mut self) -> BTreeMap<(usize, u64), W> {
        self.closed = true;
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_have_had_fewer_turns_go_first_and_else_whoever_came_first() {
        let mut line = Line::new(0);
        for (had, name) in [(1, "d"), (0, "a"), (2, "f"), (0, "b"), (1, "e"), (0, "c")] {
            line.join(had, name);
        }
        let mut order = String::new();
        assert_eq!(line.next(), None);
        for _ in 0..6 {
            line.leave();
            order += line.next().unwrap();
        }
        assert_eq!(order, "abcdef");
    }

    #[test]
    fn never_more_take_a_turn_than_may() {
        let mut line = Line::new(2);
        for number in 0..5 {
            line.join(0, number);
        }
        assert_eq!(
            (line.next(), line.next(), line.next()),
            (Some(0), Some(1), None)
        );
        line.leave();
        assert_eq!((line.next(), line.next()), (Some(2), None));
    }

    /// Hundreds of sessions that use up every turn, and then one that needs a moment: how long until that has
    /// had its turn, with `at_once` places?
    fn waited(hanging: usize, at_once: usize) -> Duration {
        let mut line = Line::new(0);
        (0..hanging).for_each(|_| line.join(0, true));
        line.join(0, false);
        let mut free_at: Vec<Duration> = vec![Duration::ZERO; at_once];
        let mut had = 0;
        loop {
            free_at.sort();
            let now = free_at[0];
            line.leave();
            if !line.next().unwrap() {
                return now;
            }
            had += 1;
            // It waits anew, for a turn that does not come before the first of everybody else.
            line.join(1, true);
            free_at[0] = now + TURNS[0];
            assert!(had <= hanging, "the honest one is passed over");
        }
    }

    #[test]
    fn hundreds_that_hang_cost_an_honest_session_their_first_turns_only() {
        assert_eq!(waited(0, 8), Duration::ZERO);
        assert_eq!(waited(80, 8), TURNS[0] * 10);
        assert!(waited(600, 8) < Duration::from_secs(40));
    }

    #[tokio::test]
    async fn a_turn_that_is_over_is_the_next_ones() {
        let turns = Turns::new(1);
        let first = turns.take(0).await.unwrap();
        let mut second = Box::pin(turns.take(1));
        let mut third = Box::pin(turns.take(0));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(first);
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(third.await.unwrap());
        drop(second.await.unwrap());
        // Who does not wait any more is passed over.
        let first = turns.take(0).await.unwrap();
        let mut gone = Box::pin(turns.take(0));
        assert!(futures_util::poll!(&mut gone).is_pending());
        drop(gone);
        let mut last = Box::pin(turns.take(0));
        assert!(futures_util::poll!(&mut last).is_pending());
        drop(first);
        drop(last.await.unwrap());
    }

    #[tokio::test]
    async fn when_the_time_is_over_nobody_waits_any_more() {
        let turns = Turns::new(1);
        let taken = turns.take(0).await.unwrap();
        let mut waits = Box::pin(turns.take(0));
        assert!(futures_util::poll!(&mut waits).is_pending());
        turns.close();
        assert!(waits.await.is_none());
        let endless = std::future::pending::<()>();
        assert_eq!(turns.within(Duration::MAX, endless).await, None);
        drop(taken);
        assert!(turns.take(0).await.is_none());
    }
}
