use proptest::prelude::*;

use super::{
    edit::{Edit, edit},
    faulty::Fault,
    *,
};

/// A commit during which the store may fail.
#[derive(Clone, Debug)]
struct Attempt {
    edits: Vec<Edit>,
    fault: Option<(usize, Fault)>,
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let fault = prop_oneof![Just(Fault::Before), Just(Fault::After), Just(Fault::Hang)];
    let fault = prop::option::weighted(0.7, (0..6_usize, fault));
    (prop::collection::vec(edit(), 0..8), fault).prop_map(|(edits, fault)| Attempt { edits, fault })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Commits fail before and after they have reached the store, or are given up; what comes
    /// after them is right all the same.
    #[test]
    fn a_failed_commit_misleads_no_later_one(
        attempts in prop::collection::vec(attempt(), 1..10),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(async {
            let session = Session::new();
            let (root, mut syncer) = session.first();
            for attempt in attempts {
                for edit in attempt.edits {
                    edit.perform(&root);
                }
                if let Some((after, fault)) = attempt.fault {
                    session.faulty.plan(after, fault);
                }
                tokio::select! {
                    biased;
                    committed = syncer.commit_tree(&[]) => match committed {
                        Ok(_) | Err(SyncError::Store(_)) => {}
                        Err(error) => panic!("{error:?}"),
                    },
                    () = session.faulty.hung() => {}
                }
                session.faulty.forgive();
            }
            let _any = syncer.commit_tree(&[]).await.unwrap();
            session.assert_next_finds(&root).await;
        });
    }
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_there_at_the_next() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    std::fs::write(root.join("a"), "1").unwrap();
    round_trip::settle().await;
    session.faulty.plan(0, Fault::After);
    let failed = syncer.commit_tree(&[]).await;
    assert!(matches!(failed, Err(SyncError::Store(_))), "{failed:?}");
    assert_eq!(syncer.doubts(), 1, "what may not be in the log vouches");
    assert_eq!(syncer.commit_tree(&[]).await.unwrap(), Synced::Unchanged);
    session.assert_next_finds(&root).await;
}

#[tokio::test]
async fn files_that_go_and_come_back_around_a_failed_commit_are_not_lost() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    let old = root.join("old");
    std::fs::create_dir(&old).unwrap();
    std::fs::write(old.join("file"), "x").unwrap();
    committed(syncer.commit_tree(&[]).await.unwrap());
    // No time of the file changes with its directory's name.
    let elsewhere = root.join("elsewhere");
    for fault in [Fault::After, Fault::Before] {
        std::fs::rename(&old, &elsewhere).unwrap();
        session.faulty.plan(0, fault);
        syncer.commit_tree(&[]).await.unwrap_err();
        std::fs::rename(&elsewhere, &old).unwrap();
        let _any = syncer.commit_tree(&[]).await.unwrap();
        session.assert_next_finds(&root).await;
        // That one took the log over.
        std::fs::write(old.join("more"), "y").unwrap();
        let refused = syncer.commit_tree(&[]).await;
        assert!(matches!(refused, Err(SyncError::Fenced)), "{refused:?}");
        let (again, next) = session.next().await;
        std::fs::remove_dir_all(&root).unwrap();
        std::fs::rename(again, &root).unwrap();
        syncer = next;
    }
}

#[tokio::test]
async fn a_fenced_owner_commits_nothing() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    std::fs::write(root.join("a"), "1").unwrap();
    committed(syncer.commit_tree(&[]).await.unwrap());
    let (taken, mut next) = session.next().await;
    std::fs::write(root.join("a"), "2").unwrap();
    let path = "a".parse().unwrap();
    assert!(matches!(
        syncer.commit_path(&path).await,
        Err(SyncError::Fenced)
    ));
    assert!(matches!(
        syncer.commit_tree(&[]).await,
        Err(SyncError::Fenced)
    ));
    std::fs::write(taken.join("a"), "3").unwrap();
    committed(next.commit_tree(&[]).await.unwrap());
    session.assert_next_finds(&taken).await;
}

#[tokio::test]
async fn damaged_contents_are_not_restored() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    std::fs::write(root.join("large"), vec![3; 2 << 20]).unwrap();
    committed(syncer.commit_tree(&[]).await.unwrap());
    let blobs = session.top.path().join("store").join(format!(
        "{}/{}/{}/b",
        place().pool,
        place().session,
        place().incarnation
    ));
    let blob = std::fs::read_dir(blobs)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::remove_file(&blob).unwrap();
    let (_, data) = session.directory();
    let (writer, _) = Writer::take_over(session.store(), place(), Epoch::from_number(9))
        .await
        .unwrap();
    let refused = Syncer::restore(writer, data, transfers()).await;
    assert!(
        matches!(refused, Err(RestoreError::Store(_))),
        "{refused:?}"
    );
    std::fs::write(&blob, b"anything").unwrap();
    let (_, data) = session.directory();
    let (writer, _) = Writer::take_over(session.store(), place(), Epoch::from_number(10))
        .await
        .unwrap();
    let refused = Syncer::restore(writer, data, transfers()).await;
    assert!(
        matches!(refused, Err(RestoreError::Store(_))),
        "{refused:?}"
    );
}
