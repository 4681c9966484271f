//! More files than can be kept, or longer paths: it has a name of its own, and code can make room.

use loadtest::{
    client::Session,
    cluster::{Cluster, Member},
};
use proto::limits::{TREE_ENTRIES, TREE_PATH_BYTES};
use reqwest::Method;
use serde_json::json;

use crate::stack::{answer, refusal, shared, stored, succeed, value};

/// One name more than can be kept. A file can have some 65,000.
fn too_many() -> String {
    format!(
        "import os\nos.makedirs('/mnt/data/many')\nos.chdir('/mnt/data/many')\n\
         for n in range({TREE_ENTRIES} // 50_000):\n    \
             open(f'f{{n}}', 'w').close()\n    \
             for m in range(49_999): os.link(f'f{{n}}', f'{{n}}-{{m}}')\n\
         os.chdir('/')"
    )
}

/// Whether what was refused ran, as its answer tells.
async fn ran_and_was_refused(session: &Session, code: &str, name: &str) {
    let request = session.request(Method::POST, "code/execute");
    let body = json!({ "properties": { "code": code } });
    let (status, told) = answer(request.json(&body)).await;
    let error = &told["error"];
    assert_eq!(
        (status.as_u16(), &error["code"]),
        (507, &json!(name)),
        "{told}"
    );
    assert_eq!(error["innererror"]["mayHaveExecuted"], true, "{told}");
}

#[tokio::test]
async fn code_makes_room_where_there_are_too_many_files() {
    let cluster = Cluster::builder().start().await.unwrap();
    let session = cluster.client(0).unwrap().fresh();
    succeed(
        &session,
        "open('/mnt/data/before', 'w').write('kept')\nx = 1",
    )
    .await;
    ran_and_was_refused(&session, &too_many(), "TooManyFiles").await;
    // Code runs, and is told that what it left is not saved either, as an upload is.
    ran_and_was_refused(&session, "x += 1", "TooManyFiles").await;
    // What it does not touch is as it was.
    let listed = session.list().await.unwrap();
    assert!(
        listed.iter().any(|file| file.filename == "before"),
        "{listed:?}"
    );
    let room = "import shutil\nshutil.rmtree('/mnt/data/many')\nx += 1\n\
                open('/mnt/data/after', 'w').write(str(x))";
    succeed(&session, room).await;
    cluster.kill(Member::Worker(0)).await.unwrap();
    // The store has it.
    assert_eq!(stored(&session, "before").await, b"kept");
    assert_eq!(stored(&session, "after").await, b"3");
}

#[tokio::test]
async fn code_makes_room_where_a_path_is_too_long() {
    let stack = shared().await;
    let session = stack.session();
    let deep = format!(
        "import os, shutil\nos.chdir('/mnt/data')\n\
         for n in range({TREE_PATH_BYTES} // 101 + 1):\n    os.mkdir('d' * 100); os.chdir('d' * 100)\n\
         os.chdir('/')"
    );
    ran_and_was_refused(&session, &deep, "PathTooLong").await;
    let refused = refusal(session.execute("1").await);
    assert_eq!(refused, (507, "PathTooLong".to_owned()));
    let room = "shutil.rmtree('/mnt/data/' + 'd' * 100)\nos.listdir('/mnt/data')";
    assert_eq!(value(&session, room).await, json!([]));
}
