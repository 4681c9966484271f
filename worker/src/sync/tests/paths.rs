use std::os::unix::fs::symlink;

use super::*;

/// Commits one path and returns what the log holds then, by name.
async fn commit(syncer: &mut Syncer, path: &str) -> Vec<String> {
    let _any = syncer.commit_path(&path.parse().unwrap()).await.unwrap();
    let held = syncer.writer().manifest().iter();
    held.map(|(path, _)| String::from_utf8_lossy(path.as_bytes()).into_owned())
        .collect()
}

#[tokio::test]
async fn one_path_and_the_way_to_it_is_committed_and_nothing_else() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    std::fs::write(root.join("unfinished"), "of a running cell").unwrap();
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    std::fs::write(root.join("a/b/mine"), "1").unwrap();
    std::fs::write(root.join("a/b/other"), "2").unwrap();
    assert_eq!(
        commit(&mut syncer, "a/b/mine").await,
        ["a", "a/b", "a/b/mine"]
    );
    assert_eq!(
        syncer
            .commit_path(&"a/b/mine".parse().unwrap())
            .await
            .unwrap(),
        Synced::Unchanged
    );
    // What was not there is no reason to write.
    assert_eq!(
        syncer
            .commit_path(&"none/such".parse().unwrap())
            .await
            .unwrap(),
        Synced::Unchanged
    );
    std::fs::remove_file(root.join("a/b/mine")).unwrap();
    assert_eq!(commit(&mut syncer, "a/b/mine").await, ["a", "a/b"]);
    committed(syncer.commit_tree(&[]).await.unwrap());
    session.assert_next_finds(&root).await;
}

#[tokio::test]
async fn the_next_look_at_everything_finds_a_committed_path_unchanged() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    std::fs::create_dir(root.join("d")).unwrap();
    std::fs::write(root.join("d/file"), "1").unwrap();
    commit(&mut syncer, "d/file").await;
    std::fs::write(root.join("d/file2"), vec![2; 5 << 20]).unwrap();
    commit(&mut syncer, "d/file2").await;
    assert_eq!(syncer.commit_tree(&[]).await.unwrap(), Synced::Unchanged);
    session.assert_next_finds(&root).await;
}

#[tokio::test]
async fn a_path_through_links_is_committed_where_it_is_and_with_its_links() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    std::fs::create_dir_all(root.join("real/deep")).unwrap();
    symlink("real/deep", root.join("way")).unwrap();
    std::fs::write(root.join("way/file"), "1").unwrap();
    let expected = ["real", "real/deep", "real/deep/file", "way"];
    assert_eq!(commit(&mut syncer, "way/file").await, expected);
    // A link that leads out leads to nothing of the session's.
    symlink("/etc", root.join("out")).unwrap();
    assert_eq!(commit(&mut syncer, "out/hostname").await, expected);
    // A link is itself when it is the last.
    assert_eq!(
        commit(&mut syncer, "out").await,
        ["out", "real", "real/deep", "real/deep/file", "way"]
    );
    session.assert_next_finds(&root).await;
}

#[tokio::test]
async fn a_directory_that_became_a_file_takes_its_contents_along() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    std::fs::create_dir_all(root.join("x/y")).unwrap();
    std::fs::write(root.join("x/y/z"), "1").unwrap();
    committed(syncer.commit_tree(&[]).await.unwrap());
    std::fs::remove_dir_all(root.join("x")).unwrap();
    std::fs::write(root.join("x"), "file").unwrap();
    assert_eq!(commit(&mut syncer, "x").await, ["x"]);
    std::fs::remove_file(root.join("x")).unwrap();
    std::fs::create_dir(root.join("x")).unwrap();
    std::fs::write(root.join("x/y"), "file").unwrap();
    assert_eq!(commit(&mut syncer, "x/y").await, ["x", "x/y"]);
    session.assert_next_finds(&root).await;
}

#[tokio::test]
async fn a_file_is_described_only_while_it_is_what_was_committed() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    let path = root.join("file");
    std::fs::write(&path, "12345").unwrap();
    symlink("file", root.join("link")).unwrap();
    let (file, link) = ("file".parse().unwrap(), "link".parse().unwrap());
    assert_eq!(syncer.describe(&file).await.unwrap(), None);
    committed(syncer.commit_tree(&[]).await.unwrap());
    round_trip::settle().await;
    let _settled = syncer.commit_tree(&[]).await.unwrap();
    let described = syncer.describe(&file).await.unwrap().unwrap();
    assert_eq!(described.size, 5);
    assert_eq!(syncer.describe(&link).await.unwrap(), Some(described));
    std::fs::write(&path, "54321").unwrap();
    assert_eq!(syncer.describe(&file).await.unwrap(), None);
    committed(syncer.commit_tree(&[]).await.unwrap());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(syncer.describe(&file).await.unwrap(), None);
    assert_eq!(
        syncer.describe(&"none".parse().unwrap()).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_directory_that_comes_back_after_a_commit_in_its_place_is_read() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    std::fs::create_dir(root.join("d")).unwrap();
    std::fs::write(root.join("d/file"), "old").unwrap();
    round_trip::settle().await;
    committed(syncer.commit_tree(&[]).await.unwrap());
    assert_eq!(syncer.doubts(), 0);
    std::fs::rename(root.join("d"), root.join("aside")).unwrap();
    std::fs::create_dir(root.join("d")).unwrap();
    std::fs::write(root.join("d/file"), "new").unwrap();
    commit(&mut syncer, "d/file").await;
    std::fs::remove_dir_all(root.join("d")).unwrap();
    // With the very times that the last look at everything saw.
    std::fs::rename(root.join("aside"), root.join("d")).unwrap();
    committed(syncer.commit_tree(&[]).await.unwrap());
    session.assert_next_finds(&root).await;
}
