//! What comes of whatever a session's phase waits for.

use std::{future::pending, process::ExitStatus};

use proto::fault::{Fault, FaultCode};

use super::{
    machine::{Event, Phase, Saving, Stage},
    name::SessionName,
    opening::OpenError,
    saver::{SaveError, Saved},
    state::Session,
};
use crate::metrics::Counts;

/// The next event that a phase brings about itself. Never returns when there is none. May be dropped and called
/// again at any moment.
pub(super) async fn of(
    phase: &mut Phase<Session>,
    name: &SessionName,
    counts: &Counts,
) -> Event<Session> {
    match phase {
        Phase::Opening(opening) => match opening.opened().await {
            Ok(opened) => Event::Opened(Box::new(opened)),
            Err(error) => not_opened(&error, name, counts),
        },
        Phase::Open(_, stage) => of_stage(stage, name).await,
        Phase::Ending(_) => pending().await,
    }
}

async fn of_stage(stage: &mut Stage<Session>, name: &SessionName) -> Event<Session> {
    match stage {
        Stage::Idle(kernel) | Stage::Unsaved(Some(kernel)) => died(kernel.idle().await),
        Stage::Running(running) => match (&mut running.cell).await {
            (_, Ok(cell)) if cell.kernel_is_gone() => Event::DiedWith(Ok(cell)),
            (kernel, ran) => Event::Finished(kernel, ran),
        },
        Stage::Saving(saving) => of_saving(saving, name).await,
        Stage::Restarting(restart) => match restart.await {
            Ok(Ok(kernel)) => Event::Restarted(kernel),
            Ok(Err(error)) => not_restarted(&error),
            Err(panicked) => not_restarted(&panicked),
        },
        Stage::Unsaved(None) => pending().await,
    }
}

async fn of_saving(saving: &mut Saving<Session>, name: &SessionName) -> Event<Session> {
    let Saving { kernel, saving, .. } = saving;
    let idle = async {
        match kernel {
            Some(kernel) => kernel.idle().await,
            None => pending().await,
        }
    };
    tokio::select! {
        saved = saving => saving_ended(saved, name),
        status = idle => died(status),
    }
}

fn died(status: ExitStatus) -> Event<Session> {
    tracing::info!(%status, "a kernel ended between executions");
    Event::Died
}

fn saving_ended(saved: Result<Saved, SaveError>, name: &SessionName) -> Event<Session> {
    match saved {
        Ok(saved) => Event::Saved(saved),
        Err(SaveError::Fenced) => Event::LeaseLost,
        // The session's own doing, and its caller's to hear.
        Err(SaveError::Unkeepable(limit)) => {
            tracing::info!(
                session.key = %name.key,
                error = &limit as &dyn std::error::Error,
                "files not kept"
            );
            Event::Unkeepable(Fault::from(&SaveError::Unkeepable(limit)))
        }
        Err(error) => {
            tracing::error!(
                session.key = %name.key,
                error = &error as &dyn std::error::Error,
                "failed to save files"
            );
            Event::NotSaved(Fault::from(&error))
        }
    }
}

fn not_opened(error: &OpenError, name: &SessionName, counts: &Counts) -> Event<Session> {
    let fault = Fault::from(error);
    // That another worker was faster is no failure.
    if matches!(error, OpenError::NoRoom) || fault.code != FaultCode::NotOwner {
        counts.not_opened(error.step());
        tracing::error!(
            session.key = %name.key,
            error = error as &dyn std::error::Error,
            "failed to open a session"
        );
    }
    Event::Failed(fault)
}

fn not_restarted(error: &(dyn std::error::Error + 'static)) -> Event<Session> {
    tracing::error!(error, "failed to start a kernel for a session");
    let words = "the session's sandbox could not be made or kept";
    Event::Failed(Fault::new(FaultCode::SandboxUnavailable, words))
}
