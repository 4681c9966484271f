//! Memory of a session and of ingress.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;

use super::stacks::{Stacks, Stock};
use crate::{
    cluster::{Cluster, Member},
    inventory::{cgroups_of, memory, processes_in},
};

/// Idle sessions that are looked at.
const SESSIONS: usize = 10;

/// In bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Median private memory of the interpreter of an idle session that ran `1+1`.
    pub(super) idle_session: u64,
    /// Resident memory of ingress.
    pub(super) ingress: u64,
}

/// Measures on the stack with spares, which has served everything else by now.
pub(super) async fn measure(stacks: &Stacks) -> Result<Memory> {
    let cluster = stacks.of(Stock::Spare);
    let client = cluster.client(0)?;
    let sessions: Vec<_> = (0..SESSIONS).map(|_| client.fresh()).collect();
    try_join_all(sessions.iter().map(|session| session.execute("1+1"))).await?;
    let all = private_memory(cluster)?;
    // Which process belongs to which session is asked only afterwards, as asking costs memory.
    let mut sizes = Vec::new();
    for session in &sessions {
        let map = session
            .execute("print(open('/proc/self/uid_map').read())")
            .await?;
        let first = map
            .stdout
            .split_whitespace()
            .nth(1)
            .context("no user id mapping")?;
        let base: u32 = first.parse()?;
        let mine = all
            .iter()
            .filter(|(user, _)| (base..base + 65_536).contains(user));
        sizes.push(
            mine.map(|(_, bytes)| bytes)
                .max()
                .copied()
                .context("no such process")?,
        );
    }
    for session in &sessions {
        session.delete().await?;
    }
    sizes.sort_unstable();
    let idle_session = sizes.get(SESSIONS / 2).copied().unwrap_or_default();
    let pid = cluster.pid(Member::Ingress(0)).await?;
    let ingress = memory(&format!("/proc/{pid}/status"), &["VmRSS:"])?;
    Ok(Memory {
        idle_session,
        ingress,
    })
}

/// Host user id and private bytes of every sandboxed process.
fn private_memory(cluster: &Cluster) -> Result<Vec<(u32, u64)>> {
    let cgroups = cgroups_of(cluster.worker_id(0)?);
    let processes: BTreeSet<u32> = cgroups
        .iter()
        .flat_map(|cgroup| processes_in(cgroup))
        .collect();
    let mut sizes = Vec::new();
    for pid in processes {
        let path = format!("/proc/{pid}/smaps_rollup");
        let bytes = memory(
            &path,
            &["Private_Clean:", "Private_Dirty:", "Private_Hugetlb:"],
        )?;
        sizes.push((user_of(pid)?, bytes));
    }
    Ok(sizes)
}

fn user_of(pid: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let users = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .context("no Uid")?;
    Ok(users.split_whitespace().next().context("no Uid")?.parse()?)
}
