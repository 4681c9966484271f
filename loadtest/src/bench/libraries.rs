//! Libraries that choose for themselves how many threads and processes they use, beside the same with one: a
//! library that believes in more processors than its session has loses time.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::stacks::{Stacks, Stock};
use crate::{client::Status, statistics::Samples};

/// Name, preparation and work of each. `MANY` stands for the number of jobs, -1 being the library's own choice.
const WORK: [(&str, &str, &str); 6] = [
    ("OpenBLAS, matrix product", "", "a @ a"),
    (
        "LAPACK, singular values",
        "",
        "numpy.linalg.svd(a[:400, :400])",
    ),
    (
        "OpenMP, HistGradientBoosting",
        "from sklearn.ensemble import HistGradientBoostingRegressor as H\nH(max_iter=2).fit(x, y)",
        "H(max_iter=40).fit(x, y)",
    ),
    (
        "joblib, RandomForest(n_jobs=-1)",
        "from sklearn.ensemble import RandomForestRegressor as R",
        "R(20, n_jobs=MANY).fit(x, y)",
    ),
    (
        "joblib, GridSearchCV(n_jobs=-1)",
        "from sklearn.linear_model import Ridge\nfrom sklearn.model_selection import GridSearchCV as G\n\
         grid = {'alpha': numpy.logspace(-3, 3, 60).tolist()}",
        "G(Ridge(), grid, n_jobs=MANY).fit(x, y)",
    ),
    (
        "Arrow, group by",
        "import pyarrow\nt = pyarrow.table({'k': numpy.arange(2_000_000) % 999, 'v': numpy.arange(2_000_000)})",
        "t.group_by('k', use_threads=MANY != 1).aggregate([('v', 'sum')])",
    ),
];

/// Runs of each kind in one session, in turns.
const TURNS: usize = 5;

/// Times of one library.
#[derive(Clone, Debug)]
pub(super) struct Library {
    pub(super) name: &'static str,
    pub(super) by_default: Samples,
    pub(super) single_threaded: Samples,
}

/// Measures each library in a session of its own.
pub(super) async fn measure(stacks: &Stacks) -> Result<Vec<Library>> {
    let client = stacks.of(Stock::Spare).client(0)?;
    let mut libraries = Vec::new();
    for (name, setup, work) in WORK {
        let session = client.fresh();
        let executed = session.execute(&cell(setup, work)).await?;
        session.delete().await?;
        if executed.status != Status::Success {
            bail!("{name} failed: {}", executed.stderr);
        }
        let turns: Vec<[f64; 2]> = serde_json::from_str(executed.stdout.trim())
            .with_context(|| format!("{name} printed {:?}", executed.stdout))?;
        let mut library = Library {
            name,
            by_default: Samples::default(),
            single_threaded: Samples::default(),
        };
        for [by_default, single_threaded] in turns {
            let seconds = Duration::from_secs_f64;
            library.by_default.push(seconds(by_default));
            library.single_threaded.push(seconds(single_threaded));
        }
        libraries.push(library);
    }
    Ok(libraries)
}

/// Code that prints the seconds of each turn, by default and with one thread.
fn cell(setup: &str, work: &str) -> String {
    let (many, one) = (work.replace("MANY", "-1"), work.replace("MANY", "1"));
    format!(
        "import json, time, numpy, threadpoolctl\n\
         rng = numpy.random.default_rng(1)\n\
         a = rng.random((700, 700)); x = rng.random((4000, 20)); y = x.sum(axis=1)\n\
         {setup}\n\
         def seconds(work):\n    begun = time.perf_counter()\n    work()\n    return time.perf_counter() - begun\n\
         def single():\n    with threadpoolctl.threadpool_limits(1):\n        {one}\n\
         turns = [[seconds(lambda: {many}), seconds(single)] for _ in range({})][1:]\n\
         print(json.dumps(turns))",
        TURNS + 1
    )
}
