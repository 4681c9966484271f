use proptest::prelude::*;

use super::{edit::edit, *};

/// Proptest's own runner is not asynchronous.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever code does between commits, the next owner finds what was there at the last one.
    #[test]
    fn the_next_owner_finds_what_the_last_commit_saw(
        rounds in prop::collection::vec(prop::collection::vec(edit(), 0..12), 1..5),
    ) {
        block_on(async {
            let session = Session::new();
            let (root, mut syncer) = session.first();
            for edits in rounds {
                for edit in edits {
                    edit.perform(&root);
                }
                let _any = syncer.commit_tree(&[]).await.unwrap();
                let writes = session.faulty.writes();
                // What has not changed is not written, though it may have to be read again.
                assert_eq!(syncer.commit_tree(&[]).await.unwrap(), Synced::Unchanged);
                assert_eq!(session.faulty.writes(), writes);
                session.assert_next_finds(&root).await;
                // That one has taken the log over. This one goes on as if it had restored.
                let (again, next) = session.next().await;
                syncer = next;
                std::fs::remove_dir_all(&root).unwrap();
                std::fs::rename(again, &root).unwrap();
            }
        });
    }

    /// The same without anyone taking over in between, so that what was seen is what is compared.
    #[test]
    fn commits_of_one_owner_add_up(
        rounds in prop::collection::vec(prop::collection::vec(edit(), 0..6), 1..12),
    ) {
        block_on(async {
            let session = Session::new();
            let (root, mut syncer) = session.first();
            for edits in rounds {
                for edit in edits {
                    edit.perform(&root);
                }
                let _any = syncer.commit_tree(&[]).await.unwrap();
            }
            session.assert_next_finds(&root).await;
        });
    }
}

/// Waits until the times of files that were written before tell them from later writes.
pub(super) async fn settle() {
    let past = gather::now_ns() + 2 * gather::CLOCK_TICK_NS;
    let mut every = tokio::time::interval(std::time::Duration::from_millis(2));
    while gather::now_ns() < past {
        every.tick().await;
    }
}

#[tokio::test]
async fn an_unchanged_tree_is_neither_read_nor_written() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    std::fs::write(root.join("small"), "x").unwrap();
    std::fs::write(root.join("large"), vec![7; 5 << 20]).unwrap();
    committed(syncer.commit_tree(&[]).await.unwrap());
    settle().await;
    // Too young at the first look, they are read once more.
    assert_eq!(syncer.commit_tree(&[]).await.unwrap(), Synced::Unchanged);
    let operations = session.faulty.operations();
    assert_eq!(syncer.doubts(), 0);
    assert_eq!(syncer.commit_tree(&[]).await.unwrap(), Synced::Unchanged);
    assert_eq!(session.faulty.operations(), operations);
}

#[tokio::test]
async fn what_was_restored_needs_no_second_look() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    std::fs::create_dir(root.join("d")).unwrap();
    std::fs::write(root.join("d/file"), vec![1; 100_000]).unwrap();
    std::os::unix::fs::symlink("d", root.join("link")).unwrap();
    committed(syncer.commit_tree(&[]).await.unwrap());
    let (_, mut next) = session.next().await;
    let operations = session.faulty.operations();
    assert_eq!(next.doubts(), 0);
    assert_eq!(next.commit_tree(&[]).await.unwrap(), Synced::Unchanged);
    assert_eq!(
        (next.doubts(), session.faulty.operations()),
        (0, operations)
    );
}

#[tokio::test]
async fn a_write_within_the_same_tick_of_the_clock_is_seen() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    let path = root.join("file");
    for round in 0..50_u8 {
        std::fs::write(&path, [round, 0]).unwrap();
        let modified = path.metadata().unwrap().modified().unwrap();
        committed(syncer.commit_tree(&[]).await.unwrap());
        std::fs::write(&path, [round, 1]).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
        committed(syncer.commit_tree(&[]).await.unwrap());
    }
    session.assert_next_finds(&root).await;
}

#[tokio::test]
async fn a_rename_moves_no_bytes() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    std::fs::create_dir(root.join("old")).unwrap();
    std::fs::write(root.join("old/large"), vec![7; 9 << 20]).unwrap();
    std::fs::write(root.join("old/small"), vec![8; 500_000]).unwrap();
    committed(syncer.commit_tree(&[]).await.unwrap());
    settle().await;
    assert_eq!(syncer.commit_tree(&[]).await.unwrap(), Synced::Unchanged);
    let stored = stored(&session);
    // With a directory above, by itself, and as a second name.
    std::fs::rename(root.join("old"), root.join("new")).unwrap();
    committed(syncer.commit_tree(&[]).await.unwrap());
    assert_eq!(syncer.doubts(), 0, "a moved directory's files are not read");
    std::fs::rename(root.join("new/large"), root.join("top")).unwrap();
    std::fs::hard_link(root.join("new/small"), root.join("twin")).unwrap();
    committed(syncer.commit_tree(&[]).await.unwrap());
    let grown = self::stored(&session) - stored;
    assert!(grown < 4096, "{grown} bytes for two renames");
    session.assert_next_finds(&root).await;
}

#[tokio::test]
async fn the_same_contents_are_stored_once() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    let noise: Vec<u8> = (0..200_000_u32)
        .flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..16].to_vec())
        .collect();
    for copy in 0..4 {
        std::fs::write(root.join(format!("small{copy}")), &noise[..1 << 20]).unwrap();
        std::fs::write(root.join(format!("large{copy}")), &noise).unwrap();
    }
    committed(syncer.commit_tree(&[]).await.unwrap());
    assert!(stored(&session) < (noise.len() + (1 << 20)) as u64 + 10_000);
    session.assert_next_finds(&root).await;
}

#[tokio::test]
async fn an_appended_file_stores_only_its_last_piece() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    let mut bytes: Vec<u8> = (0..700_000_u32)
        .flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..16].to_vec())
        .collect();
    std::fs::write(root.join("log"), &bytes).unwrap();
    committed(syncer.commit_tree(&[]).await.unwrap());
    let before = stored(&session);
    bytes.extend([1; 4096]);
    std::fs::write(root.join("log"), &bytes).unwrap();
    let synced = syncer.commit_tree(&[]).await.unwrap();
    assert!(
        matches!(&synced, Synced::Committed { changed: Changed { files, .. }, .. }
        if files.len() == 1 && files[0].size == bytes.len() as u64)
    );
    let grown = stored(&session) - before;
    assert!(
        grown < u64::from(store::log::commit::PIECE_BYTES),
        "{grown}"
    );
    session.assert_next_finds(&root).await;
}

#[tokio::test]
async fn holes_stay_holes() {
    use std::os::unix::fs::FileExt;
    let session = Session::new();
    let (root, mut syncer) = session.first();
    let file = std::fs::File::create(root.join("sparse")).unwrap();
    file.set_len(10 << 30).unwrap();
    file.write_all_at(b"middle", 5 << 30).unwrap();
    drop(file);
    std::fs::File::create(root.join("hole"))
        .unwrap()
        .set_len(3 << 20)
        .unwrap();
    committed(syncer.commit_tree(&[]).await.unwrap());
    assert!(stored(&session) < 100_000);
    let (restored, _) = session.next().await;
    let sparse = std::fs::File::open(restored.join("sparse")).unwrap();
    let metadata = sparse.metadata().unwrap();
    assert_eq!(metadata.len(), 10 << 30);
    assert!(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512 < 1 << 20);
    let mut middle = [0; 8];
    sparse.read_exact_at(&mut middle, (5 << 30) - 1).unwrap();
    assert_eq!(&middle, b"\0middle\0");
    assert_eq!(
        std::fs::read(restored.join("hole")).unwrap(),
        vec![0; 3 << 20]
    );
}

#[tokio::test]
async fn a_large_file_goes_both_ways_in_little_memory() {
    let session = Session::new();
    let (root, data) = session.directory();
    let writer = Writer::fresh(session.store(), place(), Epoch::from_number(1));
    // Room for one piece at a time.
    let transfers = Transfers::new(1);
    let mut syncer = Syncer::fresh(writer, data, transfers.clone());
    let large: Vec<u8> = (0..40_000_000_u32)
        .map(|n| (n / 4096 % 251) as u8)
        .collect();
    std::fs::write(root.join("large"), large).unwrap();
    for small in 0..24 {
        std::fs::write(root.join(format!("small{small}")), vec![small; 1 << 20]).unwrap();
    }
    committed(syncer.commit_tree(&[]).await.unwrap());
    let (restored, data) = session.directory();
    let writer = Writer::take_over(session.store(), place(), Epoch::from_number(2)).await;
    Syncer::restore(writer.unwrap().0, data, transfers)
        .await
        .unwrap();
    picture::assert_same(&root, &restored);
}

#[tokio::test]
async fn what_is_no_file_is_left_out_and_no_name_is() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    // Names that meant something once, here or to those who come from elsewhere.
    let names = [
        ".hearth-upload-1",
        "lost+found",
        "uploads",
        ".wh.x",
        "x (deleted)",
    ];
    for name in names {
        std::fs::write(root.join(name), name).unwrap();
    }
    std::fs::create_dir(root.join("d")).unwrap();
    let fifo = root.join("d/fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(root.join("d/socket"));
    committed(syncer.commit_tree(&[]).await.unwrap());
    drop(socket);
    let (restored, _) = session.next().await;
    let found: BTreeSet<_> = picture::of(&restored).into_keys().collect();
    let kept = names.iter().map(|name| name.as_bytes().to_vec());
    assert_eq!(found, kept.chain([b"d".to_vec()]).collect());
}

#[tokio::test]
async fn a_path_at_the_limit_is_kept_and_one_beyond_is_named() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    let limit = proto::limits::TREE_PATH_BYTES;
    // Directories as deep as can be, and a file at the very end.
    let data = data(&root);
    let part = "a-long-name-of-d";
    let path = vec![part; limit / (part.len() + 1) - 1]
        .join("/")
        .into_bytes();
    for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        mkdir(&data, &path[..end]);
    }
    mkdir(&data, &path);
    let leaf = |name: &str| {
        let path = [&*path, b"/", name.as_bytes()].concat();
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        let file = beneath::open(fd(&data), &path, flags, rustix::fs::Mode::RWXU).unwrap();
        rustix::io::write(file, name.as_bytes()).unwrap();
        path
    };
    let name = "n".repeat(limit - path.len() - 1);
    let longest = leaf(&name);
    assert_eq!(longest.len(), limit);
    committed(syncer.commit_tree(&[]).await.unwrap());
    let beyond = leaf(&format!("{name}n"));
    let refused = syncer.commit_tree(&[]).await;
    assert!(
        matches!(refused, Err(SyncError::Unkeepable(Limit::Path))),
        "{refused:?}"
    );
    let (parent, last) = beneath::parent(fd(&data), &beyond).unwrap();
    rustix::fs::unlinkat(parent, last, rustix::fs::AtFlags::empty()).unwrap();
    let _settled = syncer.commit_tree(&[]).await.unwrap();
    let (restored, mut next) = session.next().await;
    let restored = super::data(&restored);
    let flags = rustix::fs::OFlags::RDONLY;
    let file = beneath::open(fd(&restored), &longest, flags, rustix::fs::Mode::empty()).unwrap();
    let mut text = vec![0; 2 * name.len()];
    assert_eq!(rustix::io::read(file, &mut text).unwrap(), name.len());
    assert!(text.starts_with(name.as_bytes()));
    assert_eq!(next.commit_tree(&[]).await.unwrap(), Synced::Unchanged);
}

fn mkdir(data: &DataDir, path: &[u8]) {
    let (parent, name) = beneath::parent(fd(data), path).unwrap();
    rustix::fs::mkdirat(parent, name, rustix::fs::Mode::RWXU).unwrap();
}

fn fd(data: &DataDir) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(&**data.root())
}

/// Bytes of all objects.
fn stored(session: &Session) -> u64 {
    fn below(directory: &Path) -> u64 {
        std::fs::read_dir(directory)
            .unwrap()
            .map(|item| item.unwrap())
            .map(|item| match item.metadata().unwrap() {
                found if found.is_dir() => below(&item.path()),
                found => found.len(),
            })
            .sum()
    }
    below(&session.top.path().join("store"))
}

#[tokio::test]
async fn a_directory_that_is_known_to_be_empty_is_looked_into_when_something_comes() {
    let session = Session::new();
    let (root, mut syncer) = session.first();
    for turn in ["first", "second"] {
        // It is not believed before its times are old enough.
        while !syncer.knows_that_it_is_empty() {
            let _any = syncer.commit_tree(&[]).await.unwrap();
        }
        assert_eq!(syncer.commit_tree(&[]).await.unwrap(), Synced::Unchanged);
        std::fs::write(root.join("file"), turn).unwrap();
        let committed = syncer.commit_tree(&[]).await.unwrap();
        assert!(
            matches!(committed, Synced::Committed { .. }),
            "{committed:?}"
        );
        std::fs::remove_file(root.join("file")).unwrap();
        let _committed = syncer.commit_tree(&[]).await.unwrap();
    }
    // An upload is committed by its path alone.
    while !syncer.knows_that_it_is_empty() {
        let _any = syncer.commit_tree(&[]).await.unwrap();
    }
    std::fs::write(root.join("upload"), "1").unwrap();
    let _committed = syncer
        .commit_path(&"upload".parse().unwrap())
        .await
        .unwrap();
    std::fs::remove_file(root.join("upload")).unwrap();
    let committed = syncer.commit_tree(&[]).await.unwrap();
    assert!(
        matches!(committed, Synced::Committed { .. }),
        "{committed:?}"
    );
    session.assert_next_finds(&root).await;
}
