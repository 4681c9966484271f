//! Proves from what clients heard and what workers noted that nothing was lost, run twice or done by
//! two. Pure: evidence in, violations out. It accuses only on proof: whatever a correct system might
//! have done in between, including every request without an answer having taken effect or not, is
//! taken for what happened.

mod answers;
mod files;
mod logs;
mod register;
mod samples;
mod starts;
#[cfg(test)]
mod tests;
mod trails;

use std::collections::{BTreeMap, HashMap};

use proto::{
    id::{Epoch, Incarnation, SessionKey, WorkerId},
    journal::Start,
};

use super::history::Call;

/// Violations of one kind in one session that are told; more would say nothing new.
const TOLD: usize = 5;
/// Longest list of evidence of one violation.
const LINES: usize = 20;

/// Everything that is known of a run.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What the clients did and heard, in the order of sending.
    pub calls: Vec<Call>,
    /// The start journals of all workers, one after the other.
    pub starts: Vec<Start>,
    /// Internal names of the sessions.
    pub sessions: BTreeMap<String, SessionKey>,
    /// Counts of live slots.
    pub slots: Vec<Slots>,
    /// Leases that were seen.
    pub owners: Vec<Owner>,
    /// Kernels that were seen to live.
    pub kernels: Vec<Kernel>,
}

/// How many slots a pool had taken at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    /// The pool.
    pub pool: String,
    /// Taken.
    pub live: u64,
    /// The maximum.
    pub max: u64,
    /// Microseconds since 1970.
    pub at_us: u64,
}

/// A lease that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The session.
    pub session: SessionKey,
    /// Its life.
    pub incarnation: Incarnation,
    /// The ownership.
    pub epoch: Epoch,
    /// Who had it.
    pub worker: WorkerId,
    /// Microseconds since 1970.
    pub at_us: u64,
}

/// A kernel that had run code of a session and was seen to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The session's identifier.
    pub session: String,
    /// Id of the worker, over all its runs, in whose cage it was.
    pub worker: String,
    /// Its process number.
    pub pid: u32,
    /// Microseconds since 1970, before it was looked at.
    pub at_us: u64,
}

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An execution was started, or had its effect, more than once.
    RanTwice,
    /// A request had an effect although the service had said that nothing happened.
    RefusedButDone,
    /// An execution succeeded that no worker noted.
    SucceededUnstarted,
    /// Bytes that were acknowledged are not there, or older ones are there again.
    LostBytes,
    /// Bytes that nobody wrote there.
    ForeignBytes,
    /// What stood in a file before something was appended to it changed.
    Rewritten,
    /// Two workers owned a session in one epoch.
    TwoOwners,
    /// An epoch fell.
    EpochFell,
    /// A success was reported of an execution whose worker had lost the session.
    FencedSuccess,
    /// Code of a session ran on for longer than a beat's life after another worker had taken over.
    FencedCode,
    /// A pool had more live sessions than it may.
    TooManySlots,
    /// Variables of a state that the files do not have.
    WrongVariables,
    /// An operation id was answered in two ways, or with another id.
    OtherAnswer,
    /// After everything had recovered, a question found no answer.
    NotRecovered,
}

/// A proof that something went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What must not happen.
    pub kind: Kind,
    /// The session, or the pool, that it happened to.
    pub whose: String,
    /// What happened, in words.
    pub what: String,
    /// Lines of the histories and journals that prove it.
    pub evidence: Vec<String>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} in {}: {}", self.kind, self.whose, self.what)?;
        self.evidence
            .iter()
            .try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Everything that the evidence proves to have gone wrong.
#[must_use]
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let case = Case::open(evidence);
    let mut found = Findings::default();
    starts::check(&case, &mut found);
    answers::check(&case, &mut found);
    samples::check(&case, &mut found);
    for session in &case.sessions {
        logs::check(&case, session, &mut found);
        trails::check(session, &mut found);
        files::check(session, &mut found);
    }
    found.0
}

/// The evidence with what belongs together put together.
struct Case<'a> {
    evidence: &'a Evidence,
    /// Starts by operation id.
    starts: HashMap<&'a str, Vec<&'a Start>>,
    sessions: Vec<Session<'a>>,
}

/// What is known of one session.
struct Session<'a> {
    name: &'a str,
    calls: Vec<&'a Call>,
}

impl<'a> Case<'a> {
    fn open(evidence: &'a Evidence) -> Self {
        let mut starts: HashMap<&str, Vec<&Start>> = HashMap::new();
        for start in &evidence.starts {
            starts
                .entry(start.operation.as_str())
                .or_default()
                .push(start);
        }
        let mut sessions: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
        for call in &evidence.calls {
            sessions.entry(&call.session).or_default().push(call);
        }
        let sessions = sessions.into_iter();
        let sessions = sessions.map(|(name, calls)| Session { name, calls });
        Self {
            evidence,
            starts,
            sessions: sessions.collect(),
        }
    }

    /// The one start of the execution behind a call, if it is known.
    fn start_of(&self, call: &Call) -> Option<&'a Start> {
        self.starts.get(call.id()?)?.first().copied()
    }

    /// Name of a session, or its key for one that no client here uses.
    fn name_of(&self, key: &SessionKey) -> String {
        let mut known = self.evidence.sessions.iter();
        let found = known.find(|(_, other)| *other == key);
        found.map_or_else(|| key.to_string(), |(name, _)| name.clone())
    }
}

/// What was found so far.
#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    /// Adds a violation, unless enough of its kind are told of this session or pool.
    fn add(&mut self, kind: Kind, whose: &str, what: String, evidence: Vec<String>) {
        let same = |other: &&Violation| other.kind == kind && other.whose == whose;
        if self.0.iter().filter(same).count() >= TOLD {
            return;
        }
        let mut evidence = evidence;
        if evidence.len() > LINES {
            let more = evidence.len() - LINES;
            evidence.truncate(LINES);
            evidence.push(format!("… and {more} more lines"));
        }
        self.0.push(Violation {
            kind,
            whose: whose.to_owned(),
            what,
            evidence,
        });
    }
}

/// A call as its line of evidence.
fn told(call: &Call) -> String {
    /// Longest line; a log that was shown can be long.
    const CHARACTERS: usize = 600;
    let line = serde_json::to_string(call).unwrap_or_else(|error| error.to_string());
    match line.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("call {}…", line.split_at(end).0),
        None => format!("call {line}"),
    }
}

/// A start as its line of evidence.
fn noted(start: &Start) -> String {
    let line = serde_json::to_string(start).unwrap_or_else(|error| error.to_string());
    format!("start {line}")
}
