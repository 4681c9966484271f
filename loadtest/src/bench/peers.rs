//! The driver of the gateway and of ipykernel, which is Python as they are.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::{places::PeerPlaces, statistics::Samples};

/// What Hearth is measured against.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Peer {
    /// Jupyter Kernel Gateway.
    Gateway,
    /// ipykernel over ZMQ.
    Zmq,
}

/// What is timed.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum What {
    /// A cell in a kernel that runs already.
    Warm,
    /// A new kernel and its first cell.
    New,
}

#[derive(Serialize)]
struct Request<'a> {
    peer: Peer,
    what: What,
    code: &'a str,
    runs: usize,
}

/// The running driver with both peers started.
#[derive(Debug)]
pub(super) struct Peers {
    child: Child,
    line: Option<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Peers {
    /// Installs the peers where that has not been done, and starts them.
    pub(super) fn start() -> Result<Self> {
        let places = PeerPlaces::find();
        install(&places)?;
        let mut child = Command::new(places.venv.join("bin/python"))
            .arg(&places.script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let requests = child.stdin.take().context("no input of the driver")?;
        let answers = child.stdout.take().context("no output of the driver")?;
        Ok(Self {
            child,
            line: Some((requests, BufReader::new(answers))),
        })
    }

    /// Times `runs` runs.
    pub(super) async fn time(
        &mut self,
        peer: Peer,
        what: What,
        code: &str,
        runs: usize,
    ) -> Result<Samples> {
        let request = serde_json::to_string(&Request {
            peer,
            what,
            code,
            runs,
        })?;
        let (mut requests, mut answers) = self.line.take().context("the driver has failed")?;
        let (line, answer) = tokio::task::spawn_blocking(move || -> Result<_> {
            writeln!(requests, "{request}")?;
            let mut answer = String::new();
            ensure!(answers.read_line(&mut answer)? > 0, "the driver has ended");
            Ok(((requests, answers), answer))
        })
        .await??;
        self.line = Some(line);
        let times: Vec<f64> = serde_json::from_str(&answer)?;
        Ok(times
            .into_iter()
            .map(|time| Duration::from_secs_f64(time / 1e3))
            .collect())
    }
}

impl Drop for Peers {
    /// Ends the driver, which ends its kernels.
    fn drop(&mut self) {
        drop(self.line.take());
        drop(self.child.wait());
    }
}

/// Makes the virtual environment anew when the pinned versions have changed.
fn install(places: &PeerPlaces) -> Result<()> {
    let wanted = fs::read(&places.requirements)?;
    let mark = places.venv.join("installed.txt");
    if fs::read(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&places.venv))?;
    let python = places.venv.join("bin/python");
    run(pip(&python).arg("--requirement").arg(&places.requirements))?;
    Ok(fs::write(mark, wanted)?)
}

fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    command.args(["--only-binary", ":all:"]);
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("starting {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
