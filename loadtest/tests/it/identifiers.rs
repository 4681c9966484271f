//! Session identifiers on the wire.

use loadtest::client::{API_VERSION, escape};
use reqwest::Method;
use ulid::Ulid;

use crate::{
    new_contract::NEWEST,
    stack::{refusal, refused, shared, succeed, value},
};

#[tokio::test]
async fn every_allowed_character_names_a_session_of_its_own() {
    let stack = shared().await;
    let client = stack.http();
    let tail = Ulid::new();
    let name = format!("user|1-(a){{b}}[c];<>#&%^$_:\"'?/.,@*+=!~\\`{tail}");
    succeed(&client.session(name.clone()), "kept = 7").await;
    assert_eq!(value(&client.session(name.clone()), "kept").await, 7);
    let other = client.session(name.replace('#', "%"));
    assert_eq!(value(&other, "'kept' in globals()").await, "False");
}

#[tokio::test]
async fn identifiers_are_compared_with_case() {
    let stack = shared().await;
    let (client, tail) = (stack.http(), Ulid::new());
    succeed(&client.session(format!("case-{tail}")), "kept = 1").await;
    let other = client.session(format!("CASE-{tail}"));
    assert_eq!(value(&other, "'kept' in globals()").await, "False");
}

#[tokio::test]
async fn identifiers_have_4_to_128_characters() {
    let stack = shared().await;
    let client = stack.http();
    for name in [
        "abc".to_owned(),
        "a".repeat(129),
        "a".repeat(4000),
        String::new(),
    ] {
        let request = client.session(name).request(Method::GET, "files");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400);
    }
    let request = client.session("abc").request(Method::GET, "files");
    refused(request, 400, "InvalidLengthOfSessionIdentifier").await;
    let tail = Ulid::new().to_string();
    for name in [
        tail.chars().rev().take(4).collect(),
        format!("{}{tail}", "a".repeat(102)),
    ] {
        client.session(name).list().await.unwrap();
    }
}

#[tokio::test]
async fn spaces_controls_and_letters_beyond_ascii_are_refused() {
    let stack = shared().await;
    for name in ["ab cd", "ab\ncd", "abc\0d", "žluť", "日本語日", "abc\u{7f}"] {
        let request = stack.http().session(name).request(Method::GET, "files");
        refused(request, 400, "SessionRequestValidationFailed").await;
    }
}

#[tokio::test]
async fn every_request_about_a_session_must_name_it() {
    let stack = shared().await;
    let client = stack.http();
    let to = |method, path: &str| {
        let path = format!("{path}?api-version={NEWEST}");
        client.request(method, &path)
    };
    for (method, path) in [
        (Method::POST, "executions"),
        (Method::GET, "executions"),
        (Method::GET, "executions/some-id"),
        (Method::POST, "executions/some-id/cancel"),
        (Method::GET, "files"),
        (Method::POST, "files"),
        (Method::GET, "files/a.txt"),
        (Method::GET, "files/a.txt/content"),
        (Method::DELETE, "files/a.txt"),
        (Method::GET, "session"),
        (Method::DELETE, "session"),
        (Method::POST, ".management/getSession"),
        (Method::POST, ".management/stopSession"),
        (Method::POST, "code/execute"),
        (Method::POST, "python/execute"),
        (Method::POST, "files/upload"),
        (Method::GET, "files/content/a.txt"),
    ] {
        let request = to(method, path).json(&serde_json::json!({ "code": "1" }));
        refused(request, 400, "SessionRequestValidationFailed").await;
    }
    for (method, path) in [
        (Method::GET, "listSessions"),
        (Method::POST, ".management/listSessions"),
        (Method::GET, "metadata"),
    ] {
        let response = to(method, path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn any_first_request_creates_the_session() {
    let stack = shared().await;
    assert_eq!(stack.session().list().await.unwrap(), []);
    let uploaded = stack.session();
    uploaded.upload("a.txt", b"1").await.unwrap();
    assert_eq!(
        value(&uploaded, "open('/mnt/data/a.txt').read()").await,
        "'1'"
    );
}

#[tokio::test]
async fn a_deleted_session_starts_anew() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "gone = 1").await;
    session.upload("gone.txt", b"x").await.unwrap();
    session.delete().await.unwrap();
    assert_eq!(session.list().await.unwrap(), []);
    assert_eq!(refusal(session.download("gone.txt").await).0, 404);
    assert_eq!(value(&session, "'gone' in globals()").await, "False");
}

#[tokio::test]
async fn deleting_a_session_that_does_not_run_is_refused_by_name() {
    let stack = shared().await;
    let session = stack.session();
    let request = session.versioned(Method::DELETE, "session", "2025-10-02-preview");
    refused(request, 400, "SessionWithIdentifierNotFound").await;
}

#[tokio::test]
async fn an_identifier_in_the_query_may_be_escaped_more_than_needed() {
    let stack = shared().await;
    let client = stack.http();
    let name = format!("a/b:c-{}", Ulid::new());
    succeed(&client.session(name.clone()), "kept = 3").await;
    let all: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for spelled in [all, escape(&name)] {
        let path = format!("code/execute?identifier={spelled}&api-version={API_VERSION}");
        let body = serde_json::json!({ "properties": { "code": "kept" } });
        let request = client.request(Method::POST, &path).json(&body);
        let (_, answer) = crate::stack::answer(request).await;
        assert_eq!(answer["properties"]["result"], 3, "{spelled}");
    }
}

#[tokio::test]
async fn path_and_query_must_not_name_two_sessions() {
    let stack = shared().await;
    let session = stack.session();
    let path = format!("identifier/{}x/files", escape(session.identifier()));
    let request = session.request(Method::GET, &path);
    refused(request, 400, "SessionRequestValidationFailed").await;
    let alone = format!(
        "identifier/{}/files?api-version={API_VERSION}",
        escape(session.identifier())
    );
    let (status, _) = crate::stack::answer(stack.http().request(Method::GET, &alone)).await;
    assert_eq!(status, 200);
}

/// Some escape a slash and some do not, in the query as in the oldest spelling, which has it in the path.
#[tokio::test]
async fn an_identifier_with_an_escaped_slash_is_one_identifier() {
    let stack = shared().await;
    let name = format!("a/b/{}", Ulid::new());
    let escaped = name.replace('/', "%2F");
    let lower = name.replace('/', "%2f");
    let version = format!("api-version={API_VERSION}");
    for (runs, target) in [
        format!("code/execute?identifier={escaped}&{version}"),
        format!("code/execute?identifier={lower}&{version}"),
        format!("code/execute?identifier={name}&{version}"),
        format!("identifier/{escaped}/code/execute?{version}"),
        format!("identifier/{lower}/code/execute?{version}&identifier={name}"),
        format!("identifier/{escaped}/code/execute?{version}&identifier={escaped}"),
    ]
    .iter()
    .enumerate()
    {
        let body = serde_json::json!({ "code": "n = globals().get('n', -1) + 1\nn" });
        let request = stack.http().request(Method::POST, target).json(&body);
        let (_, answer) = crate::stack::answer(request).await;
        assert_eq!(answer["properties"]["result"], runs, "{target}: {answer}");
    }
    let twice = format!(
        "code/execute?identifier={}&{version}",
        escaped.replace('%', "%25")
    );
    let body = serde_json::json!({ "code": "'n' in globals()" });
    let request = stack.http().request(Method::POST, &twice).json(&body);
    let (_, answer) = crate::stack::answer(request).await;
    assert_eq!(answer["properties"]["result"], "False", "{answer}");
}
