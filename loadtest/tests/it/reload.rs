//! SIGHUP: settings are read again, and nothing ends because of it.

use std::{fs, path::Path, time::Duration};

use loadtest::{
    cluster::{Cluster, Member},
    wait::until,
};

use crate::{
    command::hears_hangup,
    preflight,
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
    devkeys::certificate(&others).unwrap();
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
    logged(
        &cluster,
        Member::Ingress(0),
        "failed to reload the certificate",
        1,
    )
    .await;
    for member in [Member::Ingress(0), Member::Worker(0)] {
        logged(&cluster, member, "failed to reload the log filter", 1).await;
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

/// Writes a certificate for localhost with these dates, and its key, where an ingress looks for them.
fn write_certificate(keys: &Path, from: time::OffsetDateTime, until: time::OffsetDateTime) {
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (parameters.not_before, parameters.not_after) = (from, until);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    fs::write(keys.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(keys.join("key.pem"), key.serialize_pem()).unwrap();
}

#[tokio::test]
pub(crate) async fn an_expired_certificate_is_said_and_a_hangup_takes_its_successor() {
    let cluster = Cluster::builder().prepare().unwrap();
    let keys = cluster.directory().join("keys");
    let now = time::OffsetDateTime::now_utc();
    let day = time::Duration::DAY;
    write_certificate(&keys, now - 90 * day, now - day);
    cluster.start_all().await.unwrap();
    let expired = presented(&cluster).await;
    let ingress = Member::Ingress(0);
    logged(&cluster, ingress, "the certificate expired on", 1).await;
    let (passes, found) = preflight::check(&preflight::of_ingress(&cluster)).await;
    assert_eq!((passes, found["certificate"].as_str()), (false, "fail"));

    write_certificate(&keys, now - day, now + 5 * day);
    cluster.hang_up(ingress).await.unwrap();
    logged(&cluster, ingress, "the certificate expires on", 1).await;
    let short = presented(&cluster).await;
    assert_ne!(short, expired);
    let (passes, found) = preflight::check(&preflight::of_ingress(&cluster)).await;
    assert_eq!((passes, found["certificate"].as_str()), (true, "warn"));

    write_certificate(&keys, now - day, now + 90 * day);
    cluster.hang_up(ingress).await.unwrap();
    logged(&cluster, ingress, "certificate read again", 2).await;
    assert_ne!(presented(&cluster).await, short);
    let log = cluster.log(ingress).unwrap();
    assert_eq!(log.matches("the certificate expire").count(), 2, "{log}");
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
