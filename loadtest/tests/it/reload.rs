//! SIGHUP: settings are read again, and nothing ends because of it.

use std::{fs, path::Path, process::Command, time::Duration};

use loadtest::{
    cluster::{Cluster, Member},
    wait::until,
};

use crate::{
    command::hears_hangup,
    stack::{succeed, value},
};

const SHOWS_WITHIN: Duration = Duration::from_secs(60);

/// The certificate that an ingress presents to whoever connects now.
async fn presented(cluster: &Cluster) -> Vec<u8> {
    let (_, https) = cluster.addresses(0).unwrap();
    let client = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .tls_info(true)
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/healthz", https.port());
    let response = client.get(url).send().await.unwrap();
    let info = response
        .extensions()
        .get::<reqwest::tls::TlsInfo>()
        .unwrap();
    info.peer_certificate().unwrap().to_vec()
}

/// Waits until a process has logged something so many times.
async fn logged(cluster: &Cluster, member: Member, text: &str, times: usize) {
    let what = format!("{member} logs `{text}`");
    let seen = until(&what, SHOWS_WITHIN, async || {
        let found = cluster.log(member)?.matches(text).count();
        Ok((found >= times).then_some(()))
    });
    seen.await.unwrap();
}

fn make_certificate(cluster: &Cluster, directory: &Path) {
    let ingress = cluster.command(Member::Ingress(0)).unwrap();
    let made = Command::new(ingress.get_program())
        .arg("certificate")
        .arg("--out-dir")
        .arg(directory)
        .status();
    assert!(made.unwrap().success());
}

#[tokio::test]
async fn a_running_stack_takes_a_new_certificate_and_log_filter() {
    let filters = tempfile::tempdir().unwrap();
    let filter = filters.path().join("filter");
    let argument = filter.to_str().unwrap().to_owned();
    let cluster = Cluster::builder()
        .ingress_arguments(["--log-filter-file".to_owned(), argument.clone()])
        .worker_arguments(["--log-filter-file".to_owned(), argument])
        .start()
        .await
        .unwrap();
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "kept = 1").await;
    let members = [
        Member::Ingress(0),
        Member::Worker(0),
        Member::Caged(0),
        Member::Zygote(0),
    ];
    let mut pids = vec![];
    for member in members {
        pids.push(cluster.pid(member).await.unwrap());
    }
    let keys = cluster.directory().join("keys");
    let old = presented(&cluster).await;
    let others = cluster.directory().join("other-keys");
    make_certificate(&cluster, &others);
    for name in ["cert.pem", "key.pem"] {
        fs::rename(others.join(name), keys.join(name)).unwrap();
    }
    fs::write(&filter, "debug").unwrap();
    // An operator's tool may signal every process of a service.
    for member in members {
        cluster.hang_up(member).await.unwrap();
    }
    logged(&cluster, Member::Ingress(0), "certificate read again", 1).await;
    let new = presented(&cluster).await;
    assert_ne!(new, old);
    for member in [Member::Ingress(0), Member::Worker(0)] {
        logged(&cluster, member, "log filter read again", 1).await;
        logged(&cluster, member, "DEBUG", 1).await;
    }

    // Files that cannot be used change nothing.
    fs::write(keys.join("key.pem"), "no key").unwrap();
    fs::write(&filter, "worker=loud").unwrap();
    for member in members {
        cluster.hang_up(member).await.unwrap();
    }
    logged(&cluster, Member::Ingress(0), "certificate not changed", 1).await;
    for member in [Member::Ingress(0), Member::Worker(0)] {
        logged(&cluster, member, "log filter not changed", 1).await;
    }
    assert_eq!(presented(&cluster).await, new);

    // Without its file, the filter is that of the command line.
    fs::remove_file(&filter).unwrap();
    cluster.hang_up(Member::Worker(0)).await.unwrap();
    logged(&cluster, Member::Worker(0), "log filter read again", 2).await;
    for (member, pid) in members.into_iter().zip(pids) {
        assert_eq!(cluster.pid(member).await.unwrap(), pid, "{member}");
    }
    assert_eq!(value(&session, "kept").await, 1);
}

#[tokio::test]
async fn a_hangup_while_it_starts_ends_no_process() {
    let cluster = Cluster::builder().prepare().unwrap();
    cluster.start(Member::Nats(0)).await.unwrap();
    for member in [Member::Worker(0), Member::Ingress(0)] {
        cluster.launch(member).await.unwrap();
        let pid = cluster.pid(member).await.unwrap();
        hears_hangup(pid).await.unwrap();
        let starts = until("it serves", SHOWS_WITHIN, async || {
            cluster.hang_up(member).await?;
            for helper in [Member::Caged(0), Member::Zygote(0)] {
                // It may not be there yet.
                drop(cluster.hang_up(helper).await);
            }
            Ok(cluster.serves(member).await?.then_some(()))
        });
        starts.await.unwrap();
        assert_eq!(cluster.pid(member).await.unwrap(), pid);
    }
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "1").await;
}

#[tokio::test]
async fn code_in_a_session_meets_signals_as_everywhere() {
    let cluster = crate::stack::shared().await;
    let session = cluster.session();
    for (name, number) in [("HUP", 1), ("TERM", 15), ("INT", 2)] {
        let code = format!(
            "import signal, subprocess\n\
             handlers = (signal.SIG_DFL, signal.default_int_handler)\n\
             [signal.getsignal(signal.SIG{name}) in handlers, \
             subprocess.run(['sh', '-c', 'kill -{name} $$; sleep 60']).returncode]"
        );
        assert_eq!(value(&session, &code).await, format!("[True, -{number}]"));
    }
}
