//! The worker's helper processes as it starts and ends them: its own program under another name, with one end
//! of a channel for its standard input.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::{Child, Command};

use super::channel::{self, Channel};
use super::error::StartError;
use super::sys;

/// Starts a program under the name of a helper. What it prints goes to this worker's standard error.
pub(super) fn spawn(program: &Path, name: &'static str) -> Result<(Channel, Child), StartError> {
    try_spawn(program, name).map_err(|source| StartError::Helper { name, source })
}

fn try_spawn(program: &Path, name: &'static str) -> io::Result<(Channel, Child)> {
    let (ours, theirs) = channel::pair()?;
    let mut command = Command::new(program);
    command
        .arg0(name)
        .env_clear()
        .process_group(0)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
    sys::ignore_signals_of_the_service(&mut command);
    let child = command.spawn()?;
    Ok((Channel::new(ours)?, child))
}

/// Why a helper closed its channel before it was ready.
pub(super) async fn ended_early(
    name: &'static str,
    child: &mut Child,
    limit: Duration,
) -> StartError {
    match tokio::time::timeout(limit, child.wait()).await {
        // Nothing but a lack of memory has the kernel kill it.
        Ok(Ok(status)) if status.signal() == Some(Signal::KILL.as_raw()) => {
            StartError::Killed { name }
        }
        Ok(Ok(status)) => StartError::EndedEarly { name, status },
        Ok(Err(source)) => StartError::Helper { name, source },
        Err(_) => StartError::Refused {
            name,
            reason: "it closed its socket and does not end".to_owned(),
        },
    }
}

/// Waits for a helper to end, or ends it.
pub(super) async fn finish(name: &str, child: &mut Child, limit: Duration) {
    let ended = match tokio::time::timeout(limit, child.wait()).await {
        Ok(ended) => ended.map(|_| ()),
        Err(_) => child.kill().await,
    };
    if let Err(error) = ended {
        tracing::warn!(name, %error, "failed to wait for a helper process");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn how_a_helper_ended_is_told_from_its_status() {
        let ended = async |script: &str| {
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            ended_early("zygote", &mut child, Duration::from_secs(5)).await
        };
        let killed = ended("kill -KILL $$").await;
        assert!(matches!(killed, StartError::Killed { .. }), "{killed}");
        let failed = ended("exit 3").await;
        assert!(failed.to_string().ends_with("exit status: 3"), "{failed}");
    }
}
