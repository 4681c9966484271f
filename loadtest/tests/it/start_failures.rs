//! Whatever keeps a program from starting is said in one line with its cause and what to do about it.

use std::{fs, path::Path, process::Command};

use loadtest::cluster::{Cluster, Member};

use crate::command::{run, through, with};

/// What a program must say: its name, the cause, and the remedy.
struct Wanted<'a> {
    program: &'a str,
    cause: &'a str,
    remedy: &'a str,
}

/// A stack of which only the bus runs, with one pool of small limits.
async fn stack() -> Cluster {
    let cluster = Cluster::builder()
        .worker_arguments(["--cages", "0", "--spares", "0"])
        .prepare()
        .unwrap();
    cluster.start(Member::Nats(0)).await.unwrap();
    cluster
}

async fn refuses(command: Command, wanted: &Wanted<'_>) {
    let Wanted {
        program,
        cause,
        remedy,
    } = wanted;
    let ended = run(command).await.unwrap();
    let shown = format!("wanted: {cause}; {remedy}\n{}", ended.stderr);
    assert!(!ended.status.success(), "{shown}");
    let prefix = format!("{program}: ");
    let lines: Vec<_> = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with(&prefix))
        .collect();
    let [line] = lines.as_slice() else {
        panic!("not one line but {}: {shown}", lines.len());
    };
    let (said, advised) = line.split_once("; ").unwrap_or((line, ""));
    assert!(line.contains(cause), "{shown}");
    assert!(advised.contains(remedy), "{said}\n{shown}");
    // It is the last thing that is said.
    assert!(ended.stderr.trim_end().ends_with(line), "{shown}");
}

/// Writes a file of the stack.
fn file(cluster: &Cluster, name: &str, text: &str) -> String {
    let path = cluster.directory().join(name);
    fs::write(&path, text).unwrap();
    own(&path);
    path.to_str().unwrap().to_owned()
}

fn own(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn settings_of_a_worker_that_cannot_be_used_are_named_with_what_to_do() {
    let cluster = stack().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let auth = file(&cluster, "wrong.auth", "worker:wrong\n");
    let pools = file(&cluster, "wrong.toml", "[[pool]]\nid = 7\n\nname =\n");
    let key = file(&cluster, "wrong.key", "short\n");
    let below = format!("{key}/store");
    let store = format!("file://{below}");
    let worker = [
        ("--log", "worker=loud", "is not a log filter", "--log"),
        (
            "--log-filter-file",
            &below,
            "failed to read the log filter",
            "readable",
        ),
        (
            "--nats",
            "nats://127.0.0.1:1",
            "127.0.0.1:1 cannot be reached",
            "start nats-server",
        ),
        (
            "--nats-auth",
            &auth,
            "authorization violation",
            "--nats-auth",
        ),
        (
            "--nats-auth",
            "/none",
            "/none cannot be read",
            "--nats-auth",
        ),
        ("--store", &store, "directory cannot be made", "--store"),
        ("--store", "ftp://x", "begins with none of", "--store"),
        ("--pools", &pools, "is not a pool file: line 4", "README"),
        ("--pools", "/none", "/none cannot be read", "--pools"),
        (
            "--admin-listen",
            &taken,
            "failed to listen",
            "--admin-listen",
        ),
    ];
    let command = cluster.command(Member::Worker(0)).unwrap();
    for (option, value, cause, remedy) in worker {
        let wanted = Wanted {
            program: "worker",
            cause,
            remedy,
        };
        refuses(with(&command, option, Some(value.as_ref())), &wanted).await;
    }
}

#[tokio::test]
async fn settings_of_an_ingress_that_cannot_be_used_are_named_with_what_to_do() {
    let cluster = stack().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let auth = file(&cluster, "wrong.auth", "worker:wrong\n");
    let pools = file(&cluster, "wrong.toml", "[[pool]]\nid = 7\n\nname =\n");
    let key = file(&cluster, "wrong.key", "short\n");
    let store = format!("file://{key}/store");
    let keys = cluster.directory().join("keys");
    let certificate = keys.join("cert.pem").to_str().unwrap().to_owned();
    let another = keys.join("signing-key.pem").to_str().unwrap().to_owned();
    let ingress = [
        ("--log", "ingress=loud", "is not a log filter", "--log"),
        (
            "--nats",
            "nats://127.0.0.1:1",
            "127.0.0.1:1 cannot be reached",
            "start nats-server",
        ),
        (
            "--nats-auth",
            &auth,
            "authorization violation",
            "--nats-auth",
        ),
        ("--store", &store, "directory cannot be made", "--store"),
        ("--pools", &pools, "is not a pool file: line 4", "README"),
        (
            "--cluster-key",
            &key,
            "does not hold a cluster key",
            "64 hexadecimal",
        ),
        ("--jwks", "/none", "the key set cannot be read", "--jwks"),
        (
            "--jwks",
            "http://127.0.0.1:1/keys",
            "the key set cannot be fetched",
            "--jwks",
        ),
        ("--jwks", &certificate, "the key set is malformed", "--jwks"),
        ("--listen", &taken, "failed to listen", "--listen"),
        ("--tls-listen", &taken, "failed to listen", "--tls-listen"),
        (
            "--tls-cert",
            "/none",
            "failed to use the certificate /none",
            "--tls-cert",
        ),
        (
            "--tls-key",
            &another,
            "failed to use the certificate",
            "belongs to it",
        ),
    ];
    let command = cluster.command(Member::Ingress(0)).unwrap();
    for (option, value, cause, remedy) in ingress {
        let wanted = Wanted {
            program: "ingress",
            cause,
            remedy,
        };
        refuses(with(&command, option, Some(value.as_ref())), &wanted).await;
    }
}

#[tokio::test]
async fn an_ingress_that_may_not_compare_itself_with_its_fleet_does_not_start() {
    let cluster = Cluster::builder().prepare().unwrap();
    let bus = Member::Nats(0);
    let settings = cluster.directory().join(format!("{bus}.conf"));
    let text = fs::read_to_string(&settings).unwrap();
    let right = "$JS.API.STREAM.MSG.GET.KV_h1_fleet";
    assert!(text.contains(right), "{text}");
    let denied = text.replace(&format!("\"{right}\""), "");
    fs::write(&settings, denied).unwrap();
    cluster.start(bus).await.unwrap();
    let cause = format!("the bus does not allow: publish `{right}`");
    let wanted = Wanted {
        program: "ingress",
        cause: &cause,
        remedy: "infra/nats/hearth.conf.template",
    };
    refuses(cluster.command(Member::Ingress(0)).unwrap(), &wanted).await;
}

/// Gives a worker a host that lacks something: the rest of the line runs in mounts of its own.
fn lacking(command: &Command, prepare: &str) -> Command {
    let script = format!("{prepare} && exec \"$0\" \"$@\"");
    through(
        command,
        "unshare",
        &["--mount", "--propagation", "private", "sh", "-c", &script],
    )
}

#[tokio::test]
async fn a_host_that_cannot_run_sandboxes_is_named_with_what_to_do() {
    let cluster = stack().await;
    let worker = cluster.command(Member::Worker(0)).unwrap();
    let zeros = cluster.directory().join("zeros");
    fs::write(&zeros, vec![0; 1 << 20]).unwrap();
    let below = zeros.join("state");
    let other = |option, value: &Path| with(&worker, option, Some(value.as_os_str()));
    let read_only = "for mount in $(awk '/ - cgroup2? /{print $5}' /proc/self/mountinfo); do \
                     mount -o remount,bind,ro $mount || exit 99; done";
    for (command, cause, remedy) in [
        (
            through(&worker, "unshare", &["--user"]),
            "sandboxes need root",
            "as root",
        ),
        (
            other("--image", Path::new("/none")),
            "image /none cannot be opened",
            "--image",
        ),
        (other("--image", &zeros), "cannot be mounted", "erofs"),
        (
            other("--zygote-library", Path::new("/none")),
            "/none: No such file",
            "worker check",
        ),
        (
            other("--state-dir", &below),
            "Not a directory",
            "--state-dir",
        ),
        (
            lacking(&worker, "mount --bind /dev/null /dev/loop-control"),
            "/dev/loop-control gives no loop device",
            "kernel module `loop`",
        ),
        (lacking(&worker, read_only), "cgroups", "writable"),
    ] {
        let wanted = Wanted {
            program: "worker",
            cause,
            remedy,
        };
        refuses(command, &wanted).await;
    }
}

/// A control group with a limit of memory.
struct Group(std::path::PathBuf);

impl Group {
    fn with_memory(bytes: u64) -> Self {
        let version_1 = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = if version_1.is_dir() {
            (version_1, "memory.limit_in_bytes")
        } else {
            let root = Path::new("/sys/fs/cgroup");
            fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
            (root, "memory.max")
        };
        let group = root.join(format!("hearth-test-{}", std::process::id()));
        fs::create_dir(&group).unwrap();
        fs::write(group.join(limit), bytes.to_string()).unwrap();
        Self(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

#[tokio::test]
async fn a_worker_without_memory_for_its_zygote_says_so() {
    let cluster = stack().await;
    let group = Group::with_memory(96 << 20);
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"",
        group.0.display()
    );
    let worker = cluster.command(Member::Worker(0)).unwrap();
    let wanted = Wanted {
        program: "worker",
        cause: "control group has 96 MiB of memory",
        remedy: "192 MiB",
    };
    refuses(through(&worker, "sh", &["-c", &script]), &wanted).await;
}
