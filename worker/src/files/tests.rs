use std::os::unix::fs::symlink;

use proto::{
    ambient::Ids,
    id::{OperationId, PoolId, SessionKey},
};

use super::*;

struct Fixture {
    outside: tempfile::TempDir,
    data: DataDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "host").unwrap();
        let volume = std::fs::File::open(outside.path()).unwrap();
        let me = (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        layout::lay_out(&volume, me).unwrap();
        let data = DataDir::new(&volume.into(), me).unwrap();
        let store = format!("file://{}/store", outside.path().display());
        Self {
            data,
            store: Store::open(&store, Ids::random()).unwrap(),
            outside,
        }
    }

    fn inside(&self, name: &str) -> std::path::PathBuf {
        self.outside.path().join(layout::FILES).join(name)
    }

    async fn put(&self, path: &str, bytes: &[u8]) -> Result<FileEntry, FileError> {
        let content = Blob::Inline(bytes.to_vec());
        self.data
            .upload(&path.parse().unwrap(), &content, &self.store)
            .await
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>, FileError> {
        let pool: PoolId = "01JDE1KZ0000000000000000PY".parse().unwrap();
        let session: SessionKey = "a".repeat(26).parse().unwrap();
        let operation: OperationId = "op".parse().unwrap();
        let owner = StagingScope {
            pool: &pool,
            session: &session,
            operation: &operation,
        };
        let opened = self.data.open(&path.parse().unwrap()).await?;
        let (_, blob) = opened.stage(&self.store, owner).await?;
        Ok(self.store.fetch_bytes(blob, 1 << 30).await.unwrap())
    }

    async fn names(&self) -> Vec<String> {
        let all = self
            .data
            .list(&DirectoryPath::default(), true)
            .await
            .unwrap();
        all.into_iter().map(|entry| entry.path).collect()
    }

    /// What lies where uploads get their first name.
    fn left_behind(&self) -> usize {
        let uploads = self.outside.path().join(layout::UPLOADS);
        std::fs::read_dir(uploads).unwrap().count()
    }

    fn staged(&self) -> usize {
        fn files(dir: &std::path::Path) -> usize {
            std::fs::read_dir(dir).map_or(0, |all| {
                all.map(|item| item.unwrap().path())
                    .map(|path| if path.is_dir() { files(&path) } else { 1 })
                    .sum()
            })
        }
        files(&self.outside.path().join("store"))
    }
}

#[tokio::test]
async fn what_is_uploaded_is_downloaded_and_replaced_whole() {
    let files = Fixture::new();
    assert_eq!(files.put("a b/é.txt", b"one").await.unwrap().size, 3);
    assert_eq!(files.put("a b/é.txt", b"longer").await.unwrap().size, 6);
    assert_eq!(files.get("a b/é.txt").await.unwrap(), b"longer");
    assert_eq!(files.names().await, ["a b", "a b/é.txt"]);
}

#[tokio::test]
async fn long_bodies_go_through_the_store_and_leave_nothing_there() {
    let files = Fixture::new();
    let long: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    files.put("long", &long).await.unwrap();
    assert_eq!(files.get("long").await.unwrap(), long);
    assert_eq!(files.staged(), 0);
}

#[tokio::test]
async fn a_link_that_leads_out_is_neither_read_nor_listed_nor_written_through() {
    let files = Fixture::new();
    symlink(
        files.outside.path().join("secret"),
        files.inside("absolute"),
    )
    .unwrap();
    symlink("../secret", files.inside("relative")).unwrap();
    symlink("..", files.inside("up")).unwrap();
    for link in ["absolute", "relative", "up/secret"] {
        assert!(
            matches!(files.get(link).await, Err(FileError::Escapes)),
            "{link}"
        );
    }
    assert!(matches!(
        files.put("up/new", b"x").await,
        Err(FileError::Escapes)
    ));
    assert_eq!(files.names().await, Vec::<String>::new());
    files.put("absolute", b"mine").await.unwrap();
    assert_eq!(
        std::fs::read(files.outside.path().join("secret")).unwrap(),
        b"host"
    );
    assert_eq!(files.get("absolute").await.unwrap(), b"mine");
}

#[tokio::test]
async fn a_link_inside_is_followed() {
    let files = Fixture::new();
    files.put("real/file", b"x").await.unwrap();
    symlink("real/file", files.inside("link")).unwrap();
    symlink(".", files.inside("loop")).unwrap();
    assert_eq!(files.get("link").await.unwrap(), b"x");
    assert_eq!(files.names().await, ["link", "real", "real/file"]);
}

#[tokio::test]
async fn what_is_no_file_is_named_as_such() {
    let files = Fixture::new();
    let fifo = files.inside("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    std::fs::create_dir(files.inside("dir")).unwrap();
    assert!(matches!(files.get("fifo").await, Err(FileError::WrongType)));
    assert!(matches!(files.get("dir").await, Err(FileError::WrongType)));
    assert!(matches!(
        files.put("dir", b"x").await,
        Err(FileError::WrongType)
    ));
    assert!(matches!(files.get("none").await, Err(FileError::NotFound)));
    let gone = files.data.delete(&"dir".parse().unwrap()).await;
    assert!(matches!(gone, Err(FileError::WrongType | FileError::Io(_))));
    assert_eq!(files.names().await, ["dir"]);
}

#[tokio::test]
async fn every_name_can_be_a_files() {
    let files = Fixture::new();
    let names = [
        ".hearth-upload-zz",
        "files",
        "lost+found",
        "uploads",
        "x (deleted)",
    ];
    for name in names {
        files.put(name, name.as_bytes()).await.unwrap();
    }
    assert_eq!(files.names().await, names);
    for name in names {
        assert_eq!(files.get(name).await.unwrap(), name.as_bytes());
    }
    assert_eq!(files.left_behind(), 0);
}

#[tokio::test]
async fn an_upload_that_does_not_end_well_leaves_nothing() {
    let files = Fixture::new();
    std::fs::create_dir(files.inside("dir")).unwrap();
    files.put("kept", b"old").await.unwrap();
    // Its bytes are not in the store, a directory takes its place meanwhile, its caller goes.
    let nowhere: Blob = Blob::Staged(proto::blob::Staged {
        key: "staging/none".to_owned(),
        size: 3,
    });
    let kept = "kept".parse().unwrap();
    let lacking = files.data.upload(&kept, &nowhere, &files.store);
    assert!(matches!(lacking.await, Err(FileError::Store(_))));
    let complete = files.data.begin(&"late".parse().unwrap()).unwrap();
    std::fs::create_dir(files.inside("late")).unwrap();
    let refused = files.data.finish(&complete, &"late".parse().unwrap());
    assert!(matches!(refused, Err(FileError::WrongType)), "{refused:?}");
    drop(files.data.begin(&"given up".parse().unwrap()).unwrap());
    assert_eq!(files.names().await, ["dir", "kept", "late"]);
    assert_eq!(files.get("kept").await.unwrap(), b"old");
    assert_eq!(files.left_behind(), 0);
}
