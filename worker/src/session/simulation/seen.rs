//! What is seen of a simulated fleet, as the chaos checker wants it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use loadtest::chaos::{
    checker::{Evidence, Owner, Slots, Violation, check},
    history::{Action, Answer, Call, Reply},
};
use proto::{
    id::{OperationId, SessionKey},
    journal::Start,
    lease::{Lease, LeaseState},
    pool::Pool,
    subject, wire,
};
use records_model::{Change, Model};
use tokio::time::Instant;

/// When every story begins, in microseconds since 1970.
const BEGINNING_US: u64 = 1_767_225_600_000_000;

/// The evidence so far.
#[derive(Debug)]
pub(super) struct Seen {
    began: Instant,
    calls: Mutex<Vec<Call>>,
    pub(super) starts: Mutex<Vec<Start>>,
    /// Whether variables were carried from one worker to another.
    pub(super) carried: AtomicBool,
    /// Numbers that executions append.
    numbers: AtomicU64,
}

/// A call that is asked for.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) session: &'a str,
    pub(super) ingress: usize,
    pub(super) operation: u32,
    pub(super) action: Action,
    pub(super) id: &'a OperationId,
    pub(super) last: bool,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            calls: Mutex::default(),
            starts: Mutex::default(),
            carried: AtomicBool::new(false),
            numbers: AtomicU64::new(0),
        }
    }

    pub(super) fn now_us(&self) -> u64 {
        BEGINNING_US + u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    /// A number that no execution had.
    pub(super) fn number(&self) -> u32 {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        u32::try_from(number).unwrap()
    }

    /// Notes a call before it is made; says which it is.
    pub(super) fn asks(&self, asked: Asked<'_>) -> usize {
        let mut calls = self.calls.lock().unwrap();
        let number = calls.len();
        calls.push(Call {
            number,
            operation: asked.operation,
            session: asked.session.to_owned(),
            ingress: asked.ingress,
            action: asked.action,
            sent_id: Some(asked.id.to_string()),
            last: asked.last,
            sent_us: self.now_us(),
            reply: None,
        });
        number
    }

    /// Notes its answer.
    pub(super) fn hears(&self, call: usize, answer: Answer) {
        let mut calls = self.calls.lock().unwrap();
        let call = &mut calls[call];
        call.reply = Some(Reply {
            at_us: self.now_us(),
            answer,
            id: call.sent_id.clone(),
        });
    }

    /// What is proven to have gone wrong, by everything together.
    pub(super) fn judged(
        &self,
        bus: &Model,
        pool: &Pool,
        sessions: &BTreeMap<String, SessionKey>,
    ) -> Vec<Violation> {
        let mut owners = vec![];
        let mut slots = vec![];
        let at_us = self.now_us();
        for change in bus.changes(&subject::leases_stream(&pool.id)) {
            if let Change::Written(record) = change {
                let lease: Lease = wire::decode(&record.payload).unwrap();
                let (_, session) = record.subject.rsplit_once('.').unwrap();
                owners.push(Owner {
                    session: session.parse().unwrap(),
                    incarnation: lease.incarnation,
                    epoch: lease.epoch,
                    worker: lease.owner,
                    at_us,
                });
            }
        }
        let mut live: u64 = 0;
        for change in bus.changes(&subject::slots_stream(&pool.id)) {
            match change {
                Change::Written(_) => live += 1,
                Change::Deleted(_) | Change::Ended(_) => live -= 1,
            }
            slots.push(Slots {
                pool: pool.name.to_string(),
                live,
                max: pool.max_sessions.into(),
                at_us,
            });
        }
        check(&Evidence {
            calls: self.calls.lock().unwrap().clone(),
            starts: self.starts.lock().unwrap().clone(),
            sessions: sessions.clone(),
            slots,
            owners,
            kernels: vec![],
        })
    }

    /// How many calls were answered as asked, of how many.
    pub(super) fn answered(&self) -> (usize, usize) {
        let calls = self.calls.lock().unwrap();
        let answered = calls
            .iter()
            .filter(|call| call.answer().is_some_and(Answer::answers));
        (answered.count(), calls.len())
    }

    /// Leases that are not held, of sessions that all were just used.
    pub(super) fn unheld(bus: &Model, pool: &Pool) -> Vec<Lease> {
        let leases = bus.records(&subject::leases_stream(&pool.id));
        let leases = leases.iter().map(|record| wire::decode(&record.payload));
        let leases = leases.map(|lease: Result<Lease, _>| lease.unwrap());
        leases
            .filter(|lease| lease.state != LeaseState::Active)
            .collect()
    }

    /// How many ownerships of sessions there were.
    pub(super) fn ownerships(bus: &Model, pool: &Pool) -> usize {
        let changes = bus.changes(&subject::leases_stream(&pool.id));
        let lease = |change| match change {
            Change::Written(record) => Some(record),
            Change::Deleted(_) | Change::Ended(_) => None,
        };
        let leases = changes.into_iter().filter_map(lease).map(|record| {
            let lease: Lease = wire::decode(&record.payload).unwrap();
            (record.subject, lease.incarnation, lease.epoch)
        });
        leases.collect::<BTreeSet<_>>().len()
    }
}
