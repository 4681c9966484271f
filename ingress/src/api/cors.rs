//! Pages of other origins (the CORS protocol of the Fetch standard). A pool names the origins whose pages may
//! read its answers; without any, browsers keep its answers from all pages. It is no protection of the pool:
//! that is the token, which a page has to hold and a browser never adds by itself. So no answer allows
//! credentials.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use proto::pool::{ANY_ORIGIN, Pool};

use crate::headers::single;

/// What the operations have.
const METHODS: &str = "GET, POST, DELETE";
/// What requests may carry beside what every page may send; the `x-ms-` ones are those of Azure's libraries.
const REQUEST_HEADERS: &str = "authorization, content-type, content-encoding, operation-id, range, \
                               traceparent, tracestate, x-ms-client-request-id, x-ms-useragent";
/// What pages may read of answers beside what they always may.
const ANSWER_HEADERS: &str = "accept-ranges, content-disposition, content-range, operation-id, \
     operation-location, retry-after, x-hearth-files, x-hearth-lost-variables, x-hearth-restored, \
     x-ms-container-execution-duration, x-ms-error-code, x-ms-execution-read-response-time, \
     x-ms-execution-request-time, x-ms-overall-execution-time, x-ms-preparation-time, \
     x-ms-session-guid, x-ms-total-execution-service-time";
/// Seconds for which a browser may keep what it was allowed. An origin that is taken out of a pool file is
/// refused by then at the latest.
const KEPT: &str = "600";

/// What the pool of a request has to do with the page that sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The pool is for no pages: nothing is said of origins.
    None,
    /// The pool is for some pages, of which this is none.
    Other,
    /// The page may read the answer. Holds what is told it: its origin, or `*`.
    Page(HeaderValue),
}

impl Grant {
    /// That of a request with these headers for a pool.
    #[must_use]
    pub fn of(pool: Option<&Pool>, headers: &HeaderMap) -> Self {
        let allowed = pool.map(|pool| pool.cors_origins.as_slice());
        let Some(allowed @ [_, ..]) = allowed else {
            return Self::None;
        };
        if allowed.iter().any(|origin| origin == ANY_ORIGIN) {
            return Self::Page(HeaderValue::from_static(ANY_ORIGIN));
        }
        // Of several, which browsers never send, none is the page's.
        let origin = single(headers, "origin").ok().flatten();
        match origin.filter(|origin| {
            allowed
                .iter()
                .any(|own| own.as_bytes() == origin.as_bytes())
        }) {
            Some(origin) => Self::Page(origin.clone()),
            None => Self::Other,
        }
    }

    /// The answer to a browser that asks what a page may send. It has no token: it holds none.
    #[must_use]
    pub fn preflight(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let asks = request.method() == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || !matches!(self, Self::Page(_)) {
            return None;
        }
        let allowed = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, KEPT),
        ];
        Some((StatusCode::NO_CONTENT, allowed).into_response())
    }

    /// Lets the page read an answer.
    pub fn describe(self, answer: &mut HeaderMap) {
        let mut set = |name: HeaderName, value| answer.insert(name, value);
        match self {
            Self::None => return,
            Self::Other => {}
            Self::Page(origin) => {
                let readable = HeaderValue::from_static(ANSWER_HEADERS);
                set(header::ACCESS_CONTROL_EXPOSE_HEADERS, readable);
                let is_any = origin == ANY_ORIGIN;
                set(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                if is_any {
                    return;
                }
            }
        }
        // A cache must not give one origin's answer to another.
        answer.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use proto::pool::Pools;

    use super::*;
    use crate::{api::outcome, headers::ERROR_CODE};

    const PAGE: &str = "https://app.example";

    fn pool(origins: &[&str]) -> Pool {
        let text = "[[pool]]\nid = \"01JDE1KZ0000000000000000PY\"\nsubscription = \"s\"\n\
                    resource_group = \"g\"\nname = \"python\"\nmax_sessions = 1\ncooldown_seconds = 300\n";
        let mut pools: Pools = toml::from_str(text).unwrap();
        let mut pool = pools.pool.remove(0);
        pool.cors_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        pool
    }

    fn from(origins: &[&str]) -> HeaderMap {
        let origins = origins
            .iter()
            .map(|origin| (header::ORIGIN, origin.parse().unwrap()));
        origins.collect()
    }

    fn described(grant: Grant) -> HeaderMap {
        let mut headers = HeaderMap::new();
        grant.describe(&mut headers);
        headers
    }

    #[test]
    fn an_origin_is_granted_what_its_pool_names_exactly() {
        let named = pool(&["http://localhost:5173", PAGE]);
        let granted = |origins: &[&str]| Grant::of(Some(&named), &from(origins));
        assert_eq!(
            granted(&[PAGE]),
            Grant::Page(HeaderValue::from_static(PAGE))
        );
        for other in [
            "http://app.example",
            "https://app.example:8443",
            "https://app.example.evil.example",
            "https://evil.example/https://app.example",
            "https://APP.example",
            "null",
            "*",
            "",
        ] {
            assert_eq!(granted(&[other]), Grant::Other, "{other}");
        }
        assert_eq!(granted(&[]), Grant::Other);
        assert_eq!(granted(&[PAGE, PAGE]), Grant::Other);
        assert_eq!(Grant::of(Some(&pool(&[])), &from(&[PAGE])), Grant::None);
        assert_eq!(Grant::of(None, &from(&[PAGE])), Grant::None);
    }

    #[test]
    fn no_answer_allows_credentials() {
        for grant in [
            Grant::of(Some(&pool(&["*"])), &from(&[PAGE])),
            Grant::of(Some(&pool(&[PAGE])), &from(&[PAGE])),
            Grant::of(Some(&pool(&[PAGE])), &from(&["https://evil.example"])),
            Grant::None,
        ] {
            let headers = described(grant);
            assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
        }
    }

    #[test]
    fn caches_keep_the_answers_of_named_origins_apart() {
        let named = pool(&[PAGE]);
        let answer = described(Grant::of(Some(&named), &from(&[PAGE])));
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_ORIGIN], PAGE);
        assert_eq!(answer[header::VARY], "origin");
        for origins in [&["https://evil.example"][..], &[]] {
            let answer = described(Grant::of(Some(&named), &from(origins)));
            assert_eq!(answer[header::VARY], "origin");
            assert_eq!(answer.len(), 1);
        }
        let answer = described(Grant::of(Some(&pool(&["*"])), &from(&[])));
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!answer.contains_key(header::VARY));
        assert!(described(Grant::None).is_empty());
    }

    #[test]
    fn only_a_browser_that_asks_for_a_granted_page_gets_an_answer_without_a_token() {
        let granted = Grant::Page(HeaderValue::from_static(PAGE));
        let request = |method: Method, headers: &[HeaderName]| {
            let mut request = Request::new(Body::empty());
            *request.method_mut() = method;
            for name in headers {
                let value = HeaderValue::from_static("POST");
                request.headers_mut().insert(name.clone(), value);
            }
            request
        };
        let both = [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD];
        let asks = request(Method::OPTIONS, &both);
        let answer = granted.preflight(&asks).unwrap();
        assert_eq!(answer.status(), 204);
        assert_eq!(
            answer.headers()[header::ACCESS_CONTROL_ALLOW_METHODS],
            METHODS
        );
        assert!(Grant::Other.preflight(&asks).is_none());
        assert!(Grant::None.preflight(&asks).is_none());
        for other in [
            request(Method::POST, &both),
            request(Method::OPTIONS, &both[..1]),
            request(Method::OPTIONS, &both[1..]),
        ] {
            assert!(granted.preflight(&other).is_none());
        }
    }

    #[test]
    fn pages_read_every_header_that_an_answer_has_of_its_own() {
        let readable: Vec<&str> = ANSWER_HEADERS.split(',').map(str::trim).collect();
        let described = outcome::described();
        let own = described.iter().map(|(name, ..)| name.as_str());
        for name in own.chain([ERROR_CODE.as_str(), "operation-id", "operation-location"]) {
            assert!(readable.contains(&name), "{name}");
        }
    }
}
