//! Looks at a running stack from outside: slots and leases on the bus, kernels on this host.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use async_nats::jetstream::{self, stream::LastRawMessageErrorKind};
use proto::{
    id::{PoolId, SessionKey},
    lease::Lease,
    subject, wire,
};

use super::{
    checker::{Kernel, Owner, Slots},
    history::Clock,
};
use crate::{
    cluster::{Cluster, Member},
    inventory,
};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The bus may be without a leader for a while; it is asked again then.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Inboxes that the workers' user may have.
const INBOX: &str = "_INBOX_worker.observer";

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Pools with their names and maxima.
    pub pools: Vec<(String, PoolId, u64)>,
    /// Sessions of the first pool by identifier.
    pub sessions: BTreeMap<String, SessionKey>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Counts of live slots.
    pub slots: Vec<Slots>,
    /// Leases.
    pub owners: Vec<Owner>,
    /// Kernels that have run code of a session.
    pub kernels: Vec<Kernel>,
}

/// Looks at one stack.
#[derive(Debug)]
pub struct Observer {
    jetstream: jetstream::Context,
    clock: Clock,
    scope: Scope,
    /// Ids of the workers.
    workers: Vec<String>,
    seen: Mutex<Seen>,
}

impl Observer {
    /// Connects to the stack's bus.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn connect(cluster: &Cluster, clock: Clock, scope: Scope) -> Result<Self> {
        let (user, password) = cluster.nats_credentials("worker")?;
        let client = async_nats::ConnectOptions::with_user_and_password(user, password)
            .name("observer")
            .custom_inbox_prefix(INBOX)
            .request_timeout(Some(ANSWER_WITHIN))
            .max_reconnects(None)
            .connect(cluster.nats())
            .await?;
        let mut jetstream = jetstream::new(client);
        jetstream.set_timeout(ANSWER_WITHIN);
        let mut workers = Vec::new();
        for member in cluster.members() {
            if let Member::Worker(number) = member {
                workers.push(cluster.worker_id(number)?.to_owned());
            }
        }
        Ok(Self {
            jetstream,
            clock,
            scope,
            workers,
            seen: Mutex::default(),
        })
    }

    /// Looks for ever.
    pub async fn watch(&self) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.kernels().await;
            // Without an answer nothing was seen, which proves nothing.
            self.slots().await.ok();
            self.owners().await.ok();
        }
    }

    /// Everything so far.
    pub fn seen(&self) -> Seen {
        self.add(|seen| seen.clone())
    }

    fn add<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn slots(&self) -> Result<()> {
        for (pool, id, max) in &self.scope.pools {
            let stream = self
                .jetstream
                .get_stream_no_info(subject::slots_stream(id))
                .await?;
            let live = stream.get_info().await?.state.messages;
            let sample = Slots {
                pool: pool.clone(),
                live,
                max: *max,
                at_us: self.clock.now_us(),
            };
            self.add(|seen| seen.slots.push(sample));
        }
        Ok(())
    }

    async fn owners(&self) -> Result<()> {
        let Some((_, pool, _)) = self.scope.pools.first() else {
            return Ok(());
        };
        let stream = self
            .jetstream
            .get_stream_no_info(subject::leases_stream(pool))
            .await?;
        for session in self.scope.sessions.values() {
            let subject = subject::lease(pool, session);
            let message = match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => message,
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => continue,
                Err(error) => return Err(error.into()),
            };
            // What an expired lease leaves behind is none.
            let Ok(lease) = wire::decode::<Lease>(&message.payload) else {
                continue;
            };
            let owner = Owner {
                session: session.clone(),
                incarnation: lease.incarnation,
                epoch: lease.epoch,
                worker: lease.owner,
                at_us: self.clock.now_us(),
            };
            self.add(|seen| {
                let known = seen.owners.iter().any(|known| is_same(known, &owner));
                if !known {
                    seen.owners.push(owner);
                }
            });
        }
        Ok(())
    }

    async fn kernels(&self) {
        let at_us = self.clock.now_us();
        let (workers, sessions) = (self.workers.clone(), self.scope.sessions.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            for worker in &workers {
                found.extend(kernels(worker, &sessions, at_us));
            }
            found
        });
        if let Ok(found) = looked.await {
            self.add(|seen| seen.kernels.extend(found));
        }
    }
}

fn is_same(one: &Owner, other: &Owner) -> bool {
    one.session == other.session
        && one.incarnation == other.incarnation
        && one.epoch == other.epoch
        && one.worker == other.worker
}

/// Living processes of a worker's cages that carry a session's name, as the sessions' code gives it
/// to them.
fn kernels(worker: &str, sessions: &BTreeMap<String, SessionKey>, at_us: u64) -> Vec<Kernel> {
    let processes = inventory::sandboxed(worker).into_iter();
    let named = processes.map(|pid| (pid, inventory::name_of(pid)));
    let living =
        named.filter(|(pid, name)| sessions.contains_key(name) && !inventory::is_zombie(*pid));
    let kernels = living.map(|(pid, session)| Kernel {
        session,
        worker: worker.to_owned(),
        pid,
        at_us,
    });
    kernels.collect()
}
