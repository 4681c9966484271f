//! Readiness of each kind of process, as its own words tell it.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

/// Longest wait for a part of one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a process shows that it serves.
#[derive(Clone, Debug)]
pub(super) enum Ready {
    /// A NATS server greets whoever connects.
    Greets(SocketAddr),
    /// `GET` of this path is answered 200.
    Answers(SocketAddr, &'static str),
    /// This file exists.
    Wrote(PathBuf),
}

impl Ready {
    /// Forgets what an earlier run said.
    pub(super) fn forget(&self) -> io::Result<()> {
        match self {
            Self::Wrote(file) => match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            Self::Greets(_) | Self::Answers(..) => Ok(()),
        }
    }

    /// Whether it serves now.
    pub(super) fn holds(&self) -> bool {
        match self {
            Self::Wrote(file) => file.exists(),
            Self::Greets(address) => ask(*address, b"").is_some_and(|said| said == *b"INFO "),
            Self::Answers(address, path) => {
                let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
                let said = ask::<12>(*address, request.as_bytes());
                said.is_some_and(|said| said.ends_with(b" 200"))
            }
        }
    }
}

/// The first bytes of what a server says.
fn ask<const N: usize>(address: SocketAddr, request: &[u8]) -> Option<[u8; N]> {
    let mut connection = TcpStream::connect(address).ok()?;
    connection.set_read_timeout(Some(PATIENCE)).ok()?;
    connection.write_all(request).ok()?;
    let mut said = [0; N];
    connection.read_exact(&mut said).ok()?;
    Some(said)
}
