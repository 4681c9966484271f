//! Names of files as every client sends them, byte for byte: each gets its own name back. The libraries
//! themselves are asked in `loadtest/clients/http-python` and `http-undici`.

use loadtest::{client::API_VERSION, client::escape, multipart::Multipart, raw::RawRequest};
use serde_json::Value;
use ulid::Ulid;

use crate::{
    new_contract::NEWEST,
    stack::{Stack, shared},
};

/// How a client sends files.
struct Sender {
    user_agent: &'static str,
    /// The parameters of a part for a file's name.
    parameters: fn(&str) -> String,
    /// What is stored of a name with a quote: to most there is no way to say that it is one.
    keeps_quotes: bool,
}

/// As browsers, undici, requests, httpx and curl do: `%` stays as it is.
fn html(name: &str) -> String {
    format!("name=\"file\"; filename=\"{}\"", name.replace('"', "%22"))
}

/// With backslashes, as httpx.
fn html_with_backslashes(name: &str) -> String {
    html(&name.replace('\\', "\\\\"))
}

fn go(name: &str) -> String {
    let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
    format!("name=\"file\"; filename=\"{escaped}\"")
}

/// What no sender of encoded names leaves is a slash.
fn escape_all(name: &str) -> String {
    escape(name).replace('/', "%2F")
}

fn aiohttp(name: &str) -> String {
    format!("name=\"file\"; filename=\"{}\"", escape_all(name))
}

/// Names that are no tokens are in quotes, and garbled where they are not ASCII.
fn dotnet(name: &str) -> String {
    let escaped = escape_all(name);
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let plain = if !name.is_ascii() {
        "\"=?utf-8?B?w6k=?=\"".to_owned()
    } else if name.bytes().all(is_token) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
    };
    format!("name=file; filename={plain}; filename*=utf-8''{escaped}")
}

const SENDERS: [Sender; 8] = [
    Sender {
        user_agent: "python-requests/2.34.2",
        parameters: html,
        keeps_quotes: false,
    },
    Sender {
        user_agent: "python-httpx/0.28.1",
        parameters: html_with_backslashes,
        keeps_quotes: false,
    },
    Sender {
        user_agent: "Python/3.13 aiohttp/3.14.5",
        parameters: aiohttp,
        keeps_quotes: true,
    },
    Sender {
        user_agent: "node",
        parameters: html,
        keeps_quotes: false,
    },
    Sender {
        user_agent: "curl/7.88.1",
        parameters: html,
        keeps_quotes: false,
    },
    Sender {
        user_agent: "curl/7.74.0",
        parameters: go,
        keeps_quotes: true,
    },
    Sender {
        user_agent: "Go-http-client/1.1",
        parameters: go,
        keeps_quotes: true,
    },
    // It sends no name of its own.
    Sender {
        user_agent: "",
        parameters: dotnet,
        keeps_quotes: true,
    },
];

const NAMES: [&str; 10] = [
    "report%20final.csv",
    "100%25.txt",
    "100%.txt",
    "a%22b.txt",
    "a%2Fb.txt",
    "Résumé (final) 日本.txt",
    "semi;colon.txt",
    "plus+and space.txt",
    "back\\slash.txt",
    "quote\".txt",
];

fn to(stack: &Stack, (method, user_agent): (&str, &str), target: &str) -> RawRequest {
    let request = RawRequest::new(method, &format!("{}/{target}", stack.pool()));
    let request = request.bearer(stack.token());
    if user_agent.is_empty() {
        request
    } else {
        request.header("User-Agent", user_agent)
    }
}

async fn answer(stack: &Stack, request: RawRequest) -> (u16, Vec<u8>) {
    let answer = request.send(stack.addresses(0).unwrap().0).await.unwrap();
    (answer.status, answer.body)
}

fn upload(stack: &Stack, user_agent: &str, parameters: &str, query: &str) -> RawRequest {
    let part = format!("Content-Disposition: form-data; {parameters}\r\n");
    let body = Multipart::new("b0undary").part_with_headers(part.as_bytes(), parameters.as_bytes());
    to(
        stack,
        ("POST", user_agent),
        &format!("files/upload?{query}"),
    )
    .header("Content-Type", &body.content_type())
    .body(&body.into_body())
}

/// The name that an upload was stored under.
fn stored(answer: &(u16, Vec<u8>)) -> Value {
    let body: Value = serde_json::from_slice(&answer.1).unwrap();
    assert_eq!(answer.0, 200, "{body}");
    body["value"][0]["properties"]["filename"].clone()
}

#[tokio::test]
async fn every_client_gets_its_own_name_back() {
    let stack = shared().await;
    for Sender {
        user_agent,
        parameters,
        keeps_quotes,
    } in SENDERS
    {
        let session = format!("names-{}", Ulid::new());
        let query = format!("identifier={session}&api-version={API_VERSION}");
        let newest = format!("identifier={session}&api-version={NEWEST}");
        let get = ("GET", user_agent);
        for name in NAMES {
            let parameters = parameters(name);
            let what = format!("{name} from {user_agent}");
            let uploaded = answer(&stack, upload(&stack, user_agent, &parameters, &query)).await;
            let kept = match keeps_quotes {
                true => name.to_owned(),
                false => name.replace('"', "%22"),
            };
            assert_eq!(stored(&uploaded), kept, "{what}");
            let own = escape(name);
            for target in [
                format!("files/content/{own}?{query}"),
                format!("files/{own}/content?{newest}"),
                format!("python/downloadFile?filename={own}&{query}"),
            ] {
                let sent = answer(&stack, to(&stack, get, &target)).await;
                assert_eq!(
                    sent,
                    (200, parameters.clone().into_bytes()),
                    "{what}: {target}"
                );
            }
            for target in [
                format!("files/{own}?{query}"),
                format!("files/{own}?{newest}"),
            ] {
                let told = answer(&stack, to(&stack, get, &target)).await;
                assert_eq!(told.0, 200, "{what}: {target}");
            }
        }
    }
}

#[tokio::test]
async fn the_exact_name_is_read_before_any_other() {
    let stack = shared().await;
    let query = format!("identifier=exact-{}&api-version={API_VERSION}", Ulid::new());
    for name in ["a b.txt", "a%20b.txt"] {
        let uploaded = answer(&stack, upload(&stack, "node", &html(name), &query)).await;
        assert_eq!(stored(&uploaded), name);
    }
    let get = async |path: &str| {
        let target = format!("files/content/{path}?{query}");
        answer(&stack, to(&stack, ("GET", "node"), &target)).await
    };
    assert_eq!(get("a%20b.txt").await.1, html("a b.txt").as_bytes());
    assert_eq!(get("a%2520b.txt").await.1, html("a%20b.txt").as_bytes());
    // What is deleted is what is named: there is no second guess.
    let delete = async |path: &str| {
        let target = format!("files/{path}?{query}");
        answer(&stack, to(&stack, ("DELETE", "node"), &target))
            .await
            .0
    };
    assert_eq!(delete("a%20b.txt").await, 200);
    assert_eq!(delete("a%20b.txt").await, 404);
    // Some paste names into addresses as they are, and are understood.
    assert_eq!(get("a%20b.txt").await.1, html("a%20b.txt").as_bytes());
    assert_eq!(delete("a%2520b.txt").await, 200);
    assert_eq!(get("a%20b.txt").await.0, 404);
}

/// aiohttp under another name, or with a name that it did not encode.
#[tokio::test]
async fn a_sender_that_is_not_recognised_finds_what_it_stored() {
    let stack = shared().await;
    let query = format!(
        "identifier=hidden-{}&api-version={API_VERSION}",
        Ulid::new()
    );
    let name = "my file é.txt";
    let uploaded = answer(&stack, upload(&stack, "my-app/1.0", &aiohttp(name), &query)).await;
    assert_eq!(stored(&uploaded), escape(name));
    let target = format!("files/content/{}?{query}", escape(name));
    assert_eq!(
        answer(&stack, to(&stack, ("GET", ""), &target)).await.0,
        200
    );
    let agent = "aiohttp/3.14.5";
    let uploaded = answer(&stack, upload(&stack, agent, &html("50% off.txt"), &query)).await;
    assert_eq!(stored(&uploaded), "50% off.txt");
}

#[tokio::test]
async fn a_separator_that_only_decoding_shows_is_refused() {
    let stack = shared().await;
    let query = format!("identifier=parts-{}&api-version={API_VERSION}", Ulid::new());
    let agent = "Python/3.13 aiohttp/3.14.5";
    for name in ["sub/x.txt", "/mnt/data/x.txt", "../x.txt", "/etc/passwd"] {
        let refused = answer(&stack, upload(&stack, agent, &aiohttp(name), &query)).await;
        let body: Value = serde_json::from_slice(&refused.1).unwrap();
        assert_eq!(refused.0, 400, "{name}: {body}");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains("encoded `/`"), "{message}");
    }
    let uploaded = answer(&stack, upload(&stack, agent, &html("sub/x.txt"), &query)).await;
    assert_eq!(stored(&uploaded), "sub/x.txt");
}
