//! A writer with all that can happen to it, on a real directory whose clock is turned forward.

use std::{collections::BTreeMap, fs};

use futures_util::TryStreamExt;
use proptest::{collection::vec, prelude::*};
use proto::limits;

use super::*;
use crate::{
    log::{
        commit::{File, Hash, TreePath},
        content,
    },
    tests::{
        faults::{Fault, Faulty},
        generate::{epoch, file, noise, path, paths, place},
    },
};

/// What a client of the log does, or what befalls it.
#[derive(Clone, Debug)]
enum Step {
    /// Puts contents at paths, those that the log has already by reference.
    Put(Vec<(TreePath, u8, Way)>),
    Remove(TreePath),
    Checkpoint,
    /// Time passes, more than the dead are kept.
    Age,
    /// The next conditional write goes wrong.
    Fail(Fault),
    /// The worker dies and another one takes over.
    Move,
    /// Contents are uploaded and never used.
    Abandon(u8),
}

/// Where new contents go.
#[derive(Clone, Copy, Debug)]
enum Way {
    Pack,
    Blob,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let way = prop_oneof![Just(Way::Pack), Just(Way::Blob)];
    let fault = prop_oneof![
        Just(Fault::LostAnswer),
        Just(Fault::LostRequest),
        Just(Fault::Repeated),
        Just(Fault::Conflict),
    ];
    let step = prop_oneof![
        8 => vec((paths(), 0..6_u8, way), 1..4).prop_map(Step::Put),
        4 => paths().prop_map(Step::Remove),
        4 => Just(Step::Checkpoint),
        3 => Just(Step::Age),
        3 => fault.prop_map(Step::Fail),
        1 => Just(Step::Move),
        1 => (0..6_u8).prop_map(Step::Abandon),
    ];
    vec(step, 1..40)
}

/// Half of the contents are worth hollowing a commit for.
fn contents(which: u8) -> Vec<u8> {
    let length = if which.is_multiple_of(2) { 20_000 } else { 100 };
    noise(u64::from(which), length)
}

struct World {
    directory: tempfile::TempDir,
    faults: Arc<Faulty>,
    store: Store,
    place: LogKey,
    writer: Writer,
    /// What files must say, by what their manifest calls them.
    contents: BTreeMap<[u8; 32], u8>,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(
            &format!("file://{}", directory.path().display()),
            Ids::random(),
        )
        .unwrap();
        let faults = Faulty::over(store.objects.clone());
        let store = Store::over(faults.clone(), Ids::random());
        let place = place();
        Self {
            writer: Writer::fresh(store.clone(), place.clone(), epoch(1)),
            contents: (0..6)
                .map(|which| (Hash::of(&contents(which)).0, which))
                .collect(),
            directory,
            faults,
            store,
            place,
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Put(files) => self.put(files).await,
            Step::Remove(path) => {
                let body = Body::Delta(vec![Change::Remove(path)]);
                self.append(body, vec![]).await;
            }
            Step::Checkpoint => {
                self.settle().await;
                self.writer.checkpoint().await.unwrap();
            }
            Step::Age => self.faults.pass(limits::DEAD_GRACE),
            Step::Fail(fault) => self.faults.next([fault]),
            Step::Move => self.take_over().await,
            Step::Abandon(which) => {
                drop(self.writer.put_blob(contents(which).into()).await.unwrap());
            }
        }
        self.check().await;
    }

    async fn put(&mut self, files: Vec<(TreePath, u8, Way)>) {
        self.settle().await;
        let (mut changes, mut pack) = (vec![], vec![]);
        for (path, which, way) in files {
            let bytes = contents(which);
            let len = u32::try_from(bytes.len()).unwrap();
            let found = self.writer.manifest().find(&Hash::of(&bytes), len);
            let (source, start) = match (found, way) {
                (Some((source, start)), _) => (source.clone(), start as usize),
                (None, Way::Pack) => {
                    pack.extend(&bytes);
                    (Source::Own, pack.len() - bytes.len())
                }
                (None, Way::Blob) => {
                    let name = self.writer.put_blob(bytes.clone().into()).await.unwrap();
                    (Source::Blob(name), 0)
                }
            };
            let node = Node::File(file(&bytes, source, start));
            changes.push(Change::Put(path, node));
        }
        self.append(Body::Delta(changes), pack).await;
    }

    async fn append(&mut self, body: Body, pack: Vec<u8>) {
        self.settle().await;
        match self.writer.append(body, pack).await {
            Ok(_) | Err(AppendError::Entry(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn settle(&mut self) {
        for _ in 0..10 {
            if self.writer.settle().await.is_ok() {
                return;
            }
        }
        panic!("never settled");
    }

    async fn take_over(&mut self) {
        let mut next = self.writer.epoch();
        loop {
            next = next.next();
            let taken = Writer::take_over(self.store.clone(), self.place.clone(), next).await;
            match taken {
                Ok((writer, _)) => {
                    let mut old = std::mem::replace(&mut self.writer, writer);
                    // It may have been about to write.
                    let late = old.append(Body::Delta(vec![]), vec![]).await;
                    let refused = matches!(late, Err(AppendError::Fenced | AppendError::Unsettled));
                    // A fault of the store hides the fence, but does not let anything through.
                    assert!(
                        refused || matches!(late, Err(AppendError::Entry(_))),
                        "{late:?}"
                    );
                    assert!(old.head() < self.writer.head());
                    return;
                }
                // The fence may have been written all the same.
                Err(TakeOverError::Entry(_) | TakeOverError::Behind { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// The log says what the writer says, and every file can be read.
    async fn check(&self) {
        let read = history::read(&self.store, &self.place).await.unwrap();
        if !self.writer.is_pending() {
            assert!(read.manifest == **self.writer.manifest());
            assert_eq!(read.head, self.writer.head());
        }
        for (_, node) in read.manifest.iter() {
            if let Node::File(file) = node {
                let which = self.contents[&file.extents[0].hash.0];
                assert!(self.bytes(file).await == contents(which));
            }
        }
    }

    async fn bytes(&self, file: &File) -> Vec<u8> {
        let read = content::read(&self.store, &self.place, file, 0..file.size);
        let chunks: Vec<Bytes> = read.try_collect().await.unwrap();
        chunks.concat()
    }

    fn objects(&self, kind: &str) -> usize {
        let prefix = self.directory.path().join(self.place.prefix().as_ref());
        fs::read_dir(prefix.join(kind)).map_or(0, Iterator::count)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_log_says_what_its_writer_says(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.step(step).await;
            }
        });
    }
}

fn put_one(which: u8, way: Way) -> Step {
    Step::Put(vec![(path("file"), which, way)])
}

#[tokio::test]
async fn what_nothing_needs_is_deleted_in_time_and_not_before() {
    let mut world = World::new();
    // Two packs and two blobs, of which one each is overwritten.
    for (which, way) in [(0, Way::Pack), (2, Way::Blob), (4, Way::Blob)] {
        world.step(put_one(which, way)).await;
    }
    world
        .step(Step::Put(vec![(path("other"), 0, Way::Pack)]))
        .await;
    assert_eq!(
        (world.objects("b"), world.objects("c"), world.objects("k")),
        (2, 4, 0)
    );
    let size = |world: &World, seq| {
        let key = world
            .directory
            .path()
            .join(world.place.commit(Seq(seq)).as_ref());
        fs::metadata(key).unwrap().len()
    };

    world.step(Step::Checkpoint).await;
    // Declared dead just now, so it is there.
    world.step(Step::Remove(path("x"))).await;
    world.step(Step::Checkpoint).await;
    assert_eq!((world.objects("b"), world.objects("k")), (2, 2));
    assert!(size(&world, 1) > 20_000);

    world.step(Step::Age).await;
    world.step(Step::Remove(path("x"))).await;
    world.step(Step::Checkpoint).await;
    // The blob went; the commit became a shell; the checkpoint before the last went, for the last
    // one's successor is new.
    assert_eq!(world.objects("b"), 1);
    assert!(size(&world, 1) < 200, "{}", size(&world, 1));
    assert_eq!((world.objects("c"), world.objects("k")), (6, 2));
    // The other pack is needed.
    assert!(size(&world, 4) > 20_000);

    // A hollow commit is still in the way of whoever slept.
    let mut sleeper = Writer::fresh(world.store.clone(), world.place.clone(), epoch(1));
    let late = sleeper.append(Body::Delta(vec![]), vec![]).await;
    assert!(matches!(late, Err(AppendError::Fenced)));
    world.step(Step::Move).await;
}

#[tokio::test]
async fn a_plan_from_before_a_checkpoint_cannot_wake_the_dead() {
    let mut world = World::new();
    world.step(put_one(2, Way::Blob)).await;
    let Some(Node::File(planned)) = world.writer.manifest().get(&path("file")).cloned() else {
        panic!("a file");
    };
    world.step(Step::Remove(path("file"))).await;
    // Not yet declared dead, it may still be used again.
    let again = Body::Delta(vec![Change::Put(
        path("again"),
        Node::File(planned.clone()),
    )]);
    world.append(again.clone(), vec![]).await;
    world.step(Step::Remove(path("again"))).await;
    world.step(Step::Checkpoint).await;
    let refused = world.writer.append(again, vec![]).await;
    assert!(matches!(refused, Err(AppendError::Dead)), "{refused:?}");
    assert!(!world.writer.is_pending());
}

#[tokio::test]
async fn many_superfluous_blobs_call_for_a_checkpoint() {
    let mut world = World::new();
    let mut count = 0;
    while !world.writer.needs_checkpoint() {
        count += 1;
        assert!(count < 64, "only the number of commits calls for one");
        // Each overwrites what the one before wrote.
        let files = (0..4_u8).map(|n| (path(&format!("f{n}")), n, Way::Blob));
        let mut changes = vec![];
        for (at, which, _) in files {
            let bytes = noise(count * 10 + u64::from(which), 50);
            let name = world.writer.put_blob(bytes.clone().into()).await.unwrap();
            changes.push(Change::Put(
                at,
                Node::File(file(&bytes, Source::Blob(name), 0)),
            ));
        }
        world.append(Body::Delta(changes), vec![]).await;
    }
    assert_eq!(count, 17);
    world.writer.checkpoint().await.unwrap();
    assert!(!world.writer.needs_checkpoint());
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_leaves_nothing_pending() {
    let mut world = World::new();
    let beyond = Node::File(file(b"abc", Source::Own, 0));
    let beyond = Body::Delta(vec![Change::Put(path("a"), beyond)]);
    let refused = world.writer.append(beyond, b"ab".to_vec()).await;
    assert!(matches!(
        refused,
        Err(AppendError::Commit(CommitError::Pack))
    ));
    for body in [Body::Fence, Body::Hollow] {
        let refused = world.writer.append(body, vec![]).await;
        assert!(matches!(refused, Err(AppendError::Body)));
    }
    assert!(!world.writer.is_pending());
    assert_eq!(world.objects("c"), 0);
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_its_commit_pending() {
    let mut world = World::new();
    let (body, pack) = crate::tests::generate::put("a", b"1");
    let append = world.writer.append(body, pack);
    // Polled once, it has begun.
    assert!(futures_util::future::FutureExt::now_or_never(append).is_none());
    assert!(world.writer.is_pending());
    world.settle().await;
    assert_eq!(world.writer.head(), Seq(1));
    let read = history::read(&world.store, &world.place).await.unwrap();
    assert!(read.head == Seq(1) && read.manifest == **world.writer.manifest());
}
