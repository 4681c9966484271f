//! Does harm to a stack, as planned, and brings back whoever ends.

mod plan;

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures_util::future::join_all;
use tokio::{
    sync::{Mutex as Lock, MutexGuard},
    time::Instant,
};

pub use plan::{Blow, Fault, Group, Shape, plan};

use super::history::Clock;
use crate::{
    cluster::{Cluster, Member},
    store_proxy::Trouble,
    wait::until,
};

/// How long whoever was hit may take until it serves again. Workers that start while the bus has no
/// leader give up and are started anew.
const BACK_WITHIN: Duration = Duration::from_secs(150);
/// How long a second worker of the same id may take until it has given up: it lets an earlier run
/// tidy up first.
const TWIN_ENDS_WITHIN: Duration = Duration::from_secs(60);
/// How often somebody looks whether all processes run.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Harms one stack.
#[derive(Debug)]
pub struct Nemesis<'a> {
    cluster: &'a Cluster,
    clock: Clock,
    /// Held while a group is being hit.
    groups: BTreeMap<Group, Lock<()>>,
    notes: Mutex<Notes>,
}

#[derive(Debug)]
struct Notes {
    file: File,
    faults: BTreeMap<String, usize>,
    failures: Vec<String>,
    casualties: Vec<String>,
    revived: BTreeMap<Member, usize>,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Harm {
    /// Faults by kind.
    pub faults: BTreeMap<String, usize>,
    /// Faults that could not be done or healed, in words.
    pub failures: Vec<String>,
    /// Processes that ended of what must not harm them, in words. There must be none.
    pub casualties: Vec<String>,
    /// Processes that ended although nobody had hit them then, and were started again.
    pub revived: BTreeMap<Member, usize>,
}

impl<'a> Nemesis<'a> {
    /// Somebody who will harm this stack and write down what it does.
    ///
    /// # Errors
    /// Its file cannot be made.
    pub fn new(cluster: &'a Cluster, clock: Clock) -> Result<Self> {
        let groups = cluster
            .members()
            .map(|member| (Blow::Kill(member).group(), Lock::new(())));
        let notes = Notes {
            file: File::create(cluster.directory().join("nemesis.log"))?,
            faults: BTreeMap::new(),
            failures: Vec::new(),
            casualties: Vec::new(),
            revived: BTreeMap::new(),
        };
        Ok(Self {
            cluster,
            clock,
            groups: groups.collect(),
            notes: Mutex::new(notes),
        })
    }

    /// Does all of it, each fault in its time or, if its group has not recovered by then, later.
    pub async fn strike(&self, faults: &[Fault]) {
        let start = Instant::now();
        let strikes = faults.iter().map(|fault| async move {
            tokio::time::sleep_until(start + fault.at).await;
            let held = self.hold(fault.blow.group()).await;
            self.note(&format!(
                "{} for {} ms",
                fault.blow,
                fault.lasts.as_millis()
            ));
            match self.perform(fault).await {
                Ok(()) => self.note(&format!("{} is over", fault.blow)),
                Err(error) => self.failed(&format!("{}: {error:#}", fault.blow)),
            }
            self.count(&fault.blow);
            drop(held);
        });
        join_all(strikes).await;
    }

    /// Starts whoever ends by itself, for ever.
    pub async fn revive(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for member in self.cluster.members() {
                let Some(group) = self.groups.get(&Blow::Kill(member).group()) else {
                    continue;
                };
                // Whoever is being hit is brought back by the one who hits.
                let Ok(held) = group.try_lock() else { continue };
                match self.cluster.revive(member).await {
                    Ok(false) => {}
                    Ok(true) => self.revived(member),
                    Err(error) => self.failed(&format!("{member} is not revived: {error:#}")),
                }
                drop(held);
            }
        }
    }

    /// What was done so far.
    pub fn harm(&self) -> Harm {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        Harm {
            faults: notes.faults.clone(),
            failures: notes.failures.clone(),
            casualties: notes.casualties.clone(),
            revived: notes.revived.clone(),
        }
    }

    /// Waits until everybody serves.
    ///
    /// # Errors
    /// Somebody does not.
    pub async fn heal(&self) -> Result<()> {
        for member in self.cluster.members() {
            let _held = self.hold(Blow::Kill(member).group()).await;
            self.bring_back(member).await?;
        }
        self.note("everybody serves");
        Ok(())
    }

    /// Kills all workers at once and brings them back: what they alone knew is gone.
    ///
    /// # Errors
    /// One survives, or does not come back.
    pub async fn kill_all_workers(&self) -> Result<()> {
        let workers: Vec<_> = self
            .cluster
            .members()
            .filter(|member| matches!(member, Member::Worker(_)))
            .collect();
        self.note("kill all workers");
        let groups = workers.iter().map(|worker| Blow::Kill(*worker).group());
        let held = join_all(groups.map(|group| self.hold(group))).await;
        for killed in join_all(workers.iter().map(|worker| self.cluster.kill(*worker))).await {
            killed?;
        }
        drop(held);
        self.heal().await
    }

    /// Keeps a group from being hit or revived by others.
    async fn hold(&self, group: Group) -> Option<MutexGuard<'_, ()>> {
        Some(self.groups.get(&group)?.lock().await)
    }

    async fn perform(&self, fault: &Fault) -> Result<()> {
        match fault.blow {
            Blow::Kill(member) => {
                self.cluster.kill(member).await?;
                tokio::time::sleep(fault.lasts).await;
                self.bring_back(member).await
            }
            Blow::Pause(member) => {
                self.cluster.pause(member).await?;
                tokio::time::sleep(fault.lasts).await;
                self.cluster.resume(member).await?;
                self.bring_back(member).await
            }
            Blow::Restart(member) => {
                let status = self.cluster.stop(member).await?;
                self.note(&format!("{member} ended with {status}"));
                self.bring_back(member).await
            }
            Blow::Reload(member) => {
                let pid = self.cluster.pid(member).await?;
                self.cluster.reload(member).await?;
                tokio::time::sleep(fault.lasts).await;
                self.unharmed(fault, member, pid).await
            }
            Blow::Twin(member) => {
                let Member::Worker(worker) = member else {
                    bail!("only workers have twins");
                };
                let pid = self.cluster.pid(member).await?;
                let said = self.cluster.start_twin(worker, TWIN_ENDS_WITHIN).await?;
                self.note(&format!("the twin of {member} said: {}", said.trim_end()));
                self.unharmed(fault, member, pid).await
            }
            Blow::Trouble(trouble) => {
                self.cluster.trouble(trouble).await?;
                tokio::time::sleep(fault.lasts).await;
                self.cluster.trouble(Trouble::default()).await
            }
        }
    }

    /// Notes a process that did not survive what must not harm it.
    async fn unharmed(&self, fault: &Fault, member: Member, pid: u32) -> Result<()> {
        if !matches!(self.cluster.pid(member).await, Ok(now) if now == pid) {
            let casualty = format!("{}: {member} did not survive", fault.blow);
            self.note(&casualty);
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            notes.casualties.push(casualty);
        }
        self.bring_back(member).await
    }

    /// Starts it, or the worker that starts it, as often as it takes.
    async fn bring_back(&self, member: Member) -> Result<()> {
        let starter = member.starter().map_or(member, Member::Worker);
        until(&format!("{member} is back"), BACK_WITHIN, async || {
            self.cluster.revive(starter).await?;
            let back = self.cluster.serves(starter).await? && self.cluster.serves(member).await?;
            Ok(back.then_some(()))
        })
        .await
        .with_context(|| self.cluster.tail(starter))
    }

    fn note(&self, what: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        // The run goes on without its notes.
        drop(writeln!(notes.file, "{} {what}", self.clock.now_us()));
    }

    fn failed(&self, what: &str) {
        self.note(what);
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.failures.push(what.to_owned());
    }

    fn count(&self, blow: &Blow) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        *notes.faults.entry(blow.kind()).or_default() += 1;
    }

    fn revived(&self, member: Member) {
        self.note(&format!("{member} had ended by itself and was started"));
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        *notes.revived.entry(member).or_default() += 1;
    }
}
