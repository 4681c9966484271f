//! `ingress check` and `worker check`: they find what would not serve, and change nothing.

use std::{collections::BTreeMap, fs, net::TcpListener, process::Command};

use loadtest::cluster::{Cluster, Member};
use serde_json::Value;

use crate::{
    bus_lost::replace_bus,
    command::{run, with, with_word},
    stack::{shared, succeed, value},
};

/// How `check` with the settings of a process found things: outcomes by name.
pub(crate) async fn check(command: &Command) -> (bool, BTreeMap<String, String>) {
    let ended = run(with(command, "--output", Some("json".as_ref())))
        .await
        .unwrap();
    let found: Value = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|error| panic!("{error}\n{}\n{}", ended.stdout, ended.stderr));
    let findings = found["findings"].as_array().unwrap();
    let mut outcomes = BTreeMap::new();
    for finding in findings {
        let text = |field: &str| finding[field].as_str().unwrap_or_default().to_owned();
        if text("outcome") != "ok" {
            assert!(!text("remedy").is_empty(), "no remedy: {finding}");
        }
        let named = outcomes.insert(text("name"), text("outcome"));
        assert_eq!(named, None, "{finding}");
    }
    assert_eq!(found["outcome"] == "fail", !ended.status.success());
    (ended.status.success(), outcomes)
}

fn of_worker(cluster: &Cluster) -> Command {
    let command = cluster.command(Member::Worker(0)).unwrap();
    // The running worker has that address.
    with(&with_word(&command, "check"), "--admin-listen", None)
}

pub(crate) fn of_ingress(cluster: &Cluster) -> Command {
    let check = of_ingress_in_place(cluster);
    // The running ingress has those addresses.
    let free = |check: &Command, option| with(check, option, Some("127.0.0.1:0".as_ref()));
    let check = with(&check, "--admin-listen", None);
    free(&free(&check, "--listen"), "--tls-listen")
}

/// With all settings of the ingress, as an operator runs it beside.
fn of_ingress_in_place(cluster: &Cluster) -> Command {
    let command = cluster.command(Member::Ingress(0)).unwrap();
    let mut arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    if let Some(word) = arguments.first_mut() {
        *word = "check".into();
    }
    let mut check = Command::new(command.get_program());
    check.args(arguments).current_dir(cluster.directory());
    check
}

fn failing(outcomes: &BTreeMap<String, String>) -> Vec<&str> {
    let failing = outcomes.iter().filter(|(_, outcome)| *outcome == "fail");
    failing.map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn what_serves_passes_and_is_not_disturbed() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "kept = 1").await;
    let worker = stack.pid(Member::Worker(0)).await.unwrap();
    let (passes, found) = check(&of_worker(&stack)).await;
    assert!(passes, "{found:?}");
    for name in [
        "root",
        "kernel",
        "filesystems",
        "mkfs",
        "cgroups",
        "loop-devices",
        "user-ids",
        "pools",
        "memory",
        "processes",
        "image",
        "zygote-library",
        "directories",
        "bus",
        "bus-rights",
        "clock",
        "worker-id",
        "store",
        "fleet",
    ] {
        assert!(found.contains_key(name), "{name}: {found:?}");
    }
    assert_eq!(found["bus-rights"], "ok");
    assert_eq!(found["clock"], "ok");
    assert_eq!(found["fleet"], "ok");
    // It cannot know that it has the settings of the one that runs.
    assert_eq!(found["worker-id"], "warn");
    let (passes, found) = check(&of_ingress(&stack)).await;
    assert!(passes, "{found:?}");
    for name in [
        "pools",
        "cluster-key",
        "key-set",
        "certificate",
        "ports",
        "bus",
        "bus-rights",
        "clock",
        "store",
        "fleet",
    ] {
        assert_eq!(found[name], "ok", "{name}: {found:?}");
    }
    assert_eq!(stack.pid(Member::Worker(0)).await.unwrap(), worker);
    assert_eq!(value(&session, "kept").await, 1);
    succeed(&stack.session(), "1").await;
}

#[tokio::test]
async fn every_finding_is_a_line_that_people_read() {
    let stack = shared().await;
    let ended = run(of_worker(&stack)).await.unwrap();
    assert!(ended.status.success(), "{}", ended.stdout);
    for line in ended.stdout.lines() {
        let outcome = line.split(' ').next().unwrap();
        assert!(["ok", "warn"].contains(&outcome), "{line}");
    }
    assert!(ended.stdout.lines().count() >= 15, "{}", ended.stdout);
}

#[tokio::test]
async fn what_would_not_serve_is_found_by_name() {
    let cluster = Cluster::builder().prepare().unwrap();
    cluster.start(Member::Nats(0)).await.unwrap();
    let file = |name: &str, text: &str| {
        let path = cluster.directory().join(name);
        fs::write(&path, text).unwrap();
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, own).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let wrong = file("wrong", "user:wrong");
    let ingress_auth = cluster.directory().join("nats-ingress.auth");
    let worker_auth = cluster.directory().join("nats-worker.auth");
    let [ingress_auth, worker_auth] =
        [&ingress_auth, &worker_auth].map(|path| path.to_str().unwrap());
    let store = format!("file://{wrong}");
    let worker = of_worker(&cluster);
    for (option, value, name) in [
        ("--image", wrong.as_str(), "image"),
        ("--image", "/none", "image"),
        ("--pools", &wrong, "pools"),
        ("--nats-auth", &wrong, "bus"),
        ("--nats", "nats://127.0.0.1:1", "bus"),
        ("--zygote-library", &wrong, "zygote-library"),
        ("--state-dir", &format!("{wrong}/state"), "directories"),
        ("--store", &store, "store"),
        ("--max-sessions", "2000", "user-ids"),
        ("--admin-listen", &taken, "ports"),
    ] {
        let (passes, found) = check(&with(&worker, option, Some(value.as_ref()))).await;
        assert_eq!(
            (passes, failing(&found)),
            (false, vec![name]),
            "{option} {value}"
        );
    }
    let ingress = of_ingress(&cluster);
    for (option, value, name) in [
        ("--pools", wrong.as_str(), "pools"),
        ("--cluster-key", &wrong, "cluster-key"),
        ("--jwks", &wrong, "key-set"),
        ("--tls-cert", &wrong, "certificate"),
        ("--listen", &taken, "ports"),
        ("--nats-auth", &wrong, "bus"),
        ("--store", &store, "store"),
    ] {
        let (passes, found) = check(&with(&ingress, option, Some(value.as_ref()))).await;
        assert_eq!(
            (passes, failing(&found)),
            (false, vec![name]),
            "{option} {value}"
        );
    }
    // The one's user has not the rights of the other.
    for (command, auth) in [(&worker, ingress_auth), (&ingress, worker_auth)] {
        let (passes, found) = check(&with(command, "--nats-auth", Some(auth.as_ref()))).await;
        assert!(!passes);
        assert!(failing(&found).contains(&"bus-rights"), "{found:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_not_mounted_is_said_and_not_made() {
    let cluster = Cluster::builder().prepare().unwrap();
    cluster.start(Member::Nats(0)).await.unwrap();
    fs::remove_dir_all(cluster.store()).unwrap();
    for command in [of_worker(&cluster), of_ingress(&cluster)] {
        let (passes, found) = check(&command).await;
        assert!(passes, "{found:?}");
        assert_eq!(found["store"], "warn");
        assert!(!cluster.store().exists());
    }
}

#[tokio::test]
async fn ports_of_a_running_hearth_are_no_failure_and_those_of_another_program_are() {
    let stack = shared().await;
    let worker = with_word(&stack.command(Member::Worker(0)).unwrap(), "check");
    let ingress = of_ingress_in_place(&stack);
    for command in [&worker, &ingress] {
        let (passes, found) = check(command).await;
        assert_eq!((passes, found["ports"].as_str()), (true, "ok"), "{found:?}");
    }
    // Neither the bus nor the plain port is an ingress's HTTPS.
    let bus = stack.nats().remove(0);
    let bus = bus.rsplit('/').next().unwrap().to_owned();
    let plain = stack.addresses(0).unwrap().0.to_string();
    for (command, option, address) in [
        (&worker, "--admin-listen", &bus),
        (&ingress, "--listen", &bus),
        (&ingress, "--tls-listen", &bus),
        (&ingress, "--tls-listen", &plain),
    ] {
        let (passes, found) = check(&with(command, option, Some(address.as_ref()))).await;
        assert_eq!(
            (passes, failing(&found)),
            (false, vec!["ports"]),
            "{option} {address}"
        );
    }
}

#[tokio::test]
async fn what_does_not_belong_to_the_fleet_is_found_by_name() {
    let cluster = Cluster::builder().start().await.unwrap();
    let directory = |name: &str| {
        let path = cluster.directory().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let other_store = format!("file://{}", directory("other-store").display());
    let other_key = cluster.directory().join("other.key");
    fs::write(&other_key, "ab".repeat(32)).unwrap();
    let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&other_key, own).unwrap();
    let foreign = directory("foreign");
    fs::write(foreign.join("backup.tar"), "precious").unwrap();
    let foreign = foreign.to_str().unwrap();
    let (worker, ingress) = (of_worker(&cluster), of_ingress(&cluster));
    for (command, option, value, names) in [
        // Its directories are of the other fleet, too.
        (
            &worker,
            "--store",
            other_store.as_str(),
            &["directories", "fleet"][..],
        ),
        (&ingress, "--store", &other_store, &["fleet"]),
        (
            &ingress,
            "--cluster-key",
            other_key.to_str().unwrap(),
            &["cluster-key"],
        ),
        (&worker, "--data-dir", foreign, &["directories"]),
        (&worker, "--state-dir", foreign, &["directories"]),
    ] {
        let (passes, found) = check(&with(command, option, Some(value.as_ref()))).await;
        assert_eq!(
            (passes, failing(&found)),
            (false, names.to_vec()),
            "{option} {value}"
        );
    }
    // One pool that its operator edits: all others go on, and so would the process.
    let pools = cluster.directory().join("edited.toml");
    let text = fs::read_to_string(cluster.directory().join("pools.toml")).unwrap();
    fs::write(
        &pools,
        text.replacen("cooldown_seconds = ", "cooldown_seconds = 1", 1),
    )
    .unwrap();
    for command in [&worker, &ingress] {
        let edited = with(command, "--pools", Some(pools.as_ref()));
        let (passes, found) = check(&edited).await;
        assert_eq!(
            (passes, found["pools"].as_str()),
            (true, "warn"),
            "{found:?}"
        );
    }
    let other_id = with(&worker, "--id", Some("other".as_ref()));
    assert_eq!(check(&other_id).await.1["worker-id"], "ok");

    // The bus loses its data.
    for member in [Member::Worker(0), Member::Ingress(0)] {
        cluster.stop(member).await.unwrap();
    }
    replace_bus(&cluster, "lost", None).await;
    for command in [&worker, &ingress] {
        let (passes, found) = check(command).await;
        assert_eq!(
            (passes, failing(&found)),
            (false, vec!["fleet"]),
            "{found:?}"
        );
    }
}
