//! What comes of whatever a session's phase waits for.

use std::{future::pending, process::ExitStatus};

use proto::fault::{Fault, FaultCode};
use tracing::Span;

use super::{
    machine::{End, Event, Phase, Progress, Saving, Stage},
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
            Ok(opened) => Progress::Opened(Box::new(opened)).into(),
            Err(error) => not_opened(&error, name, counts).into(),
        },
        Phase::Open(_, stage) => of_stage(stage, name).await,
        Phase::Ending(_) => pending().await,
    }
}

async fn of_stage(stage: &mut Stage<Session>, name: &SessionName) -> Event<Session> {
    match stage {
        Stage::Idle(kernel) | Stage::Unsaved(Some(kernel)) => died(kernel.idle().await).into(),
        Stage::Running(running) => match (&mut running.cell).await {
            (_, Ok(cell)) if cell.kernel_is_gone() => Progress::DiedWith(Ok(cell)).into(),
            (kernel, Err(fault)) if fault.code == FaultCode::NotOwner => {
                Progress::NotBegun(kernel, fault).into()
            }
            (kernel, ran) => Progress::Finished(kernel, ran).into(),
        },
        Stage::Saving(saving) => of_saving(saving, name).await,
        Stage::Restarting(restart) => match restart.await {
            Ok(Ok(kernel)) => Progress::Restarted(kernel).into(),
            Ok(Err(error)) => not_restarted(&error).into(),
            Err(panicked) => not_restarted(&panicked).into(),
        },
        Stage::Unsaved(None) => pending().await,
    }
}

async fn of_saving(saving: &mut Saving<Session>, name: &SessionName) -> Event<Session> {
    let Saving {
        after,
        kernel,
        saving,
    } = saving;
    let span = after.as_ref().map(|ended| ended.execution.span.clone());
    let idle = async {
        match kernel {
            Some(kernel) => kernel.idle().await,
            None => pending().await,
        }
    };
    tokio::select! {
        saved = saving => span.unwrap_or_else(Span::current).in_scope(|| saving_ended(saved, name)),
        status = idle => died(status).into(),
    }
}

fn died(status: ExitStatus) -> Progress<Session> {
    tracing::info!(%status, "a kernel ended between executions");
    Progress::Died
}

fn saving_ended(saved: Result<Saved, SaveError>, name: &SessionName) -> Event<Session> {
    match saved {
        Ok(saved) => Progress::Saved(saved).into(),
        Err(SaveError::Fenced) => End::LeaseLost.into(),
        // The session's own doing, and its caller's to hear.
        Err(SaveError::Unkeepable(limit)) => {
            tracing::info!(
                session.key = %name.key,
                error = &limit as &dyn std::error::Error,
                "files not kept"
            );
            Progress::Unkeepable(Fault::from(&SaveError::Unkeepable(limit))).into()
        }
        Err(error) => {
            tracing::error!(
                session.key = %name.key,
                error = &error as &dyn std::error::Error,
                "failed to save files"
            );
            Progress::NotSaved(Fault::from(&error)).into()
        }
    }
}

fn not_opened(error: &OpenError, name: &SessionName, counts: &Counts) -> Progress<Session> {
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
    Progress::Failed(fault)
}

fn not_restarted(error: &(dyn std::error::Error + 'static)) -> Progress<Session> {
    tracing::error!(error, "failed to start a kernel for a session");
    let words = "the session's sandbox could not be made or kept";
    Progress::Failed(Fault::new(FaultCode::SandboxUnavailable, words))
}
