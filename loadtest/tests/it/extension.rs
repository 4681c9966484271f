//! What answers tell beyond the contracts, to those who ask; and interrupts.

use loadtest::client::{Session, Status};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    new_contract::{NEWEST, run},
    stack::{BEGAN, answer, begun, refused, shared, succeed, value},
};

async fn extended(session: &Session, code: &str) -> Value {
    let told = run(session, json!({ "code": code, "hearth": {} })).await;
    assert_eq!(told["status"], "Succeeded", "{told}");
    told["hearth"].clone()
}

#[tokio::test]
async fn only_those_who_ask_are_told_in_every_contract() {
    let stack = shared().await;
    let session = stack.session();
    for path in ["executions", "code/execute", "python/execute"] {
        for (body, asked) in [
            (json!({ "code": "1" }), false),
            (json!({ "code": "1", "hearth": {} }), true),
            (json!({ "properties": { "code": "1" } }), false),
            (json!({ "properties": { "code": "1", "hearth": {} } }), true),
            (json!({ "properties": { "code": "1" }, "hearth": {} }), true),
        ] {
            let request = session.versioned(Method::POST, path, NEWEST).json(&body);
            let (status, told) = answer(request).await;
            assert_eq!(status, 200, "{told}");
            let place = match path {
                "code/execute" => "/properties/hearth",
                _ => "/hearth",
            };
            assert_eq!(told.pointer(place).is_some(), asked, "{path} {body} {told}");
        }
    }
    for wrong in [
        json!({ "code": "1", "hearth": 1 }),
        json!({ "code": "1", "hearth": { "environment": { "A": 1 } } }),
        json!({ "code": "1", "hearth": { "unknown": 1 } }),
    ] {
        let request = session.versioned(Method::POST, "executions", NEWEST);
        refused(request.json(&wrong), 400, "SessionRequestValidationFailed").await;
    }
}

#[tokio::test]
async fn everything_that_a_cell_shows_is_told_in_all_forms() {
    let stack = shared().await;
    let session = stack.session();
    let told = extended(
        &session,
        "import matplotlib.pyplot as plt, pandas\n\
         from IPython.display import JSON, Latex, SVG, display\n\
         for _ in range(2):\n\
         \x20   plt.figure(); plt.plot([1, 2]); plt.show()\n\
         display(JSON({'a': [1]}))\n\
         display(Latex('$x$'))\n\
         display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))\n\
         display({'application/vnd.plotly.v1+json': {'data': []}}, raw=True)\n\
         pandas.DataFrame({'a': [1]})",
    )
    .await;
    let outputs = told["outputs"].as_array().unwrap();
    let of = |at: usize, mime: &str| outputs[at]["data"][mime].clone();
    assert_eq!(outputs.len(), 7, "{told}");
    for figure in 0..2 {
        let png = of(figure, "image/png");
        assert!(png.as_str().unwrap().starts_with("iVBOR"), "{png}");
    }
    assert_eq!(of(2, "application/json"), json!({ "a": [1] }));
    assert_eq!(of(3, "text/latex"), "$x$");
    assert!(of(4, "image/svg+xml").as_str().unwrap().contains("<svg"));
    let plotly = of(5, "application/vnd.plotly.v1+json");
    assert_eq!(plotly, json!({ "data": [] }));
    assert!(of(6, "text/html").as_str().unwrap().contains("<table"));
    let kinds: Vec<&Value> = outputs.iter().map(|output| &output["type"]).collect();
    assert_eq!(kinds[6], "result");
    assert!(kinds[..6].iter().all(|kind| **kind == "display"));
}

#[tokio::test]
async fn the_files_that_a_cell_changed_are_told() {
    let stack = shared().await;
    let session = stack.session();
    let nothing = extended(&session, "1").await;
    assert_eq!(nothing["files"], json!([]));
    assert_eq!(nothing["durability"], "durable");
    let written = extended(
        &session,
        "import os\nos.mkdir('/mnt/data/d')\n\
         open('/mnt/data/a', 'w').write('12'); open('/mnt/data/d/ž', 'w').write('123')",
    )
    .await;
    assert_eq!(
        written["files"],
        json!([{ "name": "a", "size": 2 }, { "name": "d/ž", "size": 3 }])
    );
    let changed = extended(
        &session,
        "open('/mnt/data/a', 'a').write('3'); os.remove('/mnt/data/d/ž')",
    )
    .await;
    assert_eq!(
        changed["files"],
        json!([{ "name": "a", "size": 3 }, { "name": "d/ž", "deleted": true }])
    );
    let many = "for n in range(1200): open(f'/mnt/data/{n}', 'w').close()";
    let many = extended(&session, many).await;
    assert_eq!(many["files"].as_array().unwrap().len(), 1000);
    assert_eq!(many["truncated"]["files"], true);
}

#[tokio::test]
async fn what_a_cell_used_is_told() {
    let stack = shared().await;
    let session = stack.session();
    let idle = extended(&session, "import time; time.sleep(0.5)").await;
    let idle = idle["resources"]["cpuMilliseconds"].as_u64().unwrap();
    let code = "import time\nx = bytearray(100_000_000); x[::4096] = b'1' * len(x[::4096])\n\
                open('/mnt/data/f', 'wb').write(b'1' * 5_000_000)\n\
                end = time.process_time() + 0.5\nwhile time.process_time() < end: pass\ndel x";
    let used = extended(&session, code).await["resources"].clone();
    let of = |name: &str| {
        used[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} {used}"))
    };
    assert!(of("cpuMilliseconds") >= 490 && idle < 490, "{idle} {used}");
    assert!(of("peakMemoryBytes") >= 100_000_000, "{used}");
    assert!(of("bytesWritten") >= 5_000_000, "{used}");
    let later = extended(&session, "1").await["resources"].clone();
    if later["peakMemoryOf"] == "execution" {
        let peak = later["peakMemoryBytes"].as_u64().unwrap();
        assert!(peak < 100_000_000, "{later}");
    }
}

#[tokio::test]
async fn output_that_is_cut_is_marked() {
    let stack = shared().await;
    let session = stack.session();
    let whole = extended(&session, "print('a')").await;
    let none = json!({ "stdout": false, "stderr": false, "outputs": false, "files": false });
    assert_eq!(whole["truncated"], none);
    let flood = "import sys\nfor _ in range(30_000): print('x' * 999)\n\
                 for n in range(70): display(n)";
    let told = extended(&session, flood).await;
    let cut = json!({ "stdout": true, "stderr": false, "outputs": true, "files": false });
    assert_eq!(told["truncated"], cut);
    let body = json!({ "code": "print('abc')", "outputStreamsMaxLength": 2, "hearth": {} });
    assert_eq!(
        run(&session, body).await["hearth"]["truncated"]["stdout"],
        true
    );
}

#[tokio::test]
async fn an_environment_is_that_of_one_execution() {
    let stack = shared().await;
    let session = stack.session();
    let body = json!({ "code": "import os, subprocess\n\
        print(os.environ['A'], subprocess.check_output('echo $A', shell=True, text=True))",
        "hearth": { "environment": { "A": "ž 1" } } });
    assert_eq!(run(&session, body).await["result"]["stdout"], "ž 1 ž 1\n\n");
    assert_eq!(value(&session, "'A' in os.environ").await, "False");
    let shell = stack.shell_session();
    let body = json!({ "shellCommand": "echo $A", "hearth": { "environment": { "A": "1" } } });
    assert_eq!(run(&shell, body).await["result"]["stdout"], "1\n");
    let after = run(&shell, json!({ "shellCommand": "echo [$A]" })).await;
    assert_eq!(after["result"]["stdout"], "[]\n");
}

#[tokio::test]
async fn input_fails_at_once_and_says_why() {
    let stack = shared().await;
    let session = stack.session();
    for code in ["input('name? ')", "import sys; sys.stdin.read()"] {
        let told = run(&session, json!({ "code": code })).await;
        let stderr = told["result"]["stderr"].as_str().unwrap();
        assert!(
            stderr.contains("standard input is not available"),
            "{stderr}"
        );
    }
}

#[tokio::test]
async fn an_interrupt_stops_what_runs_and_keeps_the_variables() {
    let stack = shared().await;
    let session = stack.session();
    let interrupt = |path: &str| answer(session.versioned(Method::POST, path, NEWEST));
    let request = session.versioned(Method::POST, "session/interrupt", NEWEST);
    refused(request, 400, "SessionWithIdentifierNotFound").await;
    succeed(&session, "kept = 41").await;
    for path in ["session/interrupt", ".management/interruptSession"] {
        let (status, told) = interrupt(path).await;
        assert_eq!(
            (status.as_u16(), told),
            (200, json!({ "interrupted": false }))
        );
        let running = session.clone();
        let code = "kept += 1\nopen('/mnt/data/began.txt', 'w').write('x')\n\
                    import time; time.sleep(200)";
        let code = json!({ "code": code });
        let cell = tokio::spawn(async move { run(&running, code).await });
        begun(&session).await;
        assert_eq!(interrupt(path).await.1, json!({ "interrupted": true }));
        let told = cell.await.unwrap();
        assert_eq!(told["status"], "Canceled");
        let stderr = told["result"]["stderr"].as_str().unwrap();
        assert!(stderr.contains("Its variables are kept"), "{stderr}");
        session.delete_file(BEGAN).await.unwrap();
    }
    assert_eq!(value(&session, "kept").await, 43);
}

/// Clients of the old contract know two words only.
#[tokio::test]
async fn what_was_interrupted_is_a_failure_in_the_old_contract() {
    let stack = shared().await;
    let session = stack.session();
    let code = "open('/mnt/data/began.txt', 'w').write('x')\nimport time; time.sleep(200)";
    let interrupting = async {
        begun(&session).await;
        let request = session.versioned(Method::POST, "session/interrupt", NEWEST);
        assert_eq!(answer(request).await.1, json!({ "interrupted": true }));
    };
    let (executed, ()) = tokio::join!(session.execute(code), interrupting);
    assert_eq!(executed.unwrap().status, Status::Failure);
}
