use super::{mapper::Mapper, *};

#[tokio::test]
async fn every_store_through_a_mapping_is_seen() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    let path = root.join("mapped");
    std::fs::write(&path, vec![0; 3 * 4096]).unwrap();
    let mut mapper = Mapper::start();
    mapper.map(&path);
    let process = [mapper.pid()];
    committed(syncer.commit_tree(&process).await.unwrap());
    for byte in 1..6 {
        // The second one finds the page dirty, and leaves the file's times alone.
        mapper.store(0, 100 + byte);
        mapper.store(1, byte);
        committed(syncer.commit_tree(&process).await.unwrap());
        mapper.store(2, byte);
        committed(syncer.commit_tree(&process).await.unwrap());
    }
    // A last one, seen when the mapping is gone already.
    mapper.store(2, 99);
    mapper.unmap();
    committed(syncer.commit_tree(&process).await.unwrap());
    drop(mapper);
    session.assert_next_finds(&root).await;
}

#[tokio::test]
async fn a_large_mapped_file_is_seen_too() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    let path = root.join("mapped");
    std::fs::write(&path, vec![0; 6 << 20]).unwrap();
    let mut mapper = Mapper::start();
    mapper.map(&path);
    let process = [mapper.pid()];
    committed(syncer.commit_tree(&process).await.unwrap());
    for byte in 1..4 {
        mapper.store(5 << 20, byte);
        mapper.store((5 << 20) + 1, byte);
        committed(syncer.commit_tree(&process).await.unwrap());
    }
    drop(mapper);
    session.assert_next_finds(&root).await;
}

#[tokio::test]
async fn a_file_that_is_mapped_for_reading_is_read_no_more_often_than_others() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    let path = root.join("mapped");
    std::fs::write(&path, vec![7; 4096]).unwrap();
    let mut mapper = Mapper::start();
    mapper.map_readable(&path);
    let process = [mapper.pid()];
    committed(syncer.commit_tree(&process).await.unwrap());
    round_trip::settle().await;
    assert_eq!(
        syncer.commit_tree(&process).await.unwrap(),
        Synced::Unchanged
    );
    assert_eq!(syncer.doubts(), 0);
    mapper.unmap();
    mapper.map(&path);
    assert_eq!(
        syncer.commit_tree(&process).await.unwrap(),
        Synced::Unchanged
    );
    assert_eq!(syncer.doubts(), 1);
}

#[tokio::test]
async fn a_mapping_that_nobody_looked_for_hides_nothing() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    let path = root.join("mapped");
    std::fs::write(&path, vec![0; 4096]).unwrap();
    let mut mapper = Mapper::start();
    mapper.map(&path);
    mapper.store(0, 1);
    round_trip::settle().await;
    committed(
        syncer
            .commit_path(&"mapped".parse().unwrap())
            .await
            .unwrap(),
    );
    // Into a dirty page, and gone before anybody looks.
    mapper.store(0, 2);
    mapper.unmap();
    committed(syncer.commit_tree(&[mapper.pid()]).await.unwrap());
    session.assert_next_finds(&root).await;
}
