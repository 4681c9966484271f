//! The host that a request names (RFC 9112 §3.2). Without one, or with something else in its place, a proxy in
//! front may have taken the request for another's.

use axum::{
    extract::Request,
    http::{HeaderMap, Version, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{error::ApiError, headers::single};

/// Checks the header `Host`, which HTTP/1.1 alone demands.
///
/// # Errors
/// There is none, several, or no host in it.
pub fn check(version: Version, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(host) = single(headers, "host")? else {
        if version == Version::HTTP_11 {
            return Err(ApiError::invalid("the header `Host` is missing"));
        }
        return Ok(());
    };
    let text = host.to_str().unwrap_or("?");
    let is_host = |host: &str| host.parse::<Authority>().is_ok() && !host.contains('@');
    // Empty is what a client writes that knows no host.
    if text.is_empty() || is_host(text) {
        return Ok(());
    }
    Err(ApiError::invalid("the header `Host` is not a host"))
}

/// Lets through what [`check`] does.
pub async fn demand(request: Request, next: Next) -> Response {
    match check(request.version(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, header};

    use super::*;

    fn checked(version: Version, hosts: &[&[u8]]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_bytes(host).unwrap());
        }
        check(version, &headers).is_ok()
    }

    #[test]
    fn only_a_version_that_demands_a_host_is_refused_without_one() {
        assert!(!checked(Version::HTTP_11, &[]));
        assert!(checked(Version::HTTP_10, &[]) && checked(Version::HTTP_2, &[]));
    }

    #[test]
    fn a_host_is_one_name_or_address_with_or_without_a_port() {
        let hosts: [&[u8]; 6] = [
            b"localhost",
            b"localhost:8080",
            b"[::1]:8443",
            b"10.0.0.1",
            b"a_b.example",
            b"",
        ];
        for host in hosts {
            assert!(checked(Version::HTTP_11, &[host]), "{host:?}");
        }
        let wrong: [&[u8]; 6] = [b"a b", b"a/b", b"user@host", b"a,b?", b"\xff", b"[::1"];
        for host in wrong {
            assert!(!checked(Version::HTTP_11, &[host]), "{host:?}");
        }
        assert!(!checked(Version::HTTP_11, &[b"a", b"a"]));
    }
}
