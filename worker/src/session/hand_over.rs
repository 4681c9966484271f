//! What a session leaves to its next owner: its files first, then the variables of its interpreter. Pickling
//! runs the session's own code, which may never end. So an interpreter works in turns; between two of them
//! its session is frozen, and neither takes processor time nor fills this process's memory.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    ports::{CagePort, KernelPort},
    saver::Saver,
    turns::{TURNS, Turn, Turns},
};
use crate::kernel::variables::{Snapshot, VariablesError, earlier};

/// How long an answer may take that has begun to arrive. Until it is there it takes memory, so it is not
/// waited for in another turn.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// The most of an incomplete answer that is kept while a better one is waited for.
const KEPT_BYTES: usize = 64 << 10;

/// Why the variables of a session are not handed over.
#[derive(Debug, thiserror::Error)]
enum CarryError {
    /// The interpreter does not answer, or is gone.
    #[error(transparent)]
    Kernel(#[from] VariablesError),
    /// The worker ends before there was another turn.
    #[error("the worker's time was over before the variables were there")]
    TimeOver,
    /// The session cannot be stopped between two turns, or not go on.
    #[error("failed to freeze or thaw the session")]
    Freeze(#[source] std::io::Error),
}

/// Saves files and variables. Returns the turn in which the rest of the session's end takes place.
pub(super) async fn carry_out(
    kernel: Option<&mut Box<dyn KernelPort>>,
    saver: &Saver,
    cage: &dyn CagePort,
    turns: &Turns,
) -> Option<Turn> {
    let mut turn = turns.take(0).await;
    if let Err(error) = saver.all().await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "failed to hand files over"
        );
        return turn;
    }
    let Some(kernel) = kernel else {
        return turn;
    };
    match snapshot(&mut **kernel, cage, turns, &mut turn).await {
        Ok(snapshot) if snapshot.data.is_empty() => {}
        Ok(snapshot) => {
            if let Err(error) = saver.variables(snapshot).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to save variables"
                );
            }
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to hand variables over"
            );
        }
    }
    turn
}

/// The variables, within as many turns as it takes and there are.
async fn snapshot(
    kernel: &mut dyn KernelPort,
    cage: &dyn CagePort,
    turns: &Turns,
    turn: &mut Option<Turn>,
) -> Result<Snapshot, CarryError> {
    let mut had = 0;
    let mut kept = None;
    loop {
        let Some(time) = TURNS.get(had).filter(|_| turn.is_some()) else {
            return kept.ok_or(CarryError::TimeOver);
        };
        let asked = Instant::now();
        let answer = match answer(kernel, cage, turns, (&mut *turn, &mut had)).await {
            Err(CarryError::TimeOver) => return kept.ok_or(CarryError::TimeOver),
            answer => answer?,
        };
        // The interpreter leaves out what it does not reach in time.
        let complete = answer.lost.is_empty() || asked.elapsed() < earlier(*time);
        had += 1;
        if complete || had >= TURNS.len() {
            return Ok(answer);
        }
        kept = Some(answer).filter(|answer| answer.data.len() <= KEPT_BYTES);
        *turn = None;
        *turn = turns.take(had).await;
    }
}

/// Asks once, and waits for the answer from turn to turn.
async fn answer(
    kernel: &mut dyn KernelPort,
    cage: &dyn CagePort,
    turns: &Turns,
    (turn, had): (&mut Option<Turn>, &mut usize),
) -> Result<Snapshot, CarryError> {
    let begun = kernel.receiving();
    let first = TURNS.get(*had).copied().unwrap_or_default();
    let mut asked = std::pin::pin!(kernel.begin_snapshot(earlier(first)));
    let mut waited = Duration::ZERO;
    loop {
        let time = TURNS.get(*had).copied().unwrap_or_default();
        if let Some(answer) = turns.within(time, &mut asked).await {
            return Ok(answer?);
        }
        if turns.are_over() {
            return Err(CarryError::TimeOver);
        }
        waited += time;
        if begun.load(Ordering::Relaxed) {
            let answer = timeout(ANSWERED_WITHIN, &mut asked).await;
            return Ok(answer.map_err(|_| VariablesError::TooSlow(waited + ANSWERED_WITHIN))??);
        }
        *had += 1;
        if *had >= TURNS.len() {
            return Err(VariablesError::TooSlow(waited).into());
        }
        cage.freeze().await.map_err(CarryError::Freeze)?;
        *turn = None;
        *turn = turns.take(*had).await;
        cage.thaw().map_err(CarryError::Freeze)?;
        if turn.is_none() {
            return Err(CarryError::TimeOver);
        }
    }
}
