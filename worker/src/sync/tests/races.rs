use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::{edit::edit, *};

/// Commits of each run, while somebody writes all the time.
const COMMITS: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_writers_that_raced_with_commits_stop_one_more_commit_has_it_all() {
    for seed in 1..4_u8 {
        println!("seed {seed}");
        let session = Session::new();
        let (root, mut syncer) = session.first();
        let (stop, edits) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|threads| {
            threads.spawn(|| write_on(&root, seed, &stop, &edits));
            let commits = async {
                for number in 0..COMMITS {
                    let _any = syncer.commit_tree(&[]).await.unwrap();
                    let path = ["a", "B", "a/B", "-/a-"][number % 4].parse().unwrap();
                    let _any = syncer.commit_path(&path).await.unwrap();
                    if number % 20 == 0 {
                        // Whatever it is that was committed, it can be restored.
                        let (again, _) = session.next().await;
                        std::fs::remove_dir_all(again).unwrap();
                        syncer = take_back(&session, &root).await;
                    }
                }
            };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(commits));
            stop.store(true, Ordering::SeqCst);
        });
        assert!(edits.load(Ordering::SeqCst) > COMMITS);
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

fn write_on(root: &Path, seed: u8, stop: &AtomicBool, edits: &AtomicUsize) {
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    while !stop.load(Ordering::SeqCst) {
        edit()
            .new_tree(&mut runner)
            .unwrap()
            .current()
            .perform(root);
        edits.fetch_add(1, Ordering::SeqCst);
    }
}
