//! Sessions that come and go in a small pool, so that slots are taken and given back all the time.
//! Only their number is of interest: nobody may ever count more than the pool's maximum.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use crate::{chance::Chance, client::Client};

/// Name of the pool.
pub const POOL: &str = "brief";
/// Its maximum; fewer than there are comers.
pub const MAX_SESSIONS: u32 = 3;
/// Its cooldown in seconds: what is not ended ends by itself.
pub const COOLDOWN: u32 = 5;
/// Who asks for sessions.
const COMERS: usize = 5;
/// How long each request may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest time between two sessions of one comer, in milliseconds.
const THINK_MS: u64 = 1500;

/// Comes and goes until that time.
pub async fn run(clients: &[Client], seed: u64, until: Instant) {
    let comers = clients.iter().cycle().take(COMERS).enumerate();
    join_all(comers.map(|(number, client)| comer(client, seed, number, until))).await;
}

async fn comer(client: &Client, seed: u64, number: usize, until: Instant) {
    let mut chance = Chance::of(seed, &format!("comer {number}"));
    while Instant::now() < until {
        let session = client.fresh();
        // A full pool and every failure are as good: slots are what counts.
        drop(timeout(PATIENCE, session.execute("6 * 7")).await);
        if chance.happens(700) {
            drop(timeout(PATIENCE, session.delete()).await);
        }
        tokio::time::sleep(Duration::from_millis(chance.below(THINK_MS))).await;
    }
}
