//! Sessions told, listed and ended, in both spellings.

use loadtest::{
    client::{Client, Session},
    cluster::{Cluster, Member},
};
use proto::{
    id::{Epoch, Incarnation, SessionKey},
    lease::{Lease, LeaseState},
    pool::Pools,
    subject, wire,
};
use reqwest::Method;
use serde_json::{Value, json};
use ulid::Ulid;

use crate::{
    new_contract::NEWEST,
    stack::{answer, refused, shared, succeed, value},
};

async fn told(session: &Session, method: Method, path: &str) -> Value {
    let (status, told) = answer(session.versioned(method, path, NEWEST)).await;
    assert_eq!(status, 200, "{path} {told}");
    told
}

async fn listed(client: &Client, path: &str) -> Value {
    let path = format!("{path}?api-version={NEWEST}");
    let (status, listed) = answer(client.request(Method::GET, &path)).await;
    assert_eq!(status, 200, "{listed}");
    listed
}

fn is_listed(sessions: &Value, session: &Session) -> bool {
    let sessions = sessions.as_array().unwrap();
    let own = sessions
        .iter()
        .filter(|one| one["identifier"] == session.identifier());
    let count = own.count();
    assert!(count <= 1, "listed {count} times");
    count == 1
}

#[tokio::test]
async fn a_session_is_told_and_listed_until_it_is_ended() {
    let stack = shared().await;
    let session = stack.session();
    for path in ["session", ".management/getSession"] {
        let request = session.versioned(Method::GET, path, NEWEST);
        refused(request, 400, "SessionWithIdentifierNotFound").await;
    }
    // To ask does not make one.
    assert!(!is_listed(
        &listed(&stack.http(), "listSessions").await["sessions"],
        &session
    ));
    succeed(&session, "1").await;
    let one = told(&session, Method::GET, "session").await;
    assert_eq!(one["identifier"], session.identifier());
    let text = |field: &str| one[field].as_str().unwrap();
    assert!(
        text("createdAt") <= text("lastAccessedAt") && text("lastAccessedAt") < text("expireAt")
    );
    assert_eq!(text("etag").len(), 36);
    let all = listed(&stack.http(), "listSessions").await;
    assert!(is_listed(&all["sessions"], &session), "{all}");
    assert!(all.get("nextLink").is_none(), "{all}");
    let ended = session.versioned(Method::DELETE, "session", NEWEST);
    assert_eq!(
        answer(ended).await,
        (reqwest::StatusCode::NO_CONTENT, json!(""))
    );
    for (method, path) in [
        (Method::GET, "session"),
        (Method::DELETE, "session"),
        (Method::POST, ".management/stopSession"),
    ] {
        let request = session.versioned(method, path, NEWEST);
        refused(request, 400, "SessionWithIdentifierNotFound").await;
    }
    assert!(!is_listed(
        &listed(&stack.http(), "listSessions").await["sessions"],
        &session
    ));
}

#[tokio::test]
async fn the_management_spelling_has_both_names_and_both_methods() {
    let stack = shared().await;
    for method in [Method::GET, Method::POST] {
        let session = stack.session();
        succeed(&session, "1").await;
        let one = told(&session, method.clone(), ".management/getSession").await;
        assert_eq!(one["expireAt"], one["expiresAt"]);
        let all = told(&session, method.clone(), ".management/listSessions").await;
        assert_eq!(all["sessions"], all["value"]);
        assert_eq!(all["count"], all["value"].as_array().unwrap().len());
        assert!(
            all["nextLink"].is_null() && is_listed(&all["value"], &session),
            "{all}"
        );
        let request = session.versioned(method, ".management/stopSession", NEWEST);
        let response = request.send().await.unwrap();
        assert!(
            response.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/plain")
        );
        let expected = format!(
            "Session {} in session pool python stopped.",
            session.identifier()
        );
        assert_eq!(response.text().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_session_without_a_worker_is_told_and_listed() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    succeed(&session, "open('/mnt/data/kept', 'w').close()").await;
    let before = told(&session, Method::GET, "session").await;
    cluster.stop(Member::Worker(0)).await.unwrap();
    let after = told(&session, Method::GET, "session").await;
    assert_eq!(
        (&before["etag"], &before["createdAt"]),
        (&after["etag"], &after["createdAt"])
    );
    let all = listed(&cluster.client(0).unwrap(), "listSessions").await;
    assert!(is_listed(&all["sessions"], &session), "{all}");
    let path = format!("metadata?api-version={NEWEST}");
    refused(
        cluster.client(0).unwrap().request(Method::GET, &path),
        503,
        "NoCapacity",
    )
    .await;
    cluster.start(Member::Worker(0)).await.unwrap();
    // It was neither ended nor taken over meanwhile.
    assert_eq!(
        value(&session, "import os; os.listdir('/mnt/data')").await,
        "['kept']"
    );
    assert_eq!(
        told(&session, Method::GET, "session").await["etag"],
        before["etag"]
    );
}

/// Writes leases as a worker that gave its sessions up would.
async fn forge(cluster: &Cluster, count: usize) {
    let directory = cluster.directory();
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let pools: Pools = toml::from_str(&read("pools.toml")).unwrap();
    let (user, password) = cluster.nats_credentials("worker").unwrap();
    let worker = async_nats::ConnectOptions::with_user_and_password(user, password);
    let worker = worker.custom_inbox_prefix("_INBOX_worker.test");
    let worker = worker.connect(cluster.nats()).await.unwrap();
    let pool = &pools.pool[0].id;
    for number in 0..count {
        let lease = Lease {
            identifier: format!("forged-{number:04}").parse().unwrap(),
            owner: "worker-1".parse().unwrap(),
            epoch: Epoch::from_number(1),
            incarnation: Incarnation::from_ulid(Ulid::new()),
            slot: 1,
            state: LeaseState::Vacant,
            idle_ms: 0,
        };
        let key = data_key(number);
        let sent = worker.request(
            subject::lease(pool, &key),
            wire::encode(&lease).unwrap().into(),
        );
        sent.await.unwrap();
    }
}

/// The number in letters, as long as every key is.
fn data_key(number: usize) -> SessionKey {
    let letter =
        |digit: char| char::from(b'a' + u8::try_from(digit.to_digit(10).unwrap()).unwrap());
    let letters: String = number.to_string().chars().map(letter).collect();
    format!("{letters:a>26}").parse().unwrap()
}

#[tokio::test]
async fn a_long_list_comes_in_pages_that_link_to_each_other() {
    let cluster = Cluster::builder().start().await.unwrap();
    forge(&cluster, 650).await;
    for (client, scheme) in [
        (cluster.client(0).unwrap(), "http://"),
        (cluster.https_client(0).unwrap(), "https://localhost:"),
    ] {
        for (path, field) in [
            ("listSessions", "sessions"),
            (".management/listSessions", "value"),
        ] {
            let mut sizes = vec![];
            let mut seen = std::collections::BTreeSet::new();
            let mut link = Some(format!(
                "{}/{path}?api-version={NEWEST}&skip=0",
                client.endpoint()
            ));
            while let Some(at) = link {
                assert!(at.starts_with(scheme), "{at}");
                let path = at
                    .strip_prefix(client.endpoint())
                    .unwrap()
                    .trim_start_matches('/');
                let (status, page) = answer(client.request(Method::GET, path)).await;
                assert_eq!(status, 200, "{page}");
                let page_of = page[field].as_array().unwrap();
                sizes.push(page_of.len());
                seen.extend(
                    page_of
                        .iter()
                        .map(|one| one["identifier"].as_str().unwrap().to_owned()),
                );
                link = page["nextLink"].as_str().map(str::to_owned);
            }
            assert_eq!(
                (sizes.as_slice(), seen.len()),
                ([300, 300, 50].as_slice(), 650)
            );
        }
    }
    let client = cluster.client(0).unwrap();
    let wrong = format!("listSessions?api-version={NEWEST}&skip=-1");
    refused(
        client.request(Method::GET, &wrong),
        400,
        "SessionRequestValidationFailed",
    )
    .await;
    let beyond = format!("listSessions?api-version={NEWEST}&skip=9999");
    let (_, page) = answer(client.request(Method::GET, &beyond)).await;
    assert_eq!(page, json!({ "sessions": [] }));
}
