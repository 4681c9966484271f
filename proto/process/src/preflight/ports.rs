//! Whether addresses can be listened at, or are a running Hearth's already.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::Finding;
use crate::remedy::{HasRemedy, Remedy};

const PORTS: &str = "ports";

/// What a process of Hearth answers to `GET /healthz`.
pub const ALIVE: &str = "alive\n";

/// How long whoever listens may take to answer, and how much of it is read.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_BYTES: u64 = 4096;

/// Tries to listen at all these addresses. `held_by_hearth` says of one that is taken whether a running Hearth has
/// it.
pub async fn look<F: Future<Output = bool>>(
    addresses: &[SocketAddr],
    mut held_by_hearth: impl FnMut(SocketAddr) -> F,
) -> Finding {
    let mut held = 0;
    for &address in addresses {
        match TcpListener::bind(address) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse && held_by_hearth(address).await => {
                held += 1;
            }
            Err(error) => {
                let what = format!("failed to listen at {address}: {error}");
                let remedy = error.remedy().map_or("", Remedy::text);
                return Finding::fail(PORTS, what, remedy);
            }
        }
    }
    Finding::ok(
        PORTS,
        match held {
            0 => "free",
            _ => "in use by a running Hearth",
        },
    )
}

/// Whether whoever listens there answers `GET /healthz` as Hearth does, over HTTP without TLS.
pub async fn answers_as_hearth(address: SocketAddr) -> bool {
    let answer = timeout(ANSWERS_WITHIN, ask(reachable(address))).await;
    matches!(answer, Ok(Ok(answer)) if is_alive(&answer))
}

async fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let question = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = vec![];
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn is_alive(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&format!("\r\n\r\n{ALIVE}"))
}

/// Where a listener at this address can be asked from its own host.
#[must_use]
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Outcome;

    #[tokio::test]
    async fn a_port_that_is_taken_fails_with_what_to_do_unless_hearth_has_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let finding = look(&[address], async |_| false).await;
        assert_eq!(finding.outcome, Outcome::Fail);
        assert_eq!(finding.remedy.as_deref(), Some(Remedy::AddressTaken.text()));
        let finding = look(&[address], async |_| true).await;
        assert_eq!(finding.outcome, Outcome::Ok);
        assert!(finding.what.contains("running"), "{finding:?}");
        drop(taken);
        let finding = look(&[address], async |_| false).await;
        assert_eq!((finding.outcome, &*finding.what), (Outcome::Ok, "free"));
    }

    #[test]
    fn only_hearths_own_answer_is_one() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n";
        assert!(is_alive(&format!("{head}alive\n")));
        for other in ["", "SSH-2.0", "HTTP/1.1 404 Not Found\r\n\r\nalive\n", head] {
            assert!(!is_alive(other), "{other}");
        }
        assert!(!is_alive(&format!("{head}we are alive\n")));
    }
}
