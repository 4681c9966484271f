//! Requests made up by schemathesis from what the server says of itself (`loadtest/fuzz/`): whatever is
//! asked, the answer is as described and never a failure of the server, `InternalError` above all.

use std::process::Command;

use loadtest::{
    cluster::{AUDIENCE, Cluster, ISSUER, pool_path},
    places,
    token::Claims,
};
use serde_json::json;

use crate::stack::SHELL;

/// Role that the servers of these tests require.
const ROLE: &str = "executor";
/// Where the sequences of requests begin; the same seed repeats them.
const SEED: u32 = 20_261_125;
/// Sessions of names that are met once do not stay.
const COOLDOWN: u32 = 10;

/// Options of a run that looks for whatever there is, in some seconds.
const WIDE: [&str; 2] = ["--max-examples", "15"];
/// What differs in a pool of shells. No operation is left that another's answer leads to.
const ONLY_EXECUTIONS: [&str; 4] = [
    "--include-path",
    "/executions",
    "--phases",
    "examples,coverage,fuzzing",
];
/// Options of a run that shows that nobody gets past the front.
const BRIEF: [&str; 4] = ["--max-examples", "3", "--phases", "examples,fuzzing"];

async fn start() -> Cluster {
    let cluster = Cluster::builder()
        .pool(|pool| pool.cooldown(COOLDOWN))
        .pool(|pool| pool.name(SHELL).shell().cooldown(COOLDOWN))
        .ingress_arguments(["--jwt-required-role", ROLE])
        .worker_arguments(["--cages", "4", "--spares", "4"]);
    cluster.start().await.unwrap()
}

fn token(cluster: &Cluster) -> String {
    let claims = Claims::new(ISSUER, AUDIENCE).set("roles", json!([ROLE]));
    cluster.signer().sign(&claims).unwrap()
}

/// Makes up requests for a pool from the document of a contract.
async fn fuzz(
    cluster: &Cluster,
    (contract, pool): (&str, &str),
    rights: Rights<'_>,
    options: &[&str],
) {
    let (http, _) = cluster.addresses(0).unwrap();
    let mut run = Command::new(places::fuzz().join("run.sh"));
    run.arg(places::fuzz_environment())
        .arg(contract)
        .arg(format!("http://{http}{}", pool_path(pool)))
        .args(options)
        .env("ORIGIN", format!("http://{http}"))
        .env("SEED", SEED.to_string());
    match rights {
        Rights::Good(token) => run.env("TOKEN", token),
        Rights::Refused(token, status) => {
            run.args(["--checks", "refused,response_schema_conformance"]);
            run.env("TOKEN", token)
                .env("EXPECTED_STATUS", status.to_string())
        }
    };
    let output = tokio::task::spawn_blocking(move || run.output()).await;
    let output = output.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{contract} {pool}\n{text}\n{errors}"
    );
}

/// What a run sends, and what comes of it.
#[derive(Clone, Copy)]
enum Rights<'a> {
    Good(&'a str),
    /// Every answer must have this status.
    Refused(&'a str, u16),
}

#[tokio::test]
async fn whatever_is_asked_is_answered_as_described_and_never_fails() {
    let cluster = start().await;
    let token = token(&cluster);
    let good = Rights::Good(&token);
    fuzz(&cluster, ("new", "python"), good, &WIDE).await;
    fuzz(&cluster, ("old", "python"), good, &WIDE).await;
    let of_shells = [&WIDE[..], &ONLY_EXECUTIONS].concat();
    fuzz(&cluster, ("new", SHELL), good, &of_shells).await;
}

#[tokio::test]
async fn whoever_has_no_rights_is_refused_whatever_he_asks() {
    let cluster = start().await;
    let stranger = cluster.another_signer().unwrap();
    let forged = stranger.sign(&Claims::new(ISSUER, AUDIENCE)).unwrap();
    for contract in ["old", "new"] {
        for refused in [
            Rights::Refused("", 401),
            Rights::Refused(&forged, 401),
            Rights::Refused(cluster.token(), 403),
        ] {
            fuzz(&cluster, (contract, "python"), refused, &BRIEF).await;
        }
    }
}
