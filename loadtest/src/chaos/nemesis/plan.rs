//! Which faults a run has, when, and to whom: pure, from a seed.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{chance::Chance, cluster::Member, store_proxy::Trouble};

/// What a stack has that can be hit.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Workers.
    pub workers: usize,
    /// Ingresses.
    pub ingresses: usize,
    /// Servers of the bus.
    pub nats: usize,
    /// Whether the object store is a server behind a proxy.
    pub proxied: bool,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL; started again after the fault's time.
    Kill(Member),
    /// SIGSTOP, and SIGCONT after the fault's time.
    Pause(Member),
    /// SIGTERM; started again at once.
    Restart(Member),
    /// SIGHUP, which must change nothing.
    Reload(Member),
    /// A second worker is started with this one's id, which must be refused.
    Twin(Member),
    /// The proxy of the object store makes trouble for the fault's time.
    Trouble(Trouble),
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Since the start of the run.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What is done.
    pub blow: Blow,
}

/// What must not be hit twice at once: the rest keeps the service alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// A cluster of three lives with two.
    Nats,
    /// Two ingresses, one of which answers.
    Ingress,
    /// The store, its proxy, and what that does.
    Store,
    /// One worker with its helpers.
    Worker(usize),
}

/// Time between the starts of two faults.
const EVERY: Duration = Duration::from_secs(8);
/// Before the first fault and behind the last.
const CALM: Duration = Duration::from_secs(3);
/// Longest pause, longer than any lease of life in the system; a short run has shorter ones.
const PAUSE: Duration = Duration::from_secs(30);
/// Shortest pause.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// How long a process that must not mind is looked at.
const LOOKED_AT: Duration = Duration::from_secs(2);
/// Until a process that was hit takes part again.
const RECOVERY: Duration = Duration::from_secs(5);
/// Workers that must not be hit at a moment.
const WHOLE_WORKERS: usize = 1;

impl Blow {
    /// Whom it hits.
    #[must_use]
    pub fn group(&self) -> Group {
        match self {
            Self::Trouble(_) => Group::Store,
            Self::Kill(member)
            | Self::Pause(member)
            | Self::Restart(member)
            | Self::Reload(member)
            | Self::Twin(member) => match member {
                Member::Nats(_) => Group::Nats,
                Member::Ingress(_) => Group::Ingress,
                Member::Store | Member::StoreProxy => Group::Store,
                Member::Worker(worker) | Member::Caged(worker) | Member::Zygote(worker) => {
                    Group::Worker(*worker)
                }
            },
        }
    }

    /// Its name without numbers, for counting.
    #[must_use]
    pub fn kind(&self) -> String {
        let plain = |member: &Member| {
            let name = member.to_string();
            name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-')
                .to_owned()
        };
        match self {
            Self::Kill(member) => format!("kill {}", plain(member)),
            Self::Pause(member) => format!("pause {}", plain(member)),
            Self::Restart(member) => format!("restart {}", plain(member)),
            Self::Reload(member) => format!("reload {}", plain(member)),
            Self::Twin(member) => format!("twin of {}", plain(member)),
            Self::Trouble(trouble) => format!("store {}", named(trouble)),
        }
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(member) => write!(f, "kill {member}"),
            Self::Pause(member) => write!(f, "pause {member}"),
            Self::Restart(member) => write!(f, "restart {member}"),
            Self::Reload(member) => write!(f, "reload {member}"),
            Self::Twin(member) => write!(f, "twin of {member}"),
            Self::Trouble(trouble) => write!(f, "store {}", named(trouble)),
        }
    }
}

/// The trouble that the store's proxy can be told to make, by name.
const TROUBLES: [(&str, Trouble); 4] = [
    (
        "errors",
        Trouble {
            refused: 150,
            forgotten: 150,
            ..NO_TROUBLE
        },
    ),
    (
        "resets",
        Trouble {
            reset: 150,
            cut: 150,
            ..NO_TROUBLE
        },
    ),
    (
        "delays",
        Trouble {
            delayed: 500,
            delay_ms: 1500,
            ..NO_TROUBLE
        },
    ),
    (
        "stalls",
        Trouble {
            stalled: 200,
            ..NO_TROUBLE
        },
    ),
];

const NO_TROUBLE: Trouble = Trouble {
    refused: 0,
    forgotten: 0,
    reset: 0,
    cut: 0,
    delayed: 0,
    delay_ms: 0,
    stalled: 0,
};

fn named(trouble: &Trouble) -> &'static str {
    let mut known = TROUBLES.iter();
    known
        .find(|(_, other)| other == trouble)
        .map_or("trouble", |(name, _)| name)
}

/// The faults of a run of so many seconds. Kinds come in a random order, each once before any comes
/// again; whoever is hit has time to recover.
#[must_use]
pub fn plan(seed: u64, seconds: u64, shape: Shape) -> Vec<Fault> {
    let mut planner = Planner {
        chance: Chance::of(seed, "nemesis"),
        shape,
        pause: (Duration::from_secs(seconds) / 4).clamp(PAUSE_MIN, PAUSE),
        bag: Vec::new(),
        busy: BTreeMap::new(),
    };
    let end = Duration::from_secs(seconds).saturating_sub(CALM);
    let mut faults = Vec::new();
    let mut slot = CALM;
    while slot < end {
        let jitter = planner.chance.below(2000);
        let at = slot + Duration::from_millis(jitter);
        faults.extend(planner.next(at, end));
        slot += EVERY;
    }
    faults
}

struct Planner {
    chance: Chance,
    shape: Shape,
    pause: Duration,
    bag: Vec<Draft>,
    /// Until when each group recovers from what hit it last.
    busy: BTreeMap<Group, Duration>,
}

/// A kind of fault, without a victim of several.
#[derive(Clone, Copy)]
enum Draft {
    Kill(fn(usize) -> Member),
    Pause(fn(usize) -> Member),
    Restart(fn(usize) -> Member),
    Reload(fn(usize) -> Member),
    Twin(fn(usize) -> Member),
    Trouble(Trouble),
}

impl Planner {
    /// The next fault of the bag that can happen then.
    fn next(&mut self, at: Duration, end: Duration) -> Option<Fault> {
        for _ in 0..2 {
            for place in 0..self.bag.len() {
                let draft = *self.bag.get(place)?;
                if let Some(fault) = self.fault(draft, at, end) {
                    self.bag.remove(place);
                    self.busy
                        .insert(fault.blow.group(), at + fault.lasts + RECOVERY);
                    return Some(fault);
                }
            }
            let mut fresh = self.drafts();
            self.chance.shuffle(&mut fresh);
            self.bag.extend(fresh);
        }
        None
    }

    fn drafts(&self) -> Vec<Draft> {
        let mut drafts: Vec<Draft> = Vec::new();
        let members: [fn(usize) -> Member; 5] = [
            Member::Worker,
            Member::Caged,
            Member::Zygote,
            Member::Ingress,
            Member::Nats,
        ];
        let proxy: Option<fn(usize) -> Member> =
            self.shape.proxied.then_some(|_| Member::StoreProxy);
        for member in members.into_iter().chain(proxy) {
            drafts.extend([
                Draft::Kill(member),
                Draft::Pause(member),
                Draft::Restart(member),
            ]);
        }
        let reloaded: [fn(usize) -> Member; 4] = [
            Member::Worker,
            Member::Caged,
            Member::Zygote,
            Member::Ingress,
        ];
        drafts.extend(reloaded.map(Draft::Reload));
        drafts.push(Draft::Twin(Member::Worker));
        if self.shape.proxied {
            // Killing it would lose what no real store loses: it is in memory.
            drafts.push(Draft::Pause(|_| Member::Store));
            drafts.extend(TROUBLES.map(|(_, trouble)| Draft::Trouble(trouble)));
        }
        drafts
    }

    fn fault(&mut self, draft: Draft, at: Duration, end: Duration) -> Option<Fault> {
        let lasts = match draft {
            Draft::Kill(_) => Duration::from_millis(self.chance.below(4000)),
            Draft::Pause(_) => self.pause,
            Draft::Restart(_) => Duration::ZERO,
            Draft::Reload(_) | Draft::Twin(_) => LOOKED_AT,
            Draft::Trouble(_) => self.pause / 2,
        };
        let blow = match draft {
            Draft::Kill(member) => Blow::Kill(self.victim(member, at)?),
            Draft::Pause(member) => Blow::Pause(self.victim(member, at)?),
            Draft::Restart(member) => Blow::Restart(self.victim(member, at)?),
            Draft::Reload(member) => Blow::Reload(self.victim(member, at)?),
            Draft::Twin(member) => Blow::Twin(self.victim(member, at)?),
            Draft::Trouble(trouble) => Blow::Trouble(trouble),
        };
        let fits = at + lasts <= end && self.is_free(blow.group(), at);
        fits.then_some(Fault { at, lasts, blow })
    }

    /// One of the members of a kind whose group is free.
    fn victim(&mut self, member: fn(usize) -> Member, at: Duration) -> Option<Member> {
        let count = match member(0) {
            Member::Nats(_) => self.shape.nats,
            Member::Ingress(_) => self.shape.ingresses,
            Member::Store | Member::StoreProxy => 1,
            Member::Worker(_) | Member::Caged(_) | Member::Zygote(_) => self.shape.workers,
        };
        let mut numbers: Vec<usize> = (0..count).collect();
        self.chance.shuffle(&mut numbers);
        let mut victims = numbers.into_iter().map(member);
        victims.find(|victim| self.is_free(Blow::Kill(*victim).group(), at))
    }

    fn is_free(&self, group: Group, at: Duration) -> bool {
        let busy = |group: &Group| self.busy.get(group).is_some_and(|until| *until > at);
        let workers = (0..self.shape.workers).filter(|worker| busy(&Group::Worker(*worker)));
        match group {
            Group::Worker(_) if workers.count() + WHOLE_WORKERS >= self.shape.workers => false,
            group => !busy(&group),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SHAPE: Shape = Shape {
        workers: 3,
        ingresses: 2,
        nats: 3,
        proxied: true,
    };
    /// Kill, pause and restart of six kinds of processes, SIGHUP to four, a twin of a worker, a pause of
    /// the store, four troubles.
    const KINDS: usize = 6 * 3 + 4 + 1 + 1 + 4;

    fn kinds(faults: &[Fault]) -> BTreeSet<String> {
        faults.iter().map(|fault| fault.blow.kind()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_plan() {
        assert_eq!(plan(1, 600, SHAPE), plan(1, 600, SHAPE));
        assert_ne!(plan(1, 600, SHAPE), plan(2, 600, SHAPE));
    }

    #[test]
    fn names_have_no_numbers() {
        let blow = Blow::Pause(Member::Worker(2));
        assert_eq!(
            (blow.kind(), blow.to_string()),
            ("pause worker".into(), "pause worker-3".into())
        );
        assert_eq!(Blow::Kill(Member::StoreProxy).kind(), "kill store-proxy");
        assert!(
            TROUBLES
                .iter()
                .all(|(name, trouble)| Blow::Trouble(*trouble).kind().ends_with(name))
        );
    }

    #[test]
    fn without_a_proxy_the_store_is_left_alone() {
        let faults = plan(
            1,
            600,
            Shape {
                proxied: false,
                ..SHAPE
            },
        );
        assert!(
            faults
                .iter()
                .all(|fault| fault.blow.group() != Group::Store)
        );
        assert_eq!(kinds(&faults).len(), 5 * 3 + 4 + 1);
    }

    proptest! {
        /// Ten minutes have at least sixty faults of all kinds, whatever the seed.
        #[test]
        fn a_long_run_has_every_kind(seed in any::<u64>()) {
            let faults = plan(seed, 600, SHAPE);
            prop_assert!(faults.len() >= 60, "{}", faults.len());
            prop_assert_eq!(kinds(&faults).len(), KINDS);
        }

        #[test]
        fn whoever_is_hit_recovers_and_enough_stay_whole(seed in any::<u64>(), seconds in 10..700u64) {
            let faults = plan(seed, seconds, SHAPE);
            prop_assert!(!faults.is_empty());
            for (place, fault) in faults.iter().enumerate() {
                let end = fault.at + fault.lasts;
                prop_assert!(end + CALM <= Duration::from_secs(seconds));
                let beside: Vec<Group> = faults
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != place)
                    .filter(|(_, other)| other.at <= fault.at && fault.at < other.at + other.lasts + RECOVERY)
                    .map(|(_, other)| other.blow.group())
                    .collect();
                prop_assert!(!beside.contains(&fault.blow.group()), "{:?}", fault);
                let groups: BTreeSet<_> = beside.into_iter().chain([fault.blow.group()]).collect();
                let workers = groups.iter().filter(|group| matches!(group, Group::Worker(_)));
                prop_assert!(workers.count() + WHOLE_WORKERS <= SHAPE.workers);
            }
        }
    }
}
