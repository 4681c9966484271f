use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::{edit::edit, *};

/// Commits, and edits beside them, of each run at least.
const ROUNDS: usize = 40;

#[tokio::test]
async fn when_writers_that_raced_with_commits_stop_one_more_commit_has_it_all() {
    for seed in 1..4_u8 {
        println!("seed {seed}");
        let session = Session::new();
        let (root, mut syncer) = session.first();
        let writer = Writing::begin(root.clone(), seed);
        let mut number = 0;
        while number < ROUNDS || writer.edits() < ROUNDS {
            let _any = syncer.commit_tree(&[]).await.unwrap();
            let path = ["a", "B", "a/B", "-/a-"][number % 4].parse().unwrap();
            let _any = syncer.commit_path(&path).await.unwrap();
            if number % 20 == 0 {
                // Whatever it is that was committed, it can be restored.
                let (again, _) = session.next().await;
                std::fs::remove_dir_all(again).unwrap();
                syncer = take_back(&session, &root).await;
            }
            number += 1;
        }
        writer.end().await;
        let _any = syncer.commit_tree(&[]).await.unwrap();
        session.assert_next_finds(&root).await;
    }
}

/// An owner of the directory with no memory of it.
async fn take_back(session: &Session, root: &Path) -> Syncer {
    session.owners.set(session.owners.get() + 1);
    let epoch = Epoch::from_number(session.owners.get());
    let taken = Writer::take_over(session.store(), place(), epoch).await;
    Syncer::fresh(taken.unwrap().0, data(root), transfers())
}

/// Somebody who writes all the time, until this is dropped.
struct Writing {
    shared: Arc<Shared>,
    task: Option<tokio::task::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    edits: AtomicUsize,
}

impl Writing {
    fn begin(root: PathBuf, seed: u8) -> Self {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let task = tokio::task::spawn_blocking(move || {
            let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
            let mut runner = TestRunner::new_with_rng(Config::default(), random);
            while !theirs.stop.load(Ordering::SeqCst) {
                let edit = edit().new_tree(&mut runner).unwrap().current();
                edit.perform(&root);
                theirs.edits.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self {
            shared,
            task: Some(task),
        }
    }

    fn edits(&self) -> usize {
        let writes_on = self.task.as_ref().is_some_and(|task| !task.is_finished());
        assert!(writes_on, "the writer has failed");
        self.shared.edits.load(Ordering::SeqCst)
    }

    async fn end(mut self) {
        let task = self.task.take();
        drop(self);
        task.unwrap().await.unwrap();
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}
