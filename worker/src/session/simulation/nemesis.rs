//! What goes wrong in a simulated fleet beside what [`Chances`](super::Chances) say of each message.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{WORKERS, World, caller::Ingress, member::Member};

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Struck {
    /// A machine is gone; another takes its place.
    Crash,
    /// A machine stands still for a while.
    Standstill,
    /// A worker's connection to the bus is lost for a while.
    WorkerCut,
    /// An ingress's connection to the bus is lost for a while.
    IngressCut,
    /// All servers of the bus are stopped for a while.
    BusStopped,
    /// The object store fails a worker for a while.
    StoreLost,
    /// A worker is told to end; another takes its place.
    Drain,
    /// The bus's clock jumps.
    BusClock,
    /// A worker's clock is wrong for a while.
    WorkerClock,
}

impl Struck {
    pub(super) const ALL: [Self; 9] = [
        Self::Crash,
        Self::Standstill,
        Self::WorkerCut,
        Self::IngressCut,
        Self::BusStopped,
        Self::StoreLost,
        Self::Drain,
        Self::BusClock,
        Self::WorkerClock,
    ];
}

/// A worker, and whether something is wrong with it already.
#[derive(Clone, Debug)]
struct Target {
    member: Member,
    is_troubled: Arc<AtomicBool>,
}

impl Target {
    async fn start(world: &World, number: usize) -> Self {
        let member = Member::start(world, &format!("worker-{number}")).await;
        Self {
            member,
            is_troubled: Arc::default(),
        }
    }

    /// Does something to it, and undoes it after a while.
    fn trouble(&self, time: Duration, begin: fn(&Member), end: fn(&Member)) {
        self.is_troubled.store(true, Ordering::Relaxed);
        begin(&self.member);
        let target = self.clone();
        tokio::spawn(async move {
            sleep(time).await;
            end(&target.member);
            target.is_troubled.store(false, Ordering::Relaxed);
        });
    }

    fn is_troubled(&self) -> bool {
        self.is_troubled.load(Ordering::Relaxed)
    }
}

/// Whoever makes things go wrong.
#[derive(Debug)]
pub(super) struct Nemesis {
    targets: Vec<Target>,
    /// Runs of workers so far.
    runs: usize,
    pub(super) struck: Vec<Struck>,
}

impl Nemesis {
    /// A fleet in which all is well.
    pub(super) async fn begin(world: &World) -> Self {
        let mut targets = vec![];
        for number in 0..WORKERS {
            targets.push(Target::start(world, number).await);
        }
        Self {
            targets,
            runs: WORKERS,
            struck: vec![],
        }
    }

    /// Has things go wrong until this moment.
    pub(super) async fn trouble(&mut self, world: &World, ingresses: &[Ingress], end: Instant) {
        while Instant::now() < end {
            sleep(upto(world, 12_000)).await;
            self.replace_those_that_are_gone(world).await;
            let place = below(world, self.targets.len());
            let what = Struck::ALL[below(world, Struck::ALL.len())];
            let in_the_way = match what {
                Struck::BusStopped => self.targets.iter().any(Target::is_troubled),
                _ => self.targets[place].is_troubled(),
            };
            if in_the_way {
                continue;
            }
            self.struck.push(what);
            self.strike(world, ingresses, (what, place)).await;
        }
    }

    async fn strike(
        &mut self,
        world: &World,
        ingresses: &[Ingress],
        (what, place): (Struck, usize),
    ) {
        let target = &self.targets[place];
        let time = upto(world, 15_000);
        match what {
            Struck::Crash => {
                target.member.crash();
                self.replace(world, place).await;
            }
            Struck::Drain => {
                let member = target.member.clone();
                tokio::spawn(async move { member.drain().await });
                self.replace(world, place).await;
            }
            Struck::Standstill => target.trouble(time, Member::stop, Member::go_on),
            Struck::WorkerCut => target.trouble(time, Member::cut, Member::mend),
            Struck::StoreLost => target.trouble(time, Member::lose_store, Member::find_store),
            Struck::WorkerClock => target.trouble(
                time,
                |member| member.put_forward(Duration::from_secs(300)),
                |member| member.put_forward(Duration::ZERO),
            ),
            Struck::IngressCut => {
                let ingress = ingresses[below(world, ingresses.len())].clone();
                ingress.cut();
                sleep(time).await;
                ingress.mend();
            }
            Struck::BusStopped => self.stop_bus(world, ingresses, time).await,
            Struck::BusClock => match below(world, 2) {
                0 => world.bus.put_forward(upto(world, 15_000)),
                _ => world.bus.put_back(upto(world, 15_000)),
            },
        }
    }

    /// Workers end by themselves, too.
    async fn replace_those_that_are_gone(&mut self, world: &World) {
        for place in 0..self.targets.len() {
            if self.targets[place].member.is_gone() {
                self.replace(world, place).await;
            }
        }
    }

    async fn replace(&mut self, world: &World, place: usize) {
        sleep(upto(world, 5000)).await;
        self.targets[place] = Target::start(world, self.runs).await;
        self.runs += 1;
    }

    async fn stop_bus(&self, world: &World, ingresses: &[Ingress], time: Duration) {
        world.bus.stop();
        self.targets.iter().for_each(|target| target.member.cut());
        ingresses.iter().for_each(Ingress::cut);
        sleep(time).await;
        world.bus.start();
        self.targets.iter().for_each(|target| target.member.mend());
        ingresses.iter().for_each(Ingress::mend);
    }

    /// From here on nothing goes wrong.
    pub(super) async fn relent(&mut self, world: &World, ingresses: &[Ingress]) {
        ingresses.iter().for_each(Ingress::calm);
        while self.targets.iter().any(Target::is_troubled) {
            sleep(Duration::from_millis(100)).await;
        }
        self.replace_those_that_are_gone(world).await;
        self.targets.iter().for_each(|target| target.member.calm());
    }
}

fn upto(world: &World, most_ms: u64) -> Duration {
    Duration::from_millis(world.chance.below(most_ms))
}

fn below(world: &World, end: usize) -> usize {
    usize::try_from(world.chance.below(end as u64)).unwrap()
}
