//! Links in answers: addresses of this server as the caller wrote them.

use axum::{
    extract::Request,
    http::{HeaderMap, Uri, header, uri::Authority},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What is left as it is in names and values: all but unreserved characters (RFC 3986 §2.3) is encoded.
pub const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// How a connection came in; set for each listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// With TLS.
    Https,
}

/// Where a request went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// Such as `https://host:8443`; empty when the caller named no host.
    origin: String,
    path: String,
    query: String,
}

impl Here {
    /// The address of a request. A proxy in front that ends TLS says what its caller wrote in
    /// `X-Forwarded-Proto` and `X-Forwarded-Host`; whoever lies there is lied to.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let scheme = request.extensions().get::<Scheme>().copied();
        Self::at(
            request.uri(),
            request.headers(),
            scheme.unwrap_or(Scheme::Http),
        )
    }

    fn at(uri: &Uri, headers: &HeaderMap, scheme: Scheme) -> Self {
        let first = |name: &str| {
            let list = headers.get(name)?.to_str().ok()?;
            Some(list.split(',').next().unwrap_or_default().trim())
        };
        let forwarded = first("x-forwarded-proto");
        let scheme = match (forwarded.map(str::to_ascii_lowercase).as_deref(), scheme) {
            (Some("https"), _) => "https",
            (Some("http"), _) => "http",
            (_, Scheme::Https) => "https",
            (_, Scheme::Http) => "http",
        };
        let named = first("x-forwarded-host").or_else(|| first(header::HOST.as_str()));
        let host = named.and_then(|host| host.parse::<Authority>().ok());
        let host = host.or_else(|| uri.authority().cloned());
        Self {
            origin: host.map_or_else(String::new, |host| format!("{scheme}://{host}")),
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
        }
    }

    /// Where an execution of this session is told of, if this is where executions are asked for.
    #[must_use]
    pub fn of_execution(&self, operation: &str, identifier: &str) -> String {
        let id = utf8_percent_encode(operation, UNRESERVED);
        let below = Self {
            path: format!("{}/{id}", self.path.trim_end_matches('/')),
            ..self.clone()
        };
        below.with("identifier", identifier)
    }

    /// The same request with another value of one parameter.
    #[must_use]
    pub fn with(&self, parameter: &str, value: &str) -> String {
        let is_other = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or_default();
            !pair.is_empty() && !name.eq_ignore_ascii_case(parameter)
        };
        let value = utf8_percent_encode(value, UNRESERVED);
        let set = format!("{parameter}={value}");
        let mut pairs: Vec<&str> = self.query.split('&').filter(is_other).collect();
        pairs.push(&set);
        format!("{}{}?{}", self.origin, self.path, pairs.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(uri: &str, headers: &[(&'static str, &str)], scheme: Scheme) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Here::at(&uri.parse().unwrap(), &map, scheme).with("skip", "300")
    }

    #[test]
    fn an_execution_has_an_address_of_its_own() {
        let here = Here {
            origin: "https://host".into(),
            path: "/a/executions/".into(),
            query: "api-version=v&identifier=a%20b".into(),
        };
        assert_eq!(
            here.of_execution("op-1/x", "a b"),
            "https://host/a/executions/op-1%2Fx?api-version=v&identifier=a%20b"
        );
    }

    #[test]
    fn a_link_leads_to_where_its_caller_came_in() {
        let plain = [("host", "localhost:8080")];
        let behind = [
            ("host", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "hearth.example, 10.0.0.1"),
        ];
        let path = "//a/b?api-version=v&skip=0&x=%20";
        assert_eq!(
            next(path, &plain, Scheme::Http),
            "http://localhost:8080//a/b?api-version=v&x=%20&skip=300"
        );
        assert!(next(path, &plain, Scheme::Https).starts_with("https://localhost:8080//a"));
        assert!(next(path, &behind, Scheme::Http).starts_with("https://hearth.example//a"));
        assert_eq!(next("/a", &[], Scheme::Http), "/a?skip=300");
        assert_eq!(
            next("https://h2:1/a", &[], Scheme::Https),
            "https://h2:1/a?skip=300"
        );
    }
}
