//! The admin pages: is it alive, is it ready, what did it count.

use std::fmt::Write as _;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::Metrics;
use crate::config::Server;
use crate::s3::host;
use crate::tenant::KeyState;

/// Whether new requests should be sent here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It is ending: requests under way are finished, new ones should go elsewhere.
    Draining,
    /// Yes.
    Ready,
    /// It does not accept connections yet.
    Starting,
}

/// Whether a request comes under a name that is not the admin listener's.
///
/// On an address that is not loopback, scrapers that are there already use names that nobody has
/// listed: names are checked there once `admin_hosts` says which are meant.
pub(crate) fn is_misdirected(headers: &HeaderMap, server: &Server) -> bool {
    let is_loopback = server
        .admin
        .is_none_or(|admin| admin.ip().to_canonical().is_loopback());
    match &server.admin_hosts {
        Some(names) => host::is_misdirected(headers, names),
        None => is_loopback && host::is_misdirected(headers, &[]),
    }
}

/// The response to a request under a name that is not the admin listener's (RFC 9110 section 15.5.20).
pub fn misdirected() -> Response<String> {
    page(
        StatusCode::MISDIRECTED_REQUEST,
        "this Host is not a name of the admin listener: use its address or localhost, or add the name to [server] admin_hosts\n",
    )
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadResponse {
    /// The configuration is used now.
    pub is_taken: bool,
    /// What changed, or every problem.
    pub text: String,
}

/// The refusal of a request for a reload that is no POST, or that a web page has a browser send.
pub(crate) fn reload_refusal(method: &Method, headers: &HeaderMap) -> Option<Response<String>> {
    if *method != Method::POST {
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
        let allow = HeaderValue::from_static("POST");
        response.headers_mut().insert(ALLOW, allow);
        return Some(response);
    }
    if headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site") {
        let text = "a web page cannot request a reload: use curl\n";
        return Some(page(StatusCode::FORBIDDEN, text));
    }
    None
}

/// The response to a request for a reload; `None`: there was none.
pub(crate) fn reloaded(answer: Option<ReloadResponse>) -> Response<String> {
    match answer {
        Some(answer) if answer.is_taken => page(StatusCode::OK, answer.text),
        Some(answer) => page(StatusCode::UNPROCESSABLE_ENTITY, answer.text),
        None => page(
            StatusCode::SERVICE_UNAVAILABLE,
            "no reload: cosgate ends, has no configuration file, or too many requests wait for one\n",
        ),
    }
}

/// Answers a request for an admin page. The body of a response to HEAD is the server's to leave out.
pub fn answer(
    method: &Method,
    path: &str,
    readiness: Readiness,
    keys: &[KeyState],
    metrics: &Metrics,
) -> Response<String> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match (path, readiness) {
        ("/livez", _) => page(StatusCode::OK, "ok\n"),
        ("/readyz", Readiness::Ready) => page(StatusCode::OK, ready(keys)),
        ("/readyz", Readiness::Draining) => page(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        ("/readyz", Readiness::Starting) => page(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        ("/metrics", _) => {
            let mut response = page(StatusCode::OK, metrics.render(keys));
            let version = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, version);
            response
        }
        _ => page(
            StatusCode::NOT_FOUND,
            "not found: see /livez, /readyz, /metrics and POST /reload\n",
        ),
    }
}

/// One identity provider's outage must not take cosgate away from all other callers: it stays ready,
/// and says whose tokens it cannot check.
fn ready(keys: &[KeyState]) -> String {
    let mut text = "ok\n".to_owned();
    for state in keys.iter().filter(|state| !state.usable) {
        let since = match state.age {
            None => "since the start".to_owned(),
            Some(age) => format!("for {age} s"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "identity {}: keys not read {since}, tokens get 503",
            state.name
        );
    }
    text
}

fn page(status: StatusCode, body: impl Into<String>) -> Response<String> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};
    use crate::timestamp::Timestamp;

    #[test]
    fn says_whether_it_lives_and_is_ready() {
        let metrics = Metrics::new(1);
        for (method, path, readiness, status, body) in [
            (Method::GET, "/livez", Readiness::Draining, 200, "ok\n"),
            (Method::HEAD, "/livez", Readiness::Ready, 200, "ok\n"),
            (Method::GET, "/readyz", Readiness::Ready, 200, "ok\n"),
            (
                Method::GET,
                "/readyz",
                Readiness::Draining,
                503,
                "draining\n",
            ),
            (
                Method::GET,
                "/readyz",
                Readiness::Starting,
                503,
                "starting\n",
            ),
            (
                Method::POST,
                "/livez",
                Readiness::Ready,
                405,
                "only GET and HEAD\n",
            ),
            (
                Method::GET,
                "/livez/",
                Readiness::Ready,
                404,
                "not found: see /livez, /readyz, /metrics and POST /reload\n",
            ),
        ] {
            let response = answer(&method, path, readiness, &[], &metrics);
            assert_eq!(
                (response.status().as_u16(), response.body().as_str()),
                (status, body),
                "{method} {path}"
            );
        }
        assert_eq!(
            answer(&Method::PUT, "/x", Readiness::Ready, &[], &metrics).headers()[ALLOW],
            "GET, HEAD"
        );
    }

    #[test]
    fn a_name_is_listed_or_the_listener_is_not_loopback() {
        let server = |keys: &str| {
            let sources = Sources {
                env: &|_| None,
                file: &|_| Err(std::io::ErrorKind::NotFound.into()),
                env_names: &Vec::new,
                cores: 1,
                folder: &|_| Ok(Vec::new()),
                now: Timestamp::default(),
            };
            let text = format!(
                "[server]\n{keys}\n[issuers.a]\nkind = \"federation\"\nsecret_id = \"a\"\nsecret_key = \"b\"\n\
                 [tenants.a]\nissuer = \"a\"\nanonymous = true\n[[tenants.a.grants]]\nname = \"photos\"\n\
                 bucket = \"b-1250000000\"\nregion = \"ap-guangzhou\"\nprefixes = [\"a/*\"]\nactions = [\"read\"]\n"
            );
            Config::parse("", &text, &sources).unwrap().0.server
        };
        let shown = |keys: &str, host: &'static str| {
            let headers =
                HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static(host))]);
            !is_misdirected(&headers, &server(keys))
        };
        let listed = "admin_hosts = [\"Metrics.example\", \"cosgate\"]";
        let remote = "admin = \"0.0.0.0:9001\"";
        for (keys, host, expected) in [
            ("", "metrics.example", false),
            (listed, "metrics.example:9001", true),
            (listed, "COSGATE", true),
            (listed, "a.metrics.example", false),
            (listed, "localhost", true),
            (remote, "metrics.example", true),
            (&format!("{remote}\n{listed}"), "metrics.example", true),
            (&format!("{remote}\n{listed}"), "evil.example", false),
            (&format!("{remote}\n{listed}"), "10.1.2.3:9001", true),
            (
                &format!("{remote}\nadmin_hosts = []"),
                "evil.example",
                false,
            ),
            ("admin = \"[::1]:9001\"", "evil.example", false),
        ] {
            assert_eq!(shown(keys, host), expected, "{keys} {host}");
        }
        assert!(
            !is_misdirected(&HeaderMap::new(), &server("")),
            "no browser"
        );
    }

    #[test]
    fn says_whose_tokens_cannot_be_checked() {
        let state = |name: &str, age, usable| KeyState {
            name: name.to_owned(),
            age,
            usable,
        };
        let keys = [
            state("corp", Some(3), true),
            state("down", None, false),
            state("old", Some(90_000), false),
        ];
        let metrics = Metrics::new(1);
        let page = |path, readiness| answer(&Method::GET, path, readiness, &keys, &metrics);
        let ready = page("/readyz", Readiness::Ready);
        assert_eq!(ready.status(), StatusCode::OK);
        let expected = "ok\nidentity down: keys not read since the start, tokens get 503\n\
                        identity old: keys not read for 90000 s, tokens get 503\n";
        assert_eq!(ready.body(), expected);
        assert_eq!(page("/readyz", Readiness::Draining).body(), "draining\n");
        assert_eq!(page("/livez", Readiness::Ready).body(), "ok\n");
        let metrics = page("/metrics", Readiness::Ready);
        for line in [
            "cosgate_identity_keys_usable{identity=\"corp\"} 1",
            "cosgate_identity_keys_usable{identity=\"down\"} 0",
            "cosgate_identity_keys_age_seconds{identity=\"corp\"} 3",
            "cosgate_identity_keys_age_seconds{identity=\"old\"} 90000",
        ] {
            assert!(metrics.body().lines().any(|said| said == line), "{line}");
        }
        assert!(!metrics.body().contains("age_seconds{identity=\"down\"}"));
    }

    #[test]
    fn shows_the_counters() {
        let metrics = Metrics::new(1);
        let response = answer(&Method::GET, "/metrics", Readiness::Ready, &[], &metrics);
        assert!(response.body().contains("\ncosgate_connections 0\n"));
        assert_eq!(
            response.headers()[CONTENT_TYPE],
            "text/plain; version=0.0.4; charset=utf-8"
        );
    }
}
