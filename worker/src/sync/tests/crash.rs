//! A process that is killed between any two steps leaves the old tree or the new one, whole.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus},
};

use super::{faulty::Fault, *};

/// Commits before the one that is killed, so that a checkpoint comes with it.
const EARLIER: usize = 62;
/// Written when what was done counts as done.
const ACKNOWLEDGED: &str = "acknowledged";
/// Tells the process that it is to be killed, and where.
const ORDER: &str = "HEARTH_TEST_CRASH";

/// What the process is doing when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Commit,
    Restore,
}

/// What it is told through the environment.
struct Order {
    top: PathBuf,
    doing: Doing,
    after: usize,
    fault: Fault,
}

impl Order {
    fn text(&self) -> String {
        let (doing, fault) = (self.doing == Doing::Commit, self.fault == Fault::KillBefore);
        format!("{doing} {} {fault} {}", self.after, self.top.display())
    }

    fn parse(text: &str) -> Self {
        let fields: Vec<_> = text.splitn(4, ' ').collect();
        Self {
            doing: if fields[0] == "true" {
                Doing::Commit
            } else {
                Doing::Restore
            },
            after: fields[1].parse().unwrap(),
            fault: if fields[2] == "true" {
                Fault::KillBefore
            } else {
                Fault::KillAfter
            },
            top: fields[3].into(),
        }
    }

    /// What the process does.
    async fn obey(self) {
        let faulty = Faulty::over(local(&self.top.join("store")));
        faulty.plan(self.after, self.fault);
        let store = Store::over(Arc::new(faulty), Ids::random());
        let (writer, _) = Writer::take_over(store, place(), Epoch::from_number(5))
            .await
            .unwrap();
        let data = data(&self.top.join("data"));
        let mut syncer = match self.doing {
            Doing::Restore => Syncer::restore(writer, data, transfers()).await.unwrap(),
            Doing::Commit => Syncer::fresh(writer, data, transfers()),
        };
        let _any = syncer.commit_tree(&[]).await.unwrap();
        std::fs::write(self.top.join(ACKNOWLEDGED), "").unwrap();
        syncer.checkpoint_if_due().await.unwrap();
    }

    /// Runs this very test again, in a process of its own that obeys.
    fn run(&self, test: &str) -> ExitStatus {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let command = command.args(["--exact", test]).env(ORDER, self.text());
        command.output().unwrap().status
    }
}

/// The order that this process was started with.
async fn obeyed() -> bool {
    let Ok(order) = std::env::var(ORDER) else {
        return false;
    };
    Order::parse(&order).obey().await;
    true
}

#[tokio::test]
async fn a_killed_commit_leaves_the_old_tree_or_the_new_one_whole() {
    if obeyed().await {
        return;
    }
    let name = "sync::tests::crash::a_killed_commit_leaves_the_old_tree_or_the_new_one_whole";
    let (mut old, mut new) = (0, 0);
    everywhere(name, Doing::Commit, |found, scene, acknowledged| {
        if *found == scene.old {
            assert!(!acknowledged);
            old += 1;
        } else {
            picture::assert_equal(found, &scene.new);
            new += 1;
        }
    })
    .await;
    println!("{old} kills left the old tree, {new} the new one");
    assert!(old > 10 && new > 5);
}

#[tokio::test]
async fn a_killed_restore_leaves_the_log_as_it_was() {
    if obeyed().await {
        return;
    }
    let name = "sync::tests::crash::a_killed_restore_leaves_the_log_as_it_was";
    everywhere(name, Doing::Restore, |found, scene, _| {
        picture::assert_equal(found, &scene.old);
    })
    .await;
}

/// A log, and a directory that is ahead of it.
struct Scene {
    top: TempDir,
    old: picture::Picture,
    new: picture::Picture,
}

/// Kills the process at every operation, before it and after it, and looks at what the next owner
/// finds.
async fn everywhere(
    test: &str,
    doing: Doing,
    mut check: impl FnMut(&picture::Picture, &Scene, bool),
) {
    let scene = Scene::make().await;
    for fault in [Fault::KillBefore, Fault::KillAfter] {
        for after in 0.. {
            let run = tempfile::tempdir().unwrap();
            let order = Order {
                top: run.path().to_owned(),
                doing,
                after,
                fault,
            };
            copy(&scene.top.path().join("store"), &order.top.join("store"));
            let data = order.top.join("data");
            std::fs::create_dir(&data).unwrap();
            if doing == Doing::Commit {
                std::fs::remove_dir(&data).unwrap();
                copy(&scene.top.path().join("data"), &data);
            }
            let ended = order.run(test);
            let acknowledged = order.top.join(ACKNOWLEDGED).exists();
            let found = next_owners(&order.top).await;
            check(&found, &scene, acknowledged);
            if ended.success() {
                assert!(
                    acknowledged && after > 5,
                    "it ended after {after} operations"
                );
                println!("{doing:?}: killed at {after} operations");
                break;
            }
            assert_eq!(ended.signal(), Some(9), "{ended}");
        }
    }
}

/// What the next owner restores.
async fn next_owners(top: &Path) -> picture::Picture {
    let store = Store::over(Arc::new(local(&top.join("store"))), Ids::random());
    let (writer, _) = Writer::take_over(store, place(), Epoch::from_number(9))
        .await
        .unwrap();
    let path = top.join("next");
    std::fs::create_dir(&path).unwrap();
    Syncer::restore(writer, data(&path), transfers())
        .await
        .unwrap();
    picture::of(&path)
}

impl Scene {
    /// Small, long and many files, changed in every way at once.
    async fn make() -> Self {
        let session = Session::new();
        let (root, mut syncer) = session.first();
        std::fs::write(root.join("long"), vec![1; 5 << 20]).unwrap();
        std::fs::create_dir(root.join("d")).unwrap();
        for number in 0..EARLIER {
            std::fs::write(root.join(format!("d/{}", number % 7)), number.to_string()).unwrap();
            committed(syncer.commit_tree(&[]).await.unwrap());
        }
        let old = picture::of(&root);
        std::fs::write(root.join("long"), vec![2; 6 << 20]).unwrap();
        for number in 0..10_u8 {
            std::fs::write(root.join(format!("many{number}")), vec![number; 1_000_000]).unwrap();
        }
        std::fs::remove_file(root.join("d/1")).unwrap();
        std::fs::rename(root.join("d"), root.join("moved")).unwrap();
        std::os::unix::fs::symlink("moved", root.join("d")).unwrap();
        let new = picture::of(&root);
        let top = session.top;
        std::fs::rename(&root, top.path().join("data")).unwrap();
        Self { top, old, new }
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status()
        .unwrap();
    assert!(copied.success());
}
