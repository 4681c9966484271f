//! A fleet in one process: ingress' routing, several workers with their sessions, leases and records, and models of
//! bus and object store. Time is virtual, and what goes wrong comes from a seed: messages and answers are lost, late
//! or heard by nobody; machines crash or stand still; connections break; stores fail; clocks jump. The checker of the
//! chaos test judges what callers heard.
//!
//! A seed decides all faults. Only the order of what happens in the same microsecond is tokio's.

mod bug;
mod caller;
mod member;
mod nemesis;
mod place;
mod seen;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use futures_util::future::join_all;
use loadtest::chaos::checker::Violation;
use proto::{ambient::Random, id::SessionKey, lease::Lease, pool::Pool};
use records_model::{
    Model,
    messages::{Exchange, MessageChances},
};
use store_model::Objects;
use tokio::{
    runtime,
    time::{Instant, sleep},
};

use bug::Bug;
use caller::{Caller, Ingress};
use nemesis::{Nemesis, Struck};
use seen::Seen;

/// How long everything goes wrong.
const TROUBLE: Duration = Duration::from_secs(90);
/// How long everything has to recover, longer than the life of a dead worker's key.
const RECOVERY: Duration = Duration::from_secs(60);
const WORKERS: usize = 3;
const INGRESSES: usize = 2;
const SESSIONS: [char; 2] = ['a', 'b'];

/// How often what goes wrong between processes.
#[derive(Clone, Copy, Debug, Default)]
struct Chances {
    messages: MessageChances,
    records: records_model::Chances,
    objects: store_model::Chances,
}

/// Everything that a story is about.
#[derive(Debug)]
struct World {
    chance: Random,
    bug: Option<Bug>,
    pool: Pool,
    bus: Model,
    exchange: Exchange,
    objects: Objects,
    chances: Chances,
    seen: Arc<Seen>,
}

/// What came of a story.
#[derive(Debug)]
struct Story {
    violations: Vec<Violation>,
    /// Leases that are not their owners' although these serve.
    unheld: Vec<Lease>,
    struck: Vec<Struck>,
    /// Calls that were answered as asked, and all.
    answered: (usize, usize),
    /// Variables were carried from one worker to another.
    carried: bool,
    /// How often a session got an owner.
    ownerships: usize,
}

impl World {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let pool = r#"{"id": "01JDE1KZ0000000000000000PY", "subscription": "s", "resource_group": "r",
            "name": "python", "max_sessions": 2, "cooldown_seconds": 300,
            "limits": {"execution_seconds": 60}}"#;
        let chance = Random::seeded(seed);
        let often = chance.below(3);
        let milliseconds = Duration::from_millis;
        let chances = Chances {
            messages: MessageChances {
                lost: often,
                late: 3 * often,
                latest: Duration::from_secs(3),
                slowest: milliseconds(3),
            },
            records: records_model::Chances {
                lost: 2 * often,
                unheard: 4 * often,
                late: 2 * often,
                latest: Duration::from_secs(10),
                failed: 4 * often,
                slowest: milliseconds(5),
            },
            objects: store_model::Chances {
                failed: 8 * often,
                broken: 8 * often,
                lost: often,
                unheard: often,
                slowest: milliseconds(20),
            },
        };
        Self {
            chance,
            bug,
            pool: serde_json::from_str(pool).unwrap(),
            bus: Model::default(),
            exchange: Exchange::default(),
            objects: Objects::default(),
            chances,
            seen: Arc::new(Seen::new()),
        }
    }
}

fn key(letter: char) -> SessionKey {
    letter.to_string().repeat(26).parse().unwrap()
}

/// Plays the story of a seed.
fn play(seed: u64, bug: Option<Bug>) -> Story {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(played(seed, bug))
}

async fn played(seed: u64, bug: Option<Bug>) -> Story {
    let world = World::new(seed, bug);
    let mut nemesis = Nemesis::begin(&world).await;
    let ingresses = (0..INGRESSES).map(|number| Ingress::start(&world, number));
    let ingresses: Vec<_> = ingresses.collect();
    let sessions: BTreeMap<_, _> = SESSIONS
        .into_iter()
        .map(|letter| (format!("user-{letter}"), key(letter)))
        .collect();
    let caller = |(name, key): (&String, &SessionKey)| Caller {
        name: name.clone(),
        key: key.clone(),
        ingresses: ingresses.clone(),
        seen: world.seen.clone(),
        cluster: "07".repeat(32).parse().unwrap(),
        chance: Random::seeded(world.chance.next()),
    };
    let twice = sessions.iter().chain(&sessions);
    let callers: Vec<_> = twice.map(caller).collect();
    let end = Instant::now() + TROUBLE;
    let working = join_all(callers.iter().map(|caller| caller.work_until(end)));
    tokio::join!(working, nemesis.trouble(&world, &ingresses, end));
    nemesis.relent(&world, &ingresses).await;
    sleep(RECOVERY).await;
    for caller in &callers {
        caller.looks_at_the_end().await;
    }
    Story {
        violations: world.seen.judged(&world.bus, &world.pool, &sessions),
        unheld: Seen::unheld(&world.bus, &world.pool),
        struck: nemesis.struck,
        answered: world.seen.answered(),
        carried: world.seen.carried.load(Ordering::Relaxed),
        ownerships: Seen::ownerships(&world.bus, &world.pool),
    }
}

/// The seeds that are played, `HEARTH_SEEDS=FROM..TO` for others.
fn seeds() -> Range<u64> {
    let text = std::env::var("HEARTH_SEEDS");
    let text = text.as_deref().unwrap_or("0..2000");
    let (from, to) = text.split_once("..").unwrap();
    from.parse().unwrap()..to.parse().unwrap()
}

/// Plays the stories of these seeds, on all processors.
fn play_all(seeds: &Range<u64>) -> Vec<(u64, Story)> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let players = (0..processors).map(|first| {
            let own = seeds.clone().skip(first).step_by(processors);
            scope.spawn(|| own.map(|seed| (seed, play(seed, None))).collect::<Vec<_>>())
        });
        let players: Vec<_> = players.collect();
        let played = players.into_iter().map(|player| player.join().unwrap());
        played.flatten().collect()
    })
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_runs_twice_whatever_goes_wrong() {
    let mut totals = Totals::default();
    for (seed, story) in play_all(&seeds()) {
        let told: Vec<_> = story.violations.iter().map(ToString::to_string).collect();
        let struck = &story.struck;
        assert_eq!(story.unheld, [], "seed {seed}: {struck:?}");
        assert!(
            told.is_empty(),
            "seed {seed}: {struck:?}\n{}",
            told.join("\n")
        );
        totals.add(&story);
    }
    println!("{totals:?}");
    totals.check();
}

/// What happened in all stories together.
#[derive(Debug, Default)]
struct Totals {
    stories: usize,
    struck: BTreeSet<Struck>,
    answered: usize,
    asked: usize,
    ownerships: usize,
    carried: usize,
}

impl Totals {
    fn add(&mut self, story: &Story) {
        self.stories += 1;
        self.struck.extend(story.struck.iter().copied());
        self.answered += story.answered.0;
        self.asked += story.answered.1;
        self.ownerships += story.ownerships;
        self.carried += usize::from(story.carried);
    }

    /// Else nothing would have been tried.
    fn check(&self) {
        let sessions = self.stories * SESSIONS.len();
        assert_eq!(self.struck.len(), Struck::ALL.len(), "everything happens");
        assert!(self.answered * 10 > self.asked * 8, "calls are answered");
        assert!(self.ownerships > sessions * 2, "sessions move");
        assert!(self.carried * 4 > self.stories, "variables move");
    }
}

#[test]
fn every_planted_bug_is_found_within_a_thousand_seeds() {
    for bug in Bug::ALL {
        let found = (0..1000).find_map(|seed| {
            let violation = play(seed, Some(bug)).violations.into_iter().next()?;
            Some((seed, violation))
        });
        let (seed, violation) = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
        println!("{bug:?}: seed {seed}: {violation}");
    }
}
