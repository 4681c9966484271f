//! How long a connection may say nothing that is of use. Bodies have bounds of their own.

use std::{net::SocketAddr, time::Duration};

use axum_server::Server;

/// Time that a new connection has for its TLS handshake, and then for the whole head of its first request,
/// whatever the version of HTTP.
pub const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Seconds from an answer to the whole head of the next request of the same HTTP/1 connection, unless set
/// otherwise. Longer than clients and proxies keep idle connections, usually up to 90 s: the side that closes
/// first should be theirs, or a request may meet a connection that is just being closed.
pub const IDLE_SECONDS: u32 = 120;
/// An HTTP/2 connection is asked this often whether it is still there,
const PING_EVERY: Duration = Duration::from_secs(20);
/// and has this long to say so. In the middle of a head it cannot (RFC 9113 §6.10), so half a head ends
/// after both.
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// The server with these bounds, HTTP/1 connections being idle for `idle` at most. The bound of the
/// handshake is its acceptor's.
#[must_use]
pub fn bounded<A>(mut server: Server<SocketAddr, A>, idle: Duration) -> Server<SocketAddr, A> {
    let builder = server.http_builder();
    builder.http1().header_read_timeout(idle);
    let mut http2 = builder.http2();
    http2.keep_alive_interval(PING_EVERY);
    http2.keep_alive_timeout(PONG_WITHIN);
    server.first_request_timeout(HEAD_WITHIN)
}
