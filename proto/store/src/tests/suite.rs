//! What every kind of store must do, on one of each.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use proto::{
    ambient::{Ids, WallClock},
    blob::{Blob, Staged},
    subject,
};
use tokio::time::Instant;

use super::{
    faults::{Fault, Faulty},
    generate::{epoch, file, noise, path, place, put, remove},
    stores,
};
use crate::{
    StagingScope, Store, StoreError,
    log::{
        collect,
        commit::{Body, Change, Extent, File, Hash, Node, PIECE_BYTES, Seq, Source, Variables},
        content, history,
        key::LogKey,
        manifest::Manifest,
        source,
        writer::{AppendError, TakeOver, TakeOverError, Writer},
    },
};

macro_rules! on_every_store {
    ($($scenario:ident),+ $(,)?) => {
        on_every_store!(@on local $($scenario)+);
        on_every_store!(@on model $($scenario)+);
        on_every_store!(@on azurite $($scenario)+);
        on_every_store!(@on moto $($scenario)+);
    };
    (@on $kind:ident $($scenario:ident)+) => {
        mod $kind {
            $(
                #[tokio::test]
                async fn $scenario() {
                    let opened = super::stores::$kind();
                    super::$scenario(opened.store.clone()).await;
                }
            )+
        }
    };
}

on_every_store!(
    the_probe_accepts_and_leaves_nothing,
    staged_bodies_travel_whole_and_leave_nothing,
    staged_bodies_of_another_length_are_refused,
    a_log_is_read_as_it_was_written,
    ranges_of_a_file_with_holes_are_read,
    an_old_owner_is_fenced,
    a_log_that_is_only_read_keeps_its_owner_and_its_variables,
    a_log_at_the_same_epoch_or_beyond_is_not_taken_over,
    a_commit_whose_answer_was_lost_is_its_writers_own,
    a_commit_that_never_arrived_is_written_by_settling,
    a_pending_commit_that_somebody_else_overtook_is_not_in_the_log,
    racing_take_overs_have_one_order,
    variables_are_valid_once_directly_before_the_fence,
    a_checkpoint_begins_the_history,
    a_missing_commit_is_named,
    a_deleted_incarnation_leaves_nothing,
    whoever_was_replaced_meets_the_fence_of_a_session_that_is_over,
);

async fn the_probe_accepts_and_leaves_nothing(store: Store) {
    store.probe().await.unwrap();
    let left = store.list(&Path::from("probe"), None).await.unwrap();
    assert_eq!(left.len(), 0);
}

struct Job {
    pool: proto::id::PoolId,
    session: proto::id::SessionKey,
    operation: proto::id::OperationId,
}

impl Job {
    fn new() -> Self {
        let LogKey { pool, session, .. } = place();
        let operation = "an operation".parse().unwrap();
        Self {
            pool,
            session,
            operation,
        }
    }

    fn owner(&self) -> StagingScope<'_> {
        StagingScope {
            pool: &self.pool,
            session: &self.session,
            operation: &self.operation,
        }
    }
}

async fn nothing_is_staged(store: &Store) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let prefix = Path::from(subject::STAGING);
        let left = store.list(&prefix, None).await.unwrap();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{} are left", left.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn staged_bodies_travel_whole_and_leave_nothing(store: Store) {
    let job = Job::new();
    let bytes = noise(1, 300_000);
    let staged = store
        .stage_bytes(bytes.clone(), job.owner(), "in")
        .await
        .unwrap();
    assert_eq!(store.read_all(staged, 300_000).await.unwrap(), bytes);

    let long = noise(2, 11_000_000);
    let mut upload = store.begin(job.owner(), "in").await.unwrap();
    for part in long.chunks(700_000) {
        upload.write(Bytes::copy_from_slice(part)).await.unwrap();
    }
    let staged = upload.finish().await.unwrap();
    assert_eq!(staged.size, long.len() as u64);
    let parts: Vec<Bytes> = store
        .read(staged)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert!(parts.concat() == long);

    let staged = store
        .stage_reader(&*long, job.owner(), "out")
        .await
        .unwrap();
    let fetched = store.fetch_bytes(Blob::Staged(staged), long.len()).await;
    assert!(fetched.unwrap() == long);

    let mut upload = store.begin(job.owner(), "in").await.unwrap();
    upload.write(long.into()).await.unwrap();
    upload.abort().await;

    let staged = store.stage_bytes(bytes, job.owner(), "in").await.unwrap();
    store.discard(&staged).await;
    store.discard(&staged).await;
    nothing_is_staged(&store).await;
    // Nothing is old enough to be swept, and nothing of that is an error.
    let now = store.time().await.unwrap();
    store.sweep(now).await.unwrap();
}

async fn staged_bodies_of_another_length_are_refused(store: Store) {
    let job = Job::new();
    for lie in [-1_i64, 1] {
        let stage = || store.stage_bytes(noise(3, 1000), job.owner(), "in");
        let wrong = |staged: Staged| Staged {
            size: staged.size.checked_add_signed(lie).unwrap(),
            ..staged
        };
        let staged = wrong(stage().await.unwrap());
        let read = store.read_all(staged, 5000).await;
        assert!(matches!(read, Err(StoreError::Length)));
        let staged = wrong(stage().await.unwrap());
        assert!(matches!(
            store.read(staged).await.map(drop),
            Err(StoreError::Length)
        ));
        let staged = wrong(stage().await.unwrap());
        let read = store.fetch_bytes(Blob::Staged(staged), 5000).await;
        assert!(matches!(read, Err(StoreError::Length)));
    }
    let staged = store
        .stage_bytes(noise(3, 1000), job.owner(), "in")
        .await
        .unwrap();
    let read = store.read_all(staged.clone(), 999).await;
    assert!(matches!(read, Err(StoreError::Length)));
    nothing_is_staged(&store).await;
    let read = store.read_all(staged, 1000).await;
    assert!(matches!(read, Err(StoreError::Gone)));
}

async fn read_file(store: &Store, place: &LogKey, file: &File) -> Vec<u8> {
    let read = content::read(store, place, file, 0..u64::MAX);
    let chunks: Vec<Bytes> = read.try_collect().await.unwrap();
    chunks.concat()
}

fn file_at<'a>(manifest: &'a Manifest, at: &str) -> &'a File {
    match manifest.get(&path(at)) {
        Some(Node::File(file)) => file,
        other => panic!("no file: {other:?}"),
    }
}

/// A commit of every kind of node: two small files in the pack and a large one in blobs, with a hole.
async fn a_tree(writer: &mut Writer) -> (Vec<u8>, Vec<u8>) {
    let (small, piece) = (noise(4, 1000), noise(5, PIECE_BYTES as usize));
    let end = noise(6, 12_345);
    let pack = [&b"first"[..], &small].concat();
    let mut large = file(&piece, Source::Own, 0);
    let at = 3 * u64::from(PIECE_BYTES);
    large.extents[0].source = Source::Blob(writer.put_blob(piece.clone().into()).await.unwrap());
    large.extents.push(Extent {
        at,
        len: 12_345,
        hash: Hash::of(&end),
        source: Source::Blob(writer.put_blob(end.clone().into()).await.unwrap()),
        start: 0,
    });
    large.size = at + 12_345 + 100;
    let mut whole = piece;
    whole.resize(usize::try_from(at).unwrap(), 0);
    whole.extend(end);
    whole.resize(whole.len() + 100, 0);
    let directory = Node::Directory {
        mode: 0o700,
        modified_ns: 7,
    };
    let link = Node::Symlink {
        target: b"../elsewhere".to_vec(),
    };
    let changes = vec![
        Change::Put(path("d"), directory),
        Change::Put(path("d/first"), Node::File(file(b"first", Source::Own, 0))),
        Change::Put(path("d/small"), Node::File(file(&small, Source::Own, 5))),
        Change::Put(path("large"), Node::File(large)),
        Change::Put(path("link"), link),
    ];
    writer.append(Body::Delta(changes), pack).await.unwrap();
    (small, whole)
}

async fn a_log_is_read_as_it_was_written(store: Store) {
    let place = place();
    let empty = history::read(&store, &place).await.unwrap();
    assert_eq!((empty.head, empty.manifest.len()), (Seq(0), 0));

    let mut writer = Writer::fresh(store.clone(), place.clone(), epoch(1));
    let (small, large) = a_tree(&mut writer).await;
    let (body, pack) = put("implied/parents/here", b"x");
    assert_eq!(writer.append(body, pack).await.unwrap(), Seq(2));
    assert_eq!(
        writer.append(remove("d/first"), vec![]).await.unwrap(),
        Seq(3)
    );

    let read = history::read(&store, &place).await.unwrap();
    assert_eq!((read.head, read.epoch), (Seq(3), epoch(1)));
    assert!(read.manifest == **writer.manifest());
    assert_eq!(read.manifest.len(), 7);
    let manifest = &read.manifest;
    assert!(read_file(&store, &place, file_at(manifest, "d/small")).await == small);
    assert!(read_file(&store, &place, file_at(manifest, "large")).await == large);

    // What is found again need not be written again.
    let len = u32::try_from(small.len()).unwrap();
    let (found, start) = manifest.find(&Hash::of(&small), len).unwrap();
    assert_eq!((found, start), (&Source::Pack(Seq(1)), 5));
    let fetched = source::fetch(&store, &place, found).await.unwrap();
    assert!(fetched.slice(5..) == small);
}

async fn ranges_of_a_file_with_holes_are_read(store: Store) {
    let place = place();
    let mut writer = Writer::fresh(store.clone(), place.clone(), epoch(1));
    let (_, whole) = a_tree(&mut writer).await;
    let file = file_at(writer.manifest(), "large");
    let size = whole.len() as u64;
    let piece = u64::from(PIECE_BYTES);
    for range in [
        0..10,
        piece - 5..piece + 5,
        2 * piece..2 * piece + 200_000,
        3 * piece - 1..3 * piece + 1,
        size - 101..size,
        size - 1..size + 50,
        size..size + 1,
        5..5,
        std::ops::Range { start: 7, end: 2 },
    ] {
        let chunks: Vec<Bytes> = content::read(&store, &place, file, range.clone())
            .try_collect()
            .await
            .unwrap();
        let from = usize::try_from(range.start.min(size)).unwrap();
        let to = usize::try_from(range.end.min(size)).unwrap().max(from);
        assert!(chunks.concat() == whole[from..to], "{range:?}");
        assert!(
            chunks
                .iter()
                .all(|chunk| chunk.len() <= PIECE_BYTES as usize)
        );
    }
}

async fn an_old_owner_is_fenced(store: Store) {
    let place = place();
    let mut old = Writer::fresh(store.clone(), place.clone(), epoch(1));
    let (body, pack) = put("kept", b"one");
    old.append(body, pack).await.unwrap();

    let (mut new, variables) = Writer::take_over(store.clone(), place.clone(), epoch(2))
        .await
        .unwrap();
    assert!(variables.is_none());
    assert_eq!((new.head(), new.epoch()), (Seq(2), epoch(2)));
    assert!(new.manifest() == old.manifest());

    let (body, pack) = put("zombie", b"two");
    let refused = old.append(body, pack).await;
    assert!(matches!(refused, Err(AppendError::Fenced)), "{refused:?}");
    let (body, pack) = put("again", b"three");
    assert!(matches!(
        old.append(body, pack).await,
        Err(AppendError::Fenced)
    ));
    assert!(old.is_fenced() && !old.is_pending());
    assert!(old.checkpoint().await.is_err());

    let (body, pack) = put("new", b"four");
    assert_eq!(new.append(body, pack).await.unwrap(), Seq(3));
    let read = history::read(&store, &place).await.unwrap();
    assert!(read.manifest == **new.manifest());
    assert!(read.manifest.get(&path("zombie")).is_none());
}

async fn a_log_that_is_only_read_keeps_its_owner_and_its_variables(store: Store) {
    let place = place();
    let mut old = Writer::fresh(store.clone(), place.clone(), epoch(1));
    let (body, pack) = put("kept", b"one");
    old.append(body, pack).await.unwrap();
    let read = TakeOver::read(store.clone(), place.clone(), epoch(2))
        .await
        .unwrap();
    assert!(*read.manifest() == **old.manifest());
    let (body, pack) = put("more", b"two");
    old.append(body, pack).await.unwrap();
    let left = Variables {
        blob: old.put_blob(noise(9, 100).into()).await.unwrap(),
        size: 100,
        lost: vec![],
    };
    old.append(Body::Variables(left.clone()), vec![])
        .await
        .unwrap();
    // Who reads and gives up costs nothing.
    drop(TakeOver::read(store, place, epoch(2)).await.unwrap());
    let (new, found) = read.fence().await.unwrap();
    assert_eq!(found, Some(left));
    assert!(new.manifest().get(&path("more")).is_some());
}

async fn a_log_at_the_same_epoch_or_beyond_is_not_taken_over(store: Store) {
    let place = place();
    let mut writer = Writer::fresh(store.clone(), place.clone(), epoch(5));
    let (body, pack) = put("a", b"a");
    writer.append(body, pack).await.unwrap();
    for late in [4, 5] {
        let taken = Writer::take_over(store.clone(), place.clone(), epoch(late)).await;
        assert!(
            matches!(taken, Err(TakeOverError::Behind { log }) if log == epoch(5)),
            "{late}"
        );
    }
    // Nothing of that disturbs the owner.
    assert_eq!(writer.append(remove("a"), vec![]).await.unwrap(), Seq(2));
}

fn faulty(store: &Store) -> (std::sync::Arc<Faulty>, Store) {
    let faulty = Faulty::over(store.objects.clone());
    (faulty.clone(), Store::over(faulty, Ids::random()))
}

async fn a_commit_whose_answer_was_lost_is_its_writers_own(store: Store) {
    let place = place();
    let (faults, through) = faulty(&store);
    let mut writer = Writer::fresh(through.clone(), place.clone(), epoch(1));

    faults.next([Fault::LostAnswer]);
    let (body, pack) = put("a", b"1");
    let unknown = writer.append(body, pack).await;
    assert!(matches!(unknown, Err(AppendError::Entry(_))), "{unknown:?}");
    assert!(writer.is_pending() && writer.head() == Seq(0) && writer.manifest().is_empty());
    // Nothing new before it is known what became of the old.
    let (body, pack) = put("b", b"2");
    assert!(matches!(
        writer.append(body, pack).await,
        Err(AppendError::Unsettled)
    ));
    assert!(writer.checkpoint().await.is_err());
    assert!(writer.settle().await.unwrap());
    assert!(!writer.settle().await.unwrap());
    assert_eq!((writer.head(), writer.manifest().len()), (Seq(1), 1));

    // Answers that the client's own repetition got, and conflicts about nothing.
    for (fault, name) in [(Fault::Repeated, "b"), (Fault::Conflict, "c")] {
        faults.next([fault]);
        let (body, pack) = put(name, b"3");
        writer.append(body, pack).await.unwrap();
    }
    assert_eq!(writer.head(), Seq(3));

    // The same for a fence.
    for (fault, number) in [(Fault::Repeated, 2), (Fault::Conflict, 3)] {
        faults.next([fault]);
        let place = place.clone();
        let (taken, _) = Writer::take_over(through.clone(), place, epoch(number))
            .await
            .unwrap();
        assert!(taken.manifest() == writer.manifest());
    }
    faults.next([Fault::LostAnswer]);
    let lost = Writer::take_over(through.clone(), place.clone(), epoch(4)).await;
    assert!(matches!(lost, Err(TakeOverError::Entry(_))));
    let again = Writer::take_over(through.clone(), place.clone(), epoch(4)).await;
    assert!(matches!(again, Err(TakeOverError::Behind { log }) if log == epoch(4)));
    Writer::take_over(through, place, epoch(5)).await.unwrap();
}

async fn a_commit_that_never_arrived_is_written_by_settling(store: Store) {
    let place = place();
    let (faults, through) = faulty(&store);
    let mut writer = Writer::fresh(through, place.clone(), epoch(1));
    faults.next([Fault::LostRequest, Fault::LostRequest]);
    let (body, pack) = put("a", b"1");
    assert!(writer.append(body, pack).await.is_err());
    assert!(writer.settle().await.is_err());
    assert_eq!(history::read(&store, &place).await.unwrap().head, Seq(0));
    assert!(writer.settle().await.unwrap());
    let read = history::read(&store, &place).await.unwrap();
    assert!(read.head == Seq(1) && read.manifest == **writer.manifest());
}

async fn a_pending_commit_that_somebody_else_overtook_is_not_in_the_log(store: Store) {
    let place = place();
    let (faults, through) = faulty(&store);
    let mut old = Writer::fresh(through, place.clone(), epoch(1));
    let (body, pack) = put("a", b"1");
    old.append(body, pack).await.unwrap();
    faults.next([Fault::LostRequest]);
    let (body, pack) = put("b", b"2");
    assert!(old.append(body, pack).await.is_err());
    let (new, _) = Writer::take_over(store.clone(), place.clone(), epoch(2))
        .await
        .unwrap();
    assert!(matches!(old.settle().await, Err(AppendError::Fenced)));
    assert!(old.manifest().get(&path("b")).is_none());
    assert!(new.manifest() == old.manifest());
}

async fn racing_take_overs_have_one_order(store: Store) {
    let place = place();
    let mut old = Writer::fresh(store.clone(), place.clone(), epoch(1));
    let (body, pack) = put("a", b"1");
    old.append(body, pack).await.unwrap();

    let take = |number| Writer::take_over(store.clone(), place.clone(), epoch(number));
    let busy = async {
        // The old owner goes on until it hits a fence.
        for round in 0..1000_u16 {
            let (body, pack) = put("busy", &round.to_be_bytes());
            let begun = Instant::now();
            if let Err(error) = old.append(body, pack).await {
                return error;
            }
            // Code runs between two commits, on a slow machine longer: who takes over makes two requests for each
            // of this one's.
            let pause = Duration::from_millis(20).max(begun.elapsed() * 3);
            tokio::time::sleep(pause).await;
        }
        panic!("the old owner was never fenced");
    };
    let (second, third, fenced) = tokio::join!(take(2), take(3), busy);
    assert!(matches!(fenced, AppendError::Fenced), "{fenced:?}");
    // The higher one always gets there; the lower one only before it.
    let (mut third, _) = third.unwrap();
    let (body, pack) = put("third", b"3");
    third.append(body, pack).await.unwrap();
    match second {
        Err(TakeOverError::Behind { log }) => assert_eq!(log, epoch(3)),
        Err(error) => panic!("{error}"),
        Ok((mut second, _)) => {
            assert!(second.head() < third.head());
            let (body, pack) = put("second", b"2");
            assert!(matches!(
                second.append(body, pack).await,
                Err(AppendError::Fenced)
            ));
        }
    }
    let read = history::read(&store, &place).await.unwrap();
    assert!(read.epoch == epoch(3) && read.manifest == **third.manifest());
    assert!(read.manifest.get(&path("second")).is_none());
}

async fn variables_are_valid_once_directly_before_the_fence(store: Store) {
    let place = place();
    let pickled = noise(9, 50_000);
    let mut writer = Writer::fresh(store.clone(), place.clone(), epoch(1));
    let variables = Variables {
        blob: writer.put_blob(pickled.clone().into()).await.unwrap(),
        size: 50_000,
        lost: vec!["socket".into()],
    };
    let body = Body::Variables(variables.clone());
    writer.append(body.clone(), vec![]).await.unwrap();
    // A checkpoint right there keeps them.
    writer.checkpoint().await.unwrap();
    let read = history::read(&store, &place).await.unwrap();
    assert!(read.variables.as_ref() == Some(&variables));

    let take = |number| Writer::take_over(store.clone(), place.clone(), epoch(number));
    let (_, carried) = take(2).await.unwrap();
    let carried = carried.unwrap();
    assert!(carried == variables);
    let fetched = source::fetch_variables(&store, &place, &carried).await;
    assert!(fetched.unwrap() == pickled);
    let (mut writer, again) = take(3).await.unwrap();
    assert!(again.is_none());

    writer.append(body, vec![]).await.unwrap();
    writer.append(remove("nothing"), vec![]).await.unwrap();
    let (_, behind) = take(4).await.unwrap();
    assert!(behind.is_none());
}

async fn a_checkpoint_begins_the_history(store: Store) {
    let place = place();
    let mut writer = Writer::fresh(store.clone(), place.clone(), epoch(1));
    for round in 0..64_u8 {
        assert!(!writer.needs_checkpoint());
        let (body, pack) = put(&format!("file-{}", round % 10), &[round]);
        writer.append(body, pack).await.unwrap();
    }
    assert!(writer.needs_checkpoint());
    writer.checkpoint().await.unwrap();
    assert!(!writer.needs_checkpoint());
    writer.checkpoint().await.unwrap();
    let (body, pack) = put("after", b"it");
    writer.append(body, pack).await.unwrap();
    let read = history::read(&store, &place).await.unwrap();
    assert!(read.head == Seq(65) && read.manifest == **writer.manifest());

    // Without the commits that it contains it still says the same.
    let mut keys = vec![];
    for object in store.list(&place.commits(), None).await.unwrap() {
        if object.location < place.commit(Seq(65)) {
            keys.push(object.location);
        }
    }
    assert_eq!(keys.len(), 64);
    store.delete_all(keys).await.unwrap();
    let read = history::read(&store, &place).await.unwrap();
    assert!(read.head == Seq(65) && read.manifest == **writer.manifest());
    let (taken, _) = Writer::take_over(store.clone(), place, epoch(2))
        .await
        .unwrap();
    assert!(taken.manifest() == writer.manifest());
}

async fn a_missing_commit_is_named(store: Store) {
    let place = place();
    let mut writer = Writer::fresh(store.clone(), place.clone(), epoch(1));
    for name in ["a", "b", "c"] {
        let (body, pack) = put(name, b"x");
        writer.append(body, pack).await.unwrap();
    }
    store.delete_all(vec![place.commit(Seq(2))]).await.unwrap();
    let read = history::read(&store, &place).await;
    assert!(
        matches!(read, Err(history::HistoryError::Missing(Seq(2)))),
        "{read:?}"
    );
}

async fn whoever_was_replaced_meets_the_fence_of_a_session_that_is_over(store: Store) {
    let place = place();
    let mut replaced = Writer::fresh(store.clone(), place.clone(), epoch(1));
    a_tree(&mut replaced).await;
    let taking = Writer::take_over(store.clone(), place.clone(), epoch(2));
    let (mut last, _) = taking.await.unwrap();
    // As short as a fence, and none.
    let removed = path("d/first");
    let removal = Body::Delta(vec![Change::Remove(removed)]);
    last.append(removal, vec![]).await.unwrap();
    last.checkpoint().await.unwrap();

    collect::retire(&store, &place).await.unwrap();
    let left = store.list(&place.prefix(), None).await.unwrap();
    let (fence, end) = (replaced.head().next(), last.head().next());
    let keys: Vec<_> = left.into_iter().map(|object| object.location).collect();
    assert_eq!(keys, [place.commit(fence), place.commit(end)]);
    let (body, pack) = put("late", b"x");
    for mut writer in [replaced, last] {
        let late = writer.append(body.clone(), pack.clone()).await;
        assert!(matches!(late, Err(AppendError::Fenced)), "{late:?}");
    }
    let taken = Writer::take_over(store.clone(), place.clone(), epoch(3)).await;
    assert!(taken.is_err(), "nobody goes on with it");

    collect::delete(&store, &place).await.unwrap();
    let left = store.list(&place.prefix(), None).await.unwrap();
    assert_eq!(left.len(), 0);
}

async fn a_deleted_incarnation_leaves_nothing(store: Store) {
    let (kept, over) = (place(), place());
    for place in [&kept, &over] {
        let mut writer = Writer::fresh(store.clone(), place.clone(), epoch(1));
        a_tree(&mut writer).await;
        writer.checkpoint().await.unwrap();
    }
    let mut found = collect::incarnations(&store, &kept.pool).await.unwrap();
    found.sort_by_key(|found| found.place.incarnation);
    let places: Vec<_> = found.iter().map(|found| found.place.clone()).collect();
    assert_eq!(places, [kept.clone(), over.clone()]);
    let age = WallClock::system().now().duration_since(found[0].newest);
    assert!(age.unwrap_or_default() < Duration::from_secs(600));

    collect::delete(&store, &over).await.unwrap();
    collect::delete(&store, &over).await.unwrap();
    let left = store.list(&over.prefix(), None).await.unwrap();
    assert_eq!(left.len(), 0);
    let found = collect::incarnations(&store, &kept.pool).await.unwrap();
    assert_eq!(found.len(), 1);
    let read = history::read(&store, &kept).await.unwrap();
    let file = file_at(&read.manifest, "large");
    let mut bytes = Box::pin(content::read(&store, &kept, file, 0..100));
    assert!(bytes.next().await.unwrap().unwrap() == noise(5, 100)[..]);
}
