//! HTTP/1.1 written by hand: for targets and headers that a well-behaved client would tidy up
//! before sending.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A request that goes out byte for byte as it was put together.
#[derive(Clone, Debug)]
pub struct RawRequest {
    head: Vec<u8>,
    body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct RawResponse {
    /// Status code.
    pub status: u16,
    /// Names in lower case, in the order that they came.
    pub headers: Vec<(String, String)>,
    /// The body without its transfer encoding.
    pub body: Vec<u8>,
}

impl RawRequest {
    /// A request for `target`, which is sent as it is.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        Self {
            head: head.into_bytes(),
            body: Vec::new(),
        }
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head
            .extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        self
    }

    /// Adds `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Sends `body` with its length.
    #[must_use]
    pub fn body(self, body: &[u8]) -> Self {
        let mut request = self.header("Content-Length", &body.len().to_string());
        request.body = body.to_vec();
        request
    }

    /// Sends `pieces` as chunks, so that the length is not told in advance.
    #[must_use]
    pub fn chunked(self, pieces: &[&[u8]]) -> Self {
        let mut request = self.header("Transfer-Encoding", "chunked");
        for piece in pieces {
            request
                .body
                .extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            request.body.extend_from_slice(piece);
            request.body.extend_from_slice(b"\r\n");
        }
        request.body.extend_from_slice(b"0\r\n\r\n");
        request
    }

    /// The request as it goes out.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.head.extend_from_slice(b"\r\n");
        self.head.extend_from_slice(&self.body);
        self.head
    }

    /// Sends it over its own connection and reads the answer to its end.
    ///
    /// # Errors
    /// The connection failed or what came back is no HTTP.
    pub async fn send(self, to: SocketAddr) -> Result<RawResponse> {
        Self::exchange(to, &self.into_bytes()).await
    }

    /// Sends bytes as a request and reads the answer to its end.
    ///
    /// # Errors
    /// The connection failed or what came back is no HTTP.
    pub async fn exchange(to: SocketAddr, request: &[u8]) -> Result<RawResponse> {
        let mut connection = TcpStream::connect(to).await?;
        connection.set_nodelay(true)?;
        // A server may answer and close before it has read all of a body that it refuses.
        let sent = connection.write_all(request).await;
        let mut answer = Vec::new();
        let read = connection.read_to_end(&mut answer).await;
        if answer.is_empty() {
            sent.context("sending the request")?;
            read.context("reading the answer")?;
        }
        RawResponse::parse(&answer)
    }
}

impl RawResponse {
    /// Value of the first header of this name, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    fn parse(answer: &[u8]) -> Result<Self> {
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
            bail!(
                "no complete HTTP head in {:?}",
                String::from_utf8_lossy(answer)
            );
        };
        let (head, rest) = answer.split_at(end);
        let head = String::from_utf8_lossy(head);
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("no status in `{status_line}`"))?;
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let body = rest.strip_prefix(b"\r\n\r\n").unwrap_or_default();
        let chunked = headers.iter().any(|(name, value)| {
            name == "transfer-encoding" && value.eq_ignore_ascii_case("chunked")
        });
        let body = if chunked {
            join_chunks(body)?
        } else {
            body.to_vec()
        };
        Ok(Self {
            status,
            headers,
            body,
        })
    }
}

fn join_chunks(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|window| window == b"\r\n")
            .context("cut-off chunk")?;
        let (size, after) = rest.split_at(end);
        let size = usize::from_str_radix(std::str::from_utf8(size)?.trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(after.get(2..size + 2).context("cut-off chunk")?);
        rest = after.get(size + 4..).context("cut-off chunk")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let response = RawResponse::parse(answer).unwrap();
        assert_eq!(
            (response.status, response.body.as_slice()),
            (200, b"abcde".as_slice())
        );
    }

    #[test]
    fn half_an_answer_is_an_error() {
        assert!(RawResponse::parse(b"HTTP/1.1 200 OK\r\n").is_err());
        assert!(join_chunks(b"5\r\nabc").is_err());
    }
}
