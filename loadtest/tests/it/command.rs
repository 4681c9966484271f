//! Programs of a stack that are run by a test itself, with other settings.

use std::{
    ffi::{OsStr, OsString},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use loadtest::wait::until;

/// Longer than a worker takes to start on a busy machine.
const ENDS_WITHIN: Duration = Duration::from_secs(150);

/// What became of a program.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The same command with another value of an option, or without the option.
pub(crate) fn with(command: &Command, option: &str, value: Option<&OsStr>) -> Command {
    let mut arguments: Vec<OsString> = command.get_args().map(OsStr::to_owned).collect();
    if let Some(place) = arguments.iter().position(|argument| argument == option) {
        drop(arguments.drain(place..=place + 1));
    }
    if let Some(value) = value {
        arguments.extend([option.into(), value.to_owned()]);
    }
    again(command, command.get_program(), arguments)
}

/// The same command with a word before its arguments.
pub(crate) fn with_word(command: &Command, word: &str) -> Command {
    let mut arguments = vec![word.into()];
    arguments.extend(command.get_args().map(OsStr::to_owned));
    again(command, command.get_program(), arguments)
}

/// The same command run by another program, which takes these arguments first.
pub(crate) fn through(command: &Command, program: &str, first: &[&str]) -> Command {
    let mut arguments: Vec<OsString> = first.iter().map(OsString::from).collect();
    arguments.push(command.get_program().to_owned());
    arguments.extend(command.get_args().map(OsStr::to_owned));
    again(command, program.as_ref(), arguments)
}

fn again(command: &Command, program: &OsStr, arguments: Vec<OsString>) -> Command {
    let mut again = Command::new(program);
    again.args(arguments);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            again.env(name, value);
        }
    }
    if let Some(directory) = command.get_current_dir() {
        again.current_dir(directory);
    }
    again
}

/// Runs a program that must end by itself; one that does not is killed.
pub(crate) async fn run(command: Command) -> Result<Ended> {
    let mut child = tokio::process::Command::from(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = tokio::time::timeout(ENDS_WITHIN, async {
        tokio::join!(
            child.wait(),
            read_all(out.map(Pipe::Out)),
            read_all(err.map(Pipe::Err))
        )
    });
    let (status, stdout, stderr) = ended.await.context("it does not end")?;
    Ok(Ended {
        status: status?,
        stdout: stdout?,
        stderr: stderr?,
    })
}

enum Pipe {
    Out(tokio::process::ChildStdout),
    Err(tokio::process::ChildStderr),
}

async fn read_all(pipe: Option<Pipe>) -> Result<String> {
    use tokio::io::AsyncReadExt;
    let mut text = vec![];
    match pipe {
        Some(Pipe::Out(mut pipe)) => pipe.read_to_end(&mut text).await?,
        Some(Pipe::Err(mut pipe)) => pipe.read_to_end(&mut text).await?,
        None => 0,
    };
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Waits until a process hears SIGHUP: before it does, nothing could keep the signal from ending it.
pub(crate) async fn hears_hangup(pid: u32) -> Result<()> {
    let caught = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))?;
        let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
        (mask & 1 != 0).then_some(())
    };
    until("SIGHUP is heard", ENDS_WITHIN, async || Ok(caught())).await
}
