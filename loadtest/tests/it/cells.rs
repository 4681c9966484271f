//! What cells show and what of it reaches a caller, as in a notebook: clearing, replacing, the last picture, and what
//! is printed when no cell runs; and interrupts of code in libraries.

use std::time::Duration;

use loadtest::{client::Session, events::Events};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    new_contract::{NEWEST, run},
    stack::{answer, shared, succeed, value},
};

const PLOT: &str = "import matplotlib.pyplot as plt\nfrom IPython.display import clear_output, display\n\
                    def plot(width=1):\n    plt.figure(figsize=(width, 1), dpi=10); plt.plot([1]); plt.show()\n";

async fn told(session: &Session, code: &str) -> Value {
    let told = run(session, json!({ "code": code, "hearth": {} })).await;
    assert_eq!(told["status"], "Succeeded", "{told}");
    told
}

/// The text form of each output.
fn texts(told: &Value) -> Vec<&str> {
    let outputs = told["hearth"]["outputs"].as_array().unwrap();
    let texts = outputs.iter().map(|output| &output["data"]["text/plain"]);
    texts.map(|text| text.as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_last_picture_is_the_result_however_much_was_shown() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, PLOT).await;
    let last = value(&session, "plot(9)").await;
    for code in [
        "for n in range(70): plot()\nplot(9)",
        "for n in range(70): display(n)\nplot(9)",
        "plot(9)\nfor n in range(70): display(n)",
        "for n in range(70): clear_output(wait=True); plot()\nclear_output()\nplot(9)",
    ] {
        assert_eq!(value(&session, code).await, last, "{code}");
    }
    let executed = succeed(&session, "for n in range(70): plot()").await;
    let said = "6 display outputs not kept";
    assert!(executed.stderr.contains(said), "{}", executed.stderr);
    let many = told(&session, "for n in range(70): display(n)").await;
    assert_eq!(many["hearth"]["truncated"]["outputs"], true);
    assert_eq!(texts(&many).last(), Some(&"69"));
}

#[tokio::test]
async fn clears_and_updates_act_as_in_a_notebook() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, PLOT).await;
    let code =
        "for n in range(70):\n    clear_output(wait=True)\n    print('epoch', n)\n    display(n)";
    let cleared = told(&session, code).await;
    assert_eq!(cleared["result"]["stdout"], "epoch 69\n", "{cleared}");
    assert_eq!(texts(&cleared), ["69"]);
    assert_eq!(cleared["hearth"]["truncated"]["outputs"], false);
    let code = "bar = display('0 of 3', display_id='bar')\ndisplay('beside')\n\
                for n in range(1, 4): bar.update(f'{n} of 3')";
    let updated = told(&session, code).await;
    assert_eq!(texts(&updated), ["'3 of 3'", "'beside'"]);
    assert_eq!(value(&session, "bar.update('later')").await, "'later'");
}

#[tokio::test]
async fn a_stream_tells_of_clears_and_updates_where_they_come() {
    let stack = shared().await;
    let session = stack.session();
    let code = "from IPython.display import clear_output\nimport time\n\
                bar = display('0', display_id='bar')\nbar.update('1')\nprint('old')\ntime.sleep(0.2)\n\
                clear_output()\nprint('new')";
    let body = json!({ "code": code });
    let mut events = Events::of(&session, "executions", NEWEST, &body)
        .await
        .unwrap();
    let mut names = Vec::new();
    while let Some((name, data)) = events.next().await.unwrap() {
        if name == "display" {
            assert_eq!(
                (&data["name"], &data["update"]),
                (
                    &json!(0),
                    &json!(names.iter().any(|name| name == "display"))
                )
            );
        }
        if name == "result" {
            assert_eq!(data["result"]["stdout"], "new\n");
        }
        names.push(name);
    }
    // Displays and prints come by ways of their own; a clear keeps its place among both.
    let without = |other: &str| -> Vec<String> {
        let kept = names.iter().filter(|name| *name != other);
        kept.map(ToString::to_string).collect()
    };
    assert_eq!(without("stdout"), ["display", "display", "clear", "result"]);
    assert_eq!(without("display"), ["stdout", "clear", "stdout", "result"]);
}

#[tokio::test]
async fn a_table_after_a_plot_reaches_a_caller_of_the_contract() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, PLOT).await;
    let executed = succeed(
        &session,
        "import pandas as pd\nplot()\npd.DataFrame({'a': [1, 2]})",
    )
    .await;
    assert_eq!(executed.result["type"], "image");
    assert_eq!(executed.stdout, "   a\n0  1\n1  2\n");
    let handle = succeed(&session, "plt.plot([1, 2])").await;
    assert_eq!(
        (handle.result["type"].as_str(), handle.stdout.as_str()),
        (Some("image"), "")
    );
    let detailed = told(&session, "plot()\npd.DataFrame({'a': [1, 2]})").await;
    assert_eq!(detailed["result"]["stdout"], "");
}

#[tokio::test]
async fn drawings_and_animations_are_results() {
    let stack = shared().await;
    let session = stack.session();
    for (code, format) in [
        (
            "from IPython.display import SVG\nSVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')",
            "svg",
        ),
        (
            "import io, PIL.Image\nfrom IPython.display import Image\nfile = io.BytesIO()\n\
             PIL.Image.new('P', (2, 2)).save(file, 'GIF')\nImage(file.getvalue(), format='gif')",
            "gif",
        ),
    ] {
        let result = value(&session, code).await;
        assert_eq!(
            (&result["type"], &result["format"]),
            (&json!("image"), &json!(format))
        );
    }
}

#[tokio::test]
async fn what_threads_and_tasks_print_between_cells_reaches_the_next_answer_marked() {
    let stack = shared().await;
    let session = stack.session();
    let marked = "[printed between executions]\nlate\n[printed by this execution]\nnow\n";
    for start in [
        "import threading\nthreading.Timer(0.05, lambda: print('late', flush=True)).start()",
        "import asyncio\nasync def late():\n    await asyncio.sleep(0.05)\n    print('late')\n\
         task = asyncio.create_task(late())",
    ] {
        let all = async {
            // What happens to come while a cell runs is part of what it printed.
            while next_after(&session, start).await != marked {}
        };
        tokio::time::timeout(Duration::from_secs(60), all)
            .await
            .unwrap();
    }
}

/// What the cell printed to which something late came that code had begun.
async fn next_after(session: &Session, start: &str) -> String {
    let mut printed = succeed(session, start).await.stdout;
    while !printed.contains("late") {
        printed = succeed(session, "print('now')").await.stdout;
    }
    printed
}

/// Code of libraries in loops, some of which wait for their own threads when they are interrupted.
pub(crate) const LIBRARIES: [&str; 8] = [
    "import seaborn as sns, pandas as pd\nframe = pd.DataFrame({'x': range(50), 'y': range(50)})\n\
     while True: sns.regplot(data=frame, x='x', y='y')",
    "import sympy\nx, y = sympy.symbols('x y')\nwhile True: sympy.simplify(sympy.expand((x + y) ** 9) / (x + y))",
    "import pandas as pd\npd.DataFrame({'a': range(10 ** 7)}).apply(lambda row: sum(range(99)), axis=1)",
    "import matplotlib.pyplot as plt\nplt.rcParams['figure.max_open_warning'] = 0\n\
     while True: plt.figure(); plt.plot(range(99)); plt.savefig('/tmp/a.png')",
    "import asyncio\nawait asyncio.sleep(1000)",
    "import time\nfrom concurrent.futures import ThreadPoolExecutor\n\
     with ThreadPoolExecutor(2) as pool: list(pool.map(time.sleep, [30, 30]))",
    "import multiprocessing, time\nwith multiprocessing.Pool(2) as pool: pool.map(time.sleep, [1000, 1000])",
    "%timeit -n 1000000000 1 + 1",
];

#[tokio::test]
async fn interrupted_code_of_libraries_keeps_the_variables() {
    let stack = shared().await;
    let session = stack.session();
    succeed(&session, "kept = 42").await;
    for code in LIBRARIES {
        interrupted(&session, code).await;
    }
}

/// Runs code of which nothing but its time is over; the session's `kept` is still 42.
pub(crate) async fn interrupted(session: &Session, code: &str) {
    let request = session.versioned(Method::POST, "code/execute", NEWEST);
    let body = json!({ "properties": { "code": code, "timeoutInSeconds": 3 } });
    let (status, told) = answer(request.json(&body)).await;
    assert_eq!(status.as_u16(), 200, "{told}");
    assert_eq!(told["properties"]["status"], "Failure", "{code}: {told}");
    assert_eq!(value(session, "kept").await, 42, "{code}: {told}");
}
