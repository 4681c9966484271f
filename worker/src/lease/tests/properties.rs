//! Whatever happens, a session has one owner and one slot: many interleavings of several workers, with faults
//! from a seed. Bugs are planted here, in the bus or in a worker, to see that the properties find them.

mod flawed;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use futures_util::future::join_all;
use proptest::{prelude::*, test_runner::Config};
use proto::ambient::Random;
use records_model::{Chances, Change};
use tokio::{runtime, time::sleep};

use self::flawed::{Bug, Flawed};
use super::*;

const WORKERS: u64 = 3;
const SESSIONS: [char; 3] = ['a', 'b', 'c'];
/// Fewer than the sessions.
const MOST: u32 = 2;
const STEPS: u32 = 25;

/// Frequent faults. What a claim writes is written within the grace of its slot, which its safety rests on:
/// an answer that does not come in 5 s, two questions of 16 s, and a write that is late by 25 s.
const CHANCES: Chances = Chances {
    lost: 40,
    unheard: 60,
    late: 40,
    latest: Duration::from_secs(20),
    failed: 30,
    slowest: Duration::from_secs(8),
};

/// What was seen to go wrong.
type Checked = Result<(), String>;

/// One worker of a story.
struct Actor<'a> {
    fleet: &'a Fleet,
    ledger: Ledger,
    bug: Option<Bug>,
    random: Random,
    held: BTreeMap<char, HeldLease>,
}

impl Actor<'_> {
    async fn act(mut self) -> Checked {
        for _ in 0..STEPS {
            let letter = SESSIONS[self.below(SESSIONS.len())];
            match self.held.remove(&letter) {
                Some(lease) => self.go_on(letter, lease).await?,
                None => self.begin(letter).await?,
            }
            every_lease_has_its_slot(self.fleet)?;
            sleep(Duration::from_millis(self.random.below(30_000))).await;
        }
        Ok(())
    }

    fn below(&self, end: usize) -> usize {
        usize::try_from(self.random.below(end as u64)).unwrap()
    }

    async fn begin(&mut self, letter: char) -> Checked {
        let mut seen = self.fleet.seen(letter);
        match self.random.below(10) {
            0 => seen = self.random.below(seen + 1),
            1 => return self.sweep().await,
            // Others may change it meanwhile.
            2 => sleep(Duration::from_secs(20)).await,
            _ => {}
        }
        let session = session(letter);
        if let Ok(claimed) = self.ledger.claim(&session, &identifier(), seen).await {
            self.held.insert(letter, claimed.lease);
        }
        Ok(())
    }

    async fn sweep(&self) -> Checked {
        // That it fails is no harm.
        self.ledger.sweep().await.or(Ok(()))
    }

    async fn go_on(&mut self, letter: char, mut lease: HeldLease) -> Checked {
        let was_lost = !self.is_owner(letter, &lease);
        let (what, changed) = match self.random.below(10) {
            0 => ("stop", lease.stop().await),
            1 => {
                let idle = Duration::from_secs(self.random.below(COOLDOWN.as_secs()));
                let changed = lease.vacate(idle).await;
                return unless(was_lost && changed.is_ok(), "vacated after loss");
            }
            2 => {
                let holder = || {
                    let lease = self.fleet.lease(letter);
                    lease.map(|(lease, _)| (lease.incarnation, lease.epoch))
                };
                let before = holder();
                let released = lease.release().await;
                // Without any lease there is nothing to be lost, and it may be the next one's by now.
                let is_others = was_lost && before.is_some() && holder() == before;
                return unless(is_others && released.is_ok(), "released after loss");
            }
            // The worker crashes.
            3 => return Ok(()),
            4 => ("confirm", lease.ownership().confirm().await),
            _ => ("renew", lease.renew().await),
        };
        match changed {
            Ok(()) if was_lost => return Err(format!("{what} after loss")),
            Err(LeaseError::Lost) => return self.lost(letter, &lease).await,
            Ok(()) | Err(LeaseError::Bus(_)) => {}
        }
        self.held.insert(letter, lease);
        Ok(())
    }

    /// The lease is another's or nobody's.
    async fn lost(&self, letter: char, lease: &HeldLease) -> Checked {
        if self.bug == Some(Bug::GoesOnAfterLoss) {
            let record = &lease.ownership.record;
            let (session, seen) = (session(letter), self.fleet.seen(letter));
            let written = self.ledger.write_lease(&session, record, seen).await;
            return written.map(drop).or(Ok(()));
        }
        unless(self.is_owner(letter, lease), "lost what it has")
    }

    fn is_owner(&self, letter: char, lease: &HeldLease) -> bool {
        let found = self.fleet.lease(letter);
        found.is_some_and(|(found, _)| lease.ownership.is_same(&found))
    }
}

fn unless(wrong: bool, what: &str) -> Checked {
    match wrong {
        true => Err(what.to_owned()),
        false => Ok(()),
    }
}

fn every_lease_has_its_slot(fleet: &Fleet) -> Checked {
    let slots = fleet.slots();
    for lease in fleet.leases() {
        let lease: Lease = wire::decode(&lease.payload).unwrap();
        let has_slot = slots.iter().any(|slot| slot.sequence == lease.slot);
        unless(!has_slot, "a lease lost its slot")?;
    }
    Ok(())
}

/// Never two owners with the same epoch, and under one session's lease epochs only grow.
fn epochs_only_grow(fleet: &Fleet) -> Checked {
    let mut owners = HashMap::new();
    let mut current: HashMap<String, Lease> = HashMap::new();
    for change in fleet.model.changes(&subject::leases_stream(&fleet.pool.id)) {
        match change {
            Change::Written(record) => {
                let lease: Lease = wire::decode(&record.payload).unwrap();
                let epoch = (record.subject.clone(), lease.incarnation, lease.epoch);
                let owner = owners.entry(epoch).or_insert_with(|| lease.owner.clone());
                unless(*owner != lease.owner, "two owners have the same epoch")?;
                if let Some(before) = current.get(&record.subject) {
                    let holder = |lease: &Lease| (lease.incarnation, lease.epoch);
                    let goes_on = holder(before) == holder(&lease);
                    unless(
                        !goes_on && before.epoch >= lease.epoch,
                        "an epoch came back",
                    )?;
                }
                current.insert(record.subject, lease);
            }
            Change::Deleted(record) | Change::Ended(record) => {
                current.remove(&record.subject);
            }
        }
    }
    Ok(())
}

/// At no time more records than so many.
fn never_more_than(most: u32, changes: Vec<Change>, what: &str) -> Checked {
    let mut live = HashMap::new();
    for change in changes {
        match change {
            Change::Written(record) => drop(live.insert(record.subject, record.sequence)),
            Change::Deleted(record) | Change::Ended(record) => drop(live.remove(&record.subject)),
        }
        unless(live.len() > most as usize, what)?;
    }
    Ok(())
}

/// Plays the story of a seed and checks it. Returns what became of the leases, too.
fn told(seed: u64, bug: Option<Bug>) -> (Checked, Vec<Change>) {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(async {
        let fleet = Fleet::new(MOST);
        let checked = played(&fleet, seed, bug).await;
        let leases = subject::leases_stream(&fleet.pool.id);
        (checked, fleet.model.changes(&leases))
    })
}

fn story(seed: u64, bug: Option<Bug>) -> Checked {
    told(seed, bug).0
}

async fn played(fleet: &Fleet, seed: u64, bug: Option<Bug>) -> Checked {
    let mut actors = vec![];
    for number in 0..WORKERS {
        let own_seed = Random::seeded(seed.wrapping_add(number)).next();
        let connection = fleet.model.connect(own_seed);
        let bus = Arc::new(Flawed::new(connection.clone(), bug));
        let (name, pool) = (format!("worker-{number}"), fleet.pool.clone());
        let ids = Ids::seeded(own_seed);
        let name = name.parse().unwrap();
        let ledger = Ledger::open(bus, name, pool, Replicas::ONE, ids).await;
        connection.chances(CHANCES);
        actors.push(Actor {
            fleet,
            ledger: ledger.unwrap(),
            bug,
            random: Random::seeded(own_seed.rotate_left(32)),
            held: BTreeMap::new(),
        });
    }
    join_all(actors.into_iter().map(Actor::act))
        .await
        .into_iter()
        .collect::<Checked>()?;
    // All workers are gone: leases end by themselves, and one worker sweeps.
    sleep(COOLDOWN + limits::LEASE_MARGIN + limits::SLOT_GRACE * 2).await;
    let last = fleet.worker(WORKERS).await;
    last.ledger.sweep().await.unwrap();
    unless(!fleet.slots().is_empty(), "a slot was leaked")?;
    epochs_only_grow(fleet)?;
    let of = |stream: String| fleet.model.changes(&stream);
    let (slots, leases) = (
        of(subject::slots_stream(&fleet.pool.id)),
        of(subject::leases_stream(&fleet.pool.id)),
    );
    never_more_than(MOST, slots, "more slots than the pool may have")?;
    never_more_than(MOST, leases, "more sessions than the pool may have")
}

proptest! {
    #![proptest_config(Config { cases: 300, failure_persistence: None, ..Config::default() })]
    #[test]
    fn a_session_has_one_owner_and_one_slot_whatever_happens(seed: u64) {
        story(seed, None).map_err(|what| TestCaseError::fail(format!("seed {seed}: {what}")))?;
    }
}

#[test]
fn a_seed_repeats_its_story() {
    for seed in 0..5 {
        let [(_, one), (_, two)] = [told(seed, None), told(seed, None)];
        assert!(one.len() > 10, "{seed}: {}", one.len());
        assert_eq!(one, two, "{seed}");
    }
}

#[test]
fn every_planted_bug_is_found_within_a_thousand_seeds() {
    for bug in Bug::ALL {
        let found = (0..1000).find_map(|seed| Some((seed, story(seed, Some(bug)).err()?)));
        let (seed, what) = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
        println!("{bug:?}: seed {seed}: {what}");
    }
}
