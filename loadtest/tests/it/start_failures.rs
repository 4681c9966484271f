//! Whatever keeps a program from starting is said in one line with its cause and what to do about it.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path, process::Command};

use loadtest::cluster::{Cluster, Member};

use crate::command::{run, through, with};

/// A program with a setting or on a host that keeps it from starting, and parts of the cause and the remedy
/// that it must name.
type Start<'a> = (Command, &'a str, &'a str);

/// A stack of which only the bus runs, with one pool of small limits.
async fn stack() -> Cluster {
    let cluster = Cluster::builder()
        .worker_arguments(["--cages", "0", "--spares", "0"])
        .prepare()
        .unwrap();
    cluster.start(Member::Nats(0)).await.unwrap();
    cluster
}

/// Runs a program in each of these ways: it must end, and say why in one last line.
async fn refuses<'a>(program: &str, starts: impl IntoIterator<Item = Start<'a>>) {
    for (command, cause, remedy) in starts {
        let ended = run(command).await.unwrap();
        let shown = format!("wanted: {cause}; {remedy}\n{}", ended.stderr);
        assert!(!ended.status.success(), "{shown}");
        let prefix = format!("{program}: ");
        let lines = ended.stderr.lines();
        let lines: Vec<_> = lines.filter(|line| line.starts_with(&prefix)).collect();
        let [line] = lines.as_slice() else {
            panic!("not one line but {}: {shown}", lines.len());
        };
        let (_, advice) = line.split_once("; ").unwrap_or((line, ""));
        assert!(line.contains(cause), "{shown}");
        assert!(advice.contains(remedy), "{shown}");
        // It is the last thing that is said.
        assert!(ended.stderr.trim_end().ends_with(line), "{shown}");
    }
}

/// Values of settings that neither program can use, all of them in the directory of a stack.
struct Unusable {
    /// An address at which somebody else listens, and who does.
    taken: String,
    _listener: TcpListener,
    /// Credentials that the bus refuses.
    auth: String,
    /// A pool file with a wrong line.
    pools: String,
    /// A file that holds no key.
    key: String,
    /// A path below a file.
    below: String,
    /// A store there.
    store: String,
}

impl Unusable {
    fn of(cluster: &Cluster) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let key = file(cluster, "wrong.key", "short\n");
        let below = format!("{key}/store");
        Self {
            taken: listener.local_addr().unwrap().to_string(),
            _listener: listener,
            auth: file(cluster, "wrong.auth", "worker:wrong\n"),
            pools: file(cluster, "wrong.toml", "[[pool]]\nid = 7\n\nname =\n"),
            store: format!("file://{below}"),
            key,
            below,
        }
    }
}

/// Writes a file of the stack that only its owner may read.
fn file(cluster: &Cluster, name: &str, text: &str) -> String {
    let path = cluster.directory().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn settings_of_a_worker_that_cannot_be_used_are_named_with_what_to_do() {
    let cluster = stack().await;
    let unusable = Unusable::of(&cluster);
    let worker = cluster.command(Member::Worker(0)).unwrap();
    let set = |option, value: &str| with(&worker, option, Some(value.as_ref()));
    let starts = [
        (set("--log", "worker=loud"), "is not a log filter", "--log"),
        (
            set("--log-filter-file", &unusable.below),
            "failed to read the log filter",
            "readable",
        ),
        (
            set("--nats", "nats://127.0.0.1:1"),
            "127.0.0.1:1 cannot be reached",
            "start nats-server",
        ),
        (
            set("--nats-auth", &unusable.auth),
            "authorization violation",
            "--nats-auth",
        ),
        (
            set("--nats-auth", "/none"),
            "/none cannot be read",
            "--nats-auth",
        ),
        (
            set("--store", &unusable.store),
            "failed to make the object store's directory",
            "--store",
        ),
        (set("--store", "ftp://x"), "begins with none of", "--store"),
        (
            set("--pools", &unusable.pools),
            "is not a pool file: line 4",
            "docs/settings.md",
        ),
        (set("--pools", "/none"), "/none cannot be read", "--pools"),
        (
            set("--admin-listen", &unusable.taken),
            "failed to listen",
            "--admin-listen",
        ),
    ];
    refuses("worker", starts).await;
}

#[tokio::test]
async fn settings_of_an_ingress_that_cannot_be_used_are_named_with_what_to_do() {
    let cluster = stack().await;
    let unusable = Unusable::of(&cluster);
    let keys = cluster.directory().join("keys");
    let certificate = keys.join("cert.pem").to_str().unwrap().to_owned();
    let another = keys.join("signing-key.pem").to_str().unwrap().to_owned();
    let ingress = cluster.command(Member::Ingress(0)).unwrap();
    let set = |option, value: &str| with(&ingress, option, Some(value.as_ref()));
    let starts = [
        (set("--log", "ingress=loud"), "is not a log filter", "--log"),
        (
            set("--nats", "nats://127.0.0.1:1"),
            "127.0.0.1:1 cannot be reached",
            "start nats-server",
        ),
        (
            set("--nats-auth", &unusable.auth),
            "authorization violation",
            "--nats-auth",
        ),
        (
            set("--store", &unusable.store),
            "failed to make the object store's directory",
            "--store",
        ),
        (
            set("--pools", &unusable.pools),
            "is not a pool file: line 4",
            "docs/settings.md",
        ),
        (
            set("--cluster-key", &unusable.key),
            "does not hold a cluster key",
            "64 hexadecimal",
        ),
        (set("--jwks", "/none"), "read the key set", "--jwks"),
        (
            set("--jwks", "http://127.0.0.1:1/keys"),
            "failed to fetch the key set",
            "--jwks",
        ),
        (
            set("--jwks", &certificate),
            "the key set is malformed",
            "--jwks",
        ),
        (
            set("--listen", &unusable.taken),
            "failed to listen",
            "--listen",
        ),
        (
            set("--tls-listen", &unusable.taken),
            "failed to listen",
            "--tls-listen",
        ),
        (
            set("--tls-cert", "/none"),
            "failed to use the certificate /none",
            "--tls-cert",
        ),
        (
            set("--tls-key", &another),
            "failed to use the certificate",
            "belongs to it",
        ),
    ];
    refuses("ingress", starts).await;
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
    let command = cluster.command(Member::Ingress(0)).unwrap();
    let remedy = "infra/nats/hearth.conf.template";
    refuses("ingress", [(command, cause.as_str(), remedy)]).await;
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
    let starts = [
        (
            through(&worker, "unshare", &["--user"]),
            "sandboxes need root",
            "as root",
        ),
        (
            other("--image", Path::new("/none")),
            "failed to open image /none",
            "--image",
        ),
        (other("--image", &zeros), "failed to mount", "erofs"),
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
    ];
    refuses("worker", starts).await;
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
    let starts = [(
        through(&worker, "sh", &["-c", &script]),
        "control group has 96 MiB of memory",
        "192 MiB",
    )];
    refuses("worker", starts).await;
}
