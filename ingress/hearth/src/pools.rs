//! The pools: what lives in them, what waits and what is recorded.

use anyhow::Context;
use proto::{pool::Pool, subject};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{fleet::Fleet, sessions, table::Row};

/// A pool of the pool file.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    name: String,
    id: String,
    /// Sessions that live.
    sessions: usize,
    max_sessions: u32,
    /// Asynchronous executions and that no worker has taken yet.
    queued: u64,
    max_queued: u32,
    /// Executions of the last 24 hours that have a record.
    recorded: u64,
    max_recorded: u32,
}

impl Row for Listed {
    const HEAD: &'static [&'static str] = &["POOL", "ID", "SESSIONS", "QUEUED", "RECORDED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.id.clone(),
            format!("{}/{}", self.sessions, self.max_sessions),
            format!("{}/{}", self.queued, self.max_queued),
            format!("{}/{}", self.recorded, self.max_recorded),
        ]
    }
}

/// All pools, in the order of the file.
///
/// # Errors
/// The bus did not answer.
pub(crate) async fn list(fleet: &Fleet) -> anyhow::Result<Vec<Listed>> {
    let mut listed = vec![];
    for pool in fleet.pools()? {
        listed.push(one(fleet, pool).await?);
    }
    Ok(listed)
}

async fn one(fleet: &Fleet, pool: &Pool) -> anyhow::Result<Listed> {
    Ok(Listed {
        name: pool.name.to_string(),
        id: pool.id.to_string(),
        sessions: sessions::list(fleet, pool.id.as_str()).await?.len(),
        max_sessions: pool.max_sessions,
        queued: fleet.bus.queue()?.depth(&pool.id).await?.waiting,
        max_queued: pool.queued_executions,
        recorded: recorded(fleet, pool).await?,
        max_recorded: pool.recorded_executions,
    })
}

/// Counts the records of a pool without reading one: they hold what code printed. The server lists the subjects
/// page by page, and says with each page how many there are; none is left for one that begins so far on.
async fn recorded(fleet: &Fleet, pool: &Pool) -> anyhow::Result<u64> {
    const PAST_THE_LAST: u32 = 1 << 30;
    #[derive(Deserialize)]
    struct Page {
        #[serde(default)]
        total: u64,
    }
    let question = json!({
        "subjects_filter": subject::executions_of_pool(&pool.id),
        "offset": PAST_THE_LAST,
    });
    let info = format!("STREAM.INFO.{}", subject::EXECUTIONS_STREAM);
    let answer = fleet.bus.jetstream().request(info, &question).await;
    let page: Page = answer.context("failed to count the records of executions")?;
    Ok(page.total)
}
