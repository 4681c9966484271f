//! The end of a worker whose sessions hinder each other.

use futures_util::{StreamExt, future::join_all, stream};
use loadtest::{
    client::Session,
    cluster::{Cluster, Member},
    wait::until,
};
use serde_json::json;
use std::time::Duration;

use crate::stack::{begun, succeed};

/// Sessions whose variables take for ever to be pickled. In one after the other's whole time they would
/// take longer than the worker has.
const HANGING: usize = 48;
const HONEST: usize = 4;
/// Started at once.
const AT_ONCE: usize = 8;
const WITHIN: Duration = Duration::from_secs(60);

/// Code that hangs in another way for each number: asleep, at work, and deaf to interrupts.
fn hanging(number: usize) -> String {
    let forever = [
        "time.sleep(3600)",
        "while True: pass",
        "while True:\n            try: time.sleep(3600)\n            except BaseException: pass",
    ];
    format!(
        "import time\nclass Hangs:\n    def __reduce__(self):\n        {}\nhangs = Hangs()",
        forever[number % forever.len()]
    )
}

async fn start_all(sessions: &[Session], code: impl Fn(usize) -> String) {
    let starts = sessions.iter().enumerate().map(|(number, session)| {
        let code = code(number);
        async move { drop(succeed(session, &code).await) }
    });
    stream::iter(starts)
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
}

#[tokio::test]
pub(crate) async fn sessions_whose_pickles_hang_do_not_cost_honest_ones_their_variables() {
    let cluster = Cluster::builder()
        .worker_arguments([
            "--cages",
            "4",
            "--spares",
            "2",
            "--max-sessions",
            "60",
            "--drain-seconds",
            "5",
        ])
        .start()
        .await
        .unwrap();
    let client = cluster.client(0).unwrap();
    let hang: Vec<_> = (0..HANGING).map(|_| client.fresh()).collect();
    let honest: Vec<_> = (0..HONEST).map(|_| client.fresh()).collect();
    start_all(&hang, hanging).await;
    start_all(&honest, |number| {
        format!("import numpy as np\nkept = np.arange(200_000) + {number}")
    })
    .await;
    // They are handed over when their cells have ended: behind all those that hang.
    let cells = honest.iter().map(|session| async move {
        let slow = "import pathlib, time\npathlib.Path('/mnt/data/began.txt').write_text('x')\ntime.sleep(3)";
        session.execute(slow).await.unwrap();
    });
    let ending = async {
        join_all(honest.iter().map(begun)).await;
        cluster.stop(Member::Worker(0)).await.unwrap();
    };
    tokio::join!(join_all(cells), ending);
    let log = cluster.log(Member::Worker(0)).unwrap();
    assert!(log.contains("failed to hand variables over"), "{log}");
    cluster.start(Member::Worker(0)).await.unwrap();
    for (number, session) in honest.iter().enumerate() {
        let kept = until("the session goes on", WITHIN, || async {
            Ok(session.execute("int(kept[-1])").await.ok())
        });
        assert_eq!(kept.await.unwrap().result, json!(199_999 + number));
    }
}
