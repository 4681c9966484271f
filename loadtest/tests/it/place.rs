//! Code begins beside the session's files.

use loadtest::{
    client::Session,
    cluster::{Cluster, Member},
};
use serde_json::json;

use crate::stack::{printed, shared, succeed, value};

const MODULE: &[u8] = b"def triple(x):\n    return 3 * x\n";

async fn names(session: &Session) -> Vec<String> {
    let mut names: Vec<_> = session
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|file| file.filename)
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn files_are_found_and_written_by_their_names() {
    let stack = shared().await;
    let session = stack.session();
    session
        .upload("sales.csv", b"region,sum\nnorth,40\nsouth,2\n")
        .await
        .unwrap();
    assert_eq!(
        value(
            &session,
            "import pandas as pd\nint(pd.read_csv('sales.csv')['sum'].sum())"
        )
        .await,
        42
    );
    let code = "pd.read_csv('sales.csv').to_csv('result.csv', index=False)\n\
                import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('chart.png')";
    succeed(&session, code).await;
    assert_eq!(
        names(&session).await,
        ["chart.png", "result.csv", "sales.csv"]
    );
    assert_eq!(
        session.download("result.csv").await.unwrap(),
        b"region,sum\nnorth,40\nsouth,2\n"
    );
    assert_eq!(
        printed(&session, "import os\nprint(os.getcwd())").await,
        "/mnt/data\n"
    );
}

#[tokio::test]
async fn uploaded_modules_and_programs_run_and_leave_nothing() {
    let stack = shared().await;
    let session = stack.session();
    session.upload("mymodule.py", MODULE).await.unwrap();
    session
        .upload(
            "report.py",
            b"import mymodule\nprint(mymodule.triple(14))\n",
        )
        .await
        .unwrap();
    assert_eq!(
        value(&session, "import mymodule\nmymodule.triple(14)").await,
        42
    );
    assert_eq!(printed(&session, "%run report.py").await, "42\n");
    assert_eq!(printed(&session, "!python3 report.py").await, "42\n");
    let spawned = "import multiprocessing\n\
                   with multiprocessing.get_context('spawn').Pool(1) as pool:\n    \
                       print(pool.map(mymodule.triple, [14]))";
    assert_eq!(printed(&session, spawned).await, "[42]\n");
    assert_eq!(names(&session).await, ["mymodule.py", "report.py"]);
}

#[tokio::test]
async fn an_uploaded_module_takes_the_place_of_none_of_the_library() {
    let stack = shared().await;
    let session = stack.session();
    for name in [
        "json.py",
        "random.py",
        "csv.py",
        "numpy.py",
        "asyncio.py",
        "typing.py",
        "hearth_share.py",
    ] {
        session
            .upload(name, b"raise SystemError('the wrong module')")
            .await
            .unwrap();
    }
    let code = "import csv, json, random, asyncio, typing, numpy as np\nint(json.dumps(int(np.arange(3).sum())))";
    assert_eq!(value(&session, code).await, 3);
    // The next interpreter finds them there when it begins.
    session.execute("import os\nos._exit(1)").await.unwrap();
    assert_eq!(value(&session, code).await, 3);
}

#[tokio::test]
async fn a_new_interpreter_and_another_worker_begin_there_too() {
    let cluster = Cluster::builder().workers(2).start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    session.upload("mymodule.py", MODULE).await.unwrap();
    let begins =
        "import os\n[os.getcwd(), sorted(os.listdir()), __import__('mymodule').triple(14)]";
    let there = json!("['/mnt/data', ['mymodule.py'], 42]");
    assert_eq!(value(&session, begins).await, there);
    // The directory stays the session's, even if it closes it to itself.
    session
        .execute("os.chmod('/mnt/data', 0)\nos._exit(1)")
        .await
        .unwrap();
    succeed(&session, "import os\nos.chmod('/mnt/data', 0o755)").await;
    assert_eq!(value(&session, begins).await, there);
    succeed(&session, "from mymodule import triple\nos.chdir('/tmp')").await;
    for worker in 0..2 {
        cluster.restart(Member::Worker(worker)).await.unwrap();
    }
    assert_eq!(
        value(&session, "triple(14)").await,
        42,
        "a variable that its module defines"
    );
    assert_eq!(value(&session, begins).await, there);
}
