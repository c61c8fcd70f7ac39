//! The admin pages as text: liveness, readiness, metrics and reloads.

use std::fmt::Write as _;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::TextFormat;
use crate::tenant::KeyState;

/// Pages that programs fetch to watch cosgate. What they say is as short as it can be.
pub(crate) const OF_SCRAPERS: [&str; 3] = ["/livez", "/metrics", "/readyz"];

/// A part of cosgate that requests need.
#[derive(Clone, Debug, Serialize)]
pub struct PartState {
    /// Its name, such as `keys` or `identity corp`.
    pub part: String,
    /// It does what requests need of it.
    pub holds: bool,
    /// cosgate is not ready without it.
    pub required: bool,
    /// How it stands, in a sentence's part.
    pub detail: String,
}

/// Whether new requests should be sent here, and why.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// cosgate is ending: requests in flight are finished, new ones should go elsewhere.
    pub is_draining: bool,
    /// What requests need.
    pub parts: Vec<PartState>,
}

impl Readiness {
    fn is_ready(&self) -> bool {
        !self.is_draining && self.parts.iter().all(|part| part.holds || !part.required)
    }

    /// A word, and a line for each part that does not hold.
    fn text(&self) -> String {
        let mut text = match (self.is_draining, self.is_ready()) {
            (true, _) => return "draining\n".to_owned(),
            (_, true) => "ok\n".to_owned(),
            (_, false) => "not ready\n".to_owned(),
        };
        for PartState { part, detail, .. } in self.parts.iter().filter(|part| !part.holds) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{part}: {detail}");
        }
        text
    }

    fn json(&self) -> String {
        let document = json!({
            "ready": self.is_ready(),
            "draining": self.is_draining,
            "parts": self.parts,
        });
        format!("{document}\n")
    }
}

/// The identity provider whose keys are in `state`. Its outage must not affect all other callers.
pub fn identity_part(state: &KeyState) -> PartState {
    let detail = match (state.usable, state.age) {
        (true, None) => "keys are in the configuration".to_owned(),
        (true, Some(age)) => format!("keys read {age} s ago"),
        (false, None) => "keys not read since the start, tokens get 503".to_owned(),
        (false, Some(age)) => format!("keys not read for {age} s, tokens get 503"),
    };
    PartState {
        part: format!("identity {}", state.name),
        holds: state.usable,
        required: false,
        detail,
    }
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadResponse {
    /// The configuration is used now.
    pub is_taken: bool,
    /// What changed, or every problem.
    pub text: String,
}

/// The response to a request for a reload; `None`: there was none.
pub(crate) fn reloaded(response: Option<ReloadResponse>) -> Response<String> {
    match response {
        Some(response) if response.is_taken => page(StatusCode::OK, response.text),
        Some(response) => page(StatusCode::UNPROCESSABLE_ENTITY, response.text),
        None => page(
            StatusCode::SERVICE_UNAVAILABLE,
            "not reloaded: cosgate is shutting down, has no configuration file, or too many reloads are pending\n",
        ),
    }
}

/// The response to a request for `/readyz`; with `?verbose` all parts are in it, as JSON.
pub fn readyz(method: &Method, is_verbose: bool, readiness: &Readiness) -> Response<String> {
    if let Some(refusal) = read_only(method) {
        return refusal;
    }
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if !is_verbose {
        return page(status, readiness.text());
    }
    json_page(status, readiness.json())
}

/// The response to a request for another admin page; `metrics` makes the text of the metrics. The body of a response to HEAD is the server's to leave out.
pub fn other_page(
    method: &Method,
    path: &str,
    metrics: impl FnOnce() -> (String, TextFormat),
) -> Response<String> {
    if let Some(refusal) = read_only(method) {
        return refusal;
    }
    match path {
        "/livez" => page(StatusCode::OK, "ok\n"),
        "/metrics" => {
            let (text, format) = metrics();
            let mut response = page(StatusCode::OK, text);
            let content_type = HeaderValue::from_static(format.content_type());
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            response
        }
        _ => error(StatusCode::NOT_FOUND, NOT_FOUND),
    }
}

/// What there is, for who requests something else.
const NOT_FOUND: &str = "not found: see /, /tenants, /keys, /config, /livez, /readyz, /metrics, POST /reload and POST /keys/refresh";

/// The refusal of a method that these pages do not have.
pub(crate) fn read_only(method: &Method) -> Option<Response<String>> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
    let allow = HeaderValue::from_static("GET, HEAD");
    response.headers_mut().insert(ALLOW, allow);
    Some(response)
}

/// Why there is no page: as JSON, for each path.
pub(crate) fn error(status: StatusCode, why: &str) -> Response<String> {
    json_page(status, format!("{:#}\n", json!({ "error": why })))
}

/// A page of JSON that nobody keeps.
pub(crate) fn json_page(status: StatusCode, body: String) -> Response<String> {
    let mut response = page(status, body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// A page of plain text that nobody keeps.
pub(crate) fn page(status: StatusCode, body: impl Into<String>) -> Response<String> {
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

    #[test]
    fn pages_are_read_only_and_have_one_name() {
        let metrics = || unreachable!("no other page has metrics");
        let unknown = error(StatusCode::NOT_FOUND, NOT_FOUND).into_body();
        let post = error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD").into_body();
        for (method, path, status, body) in [
            (Method::GET, "/livez", 200, "ok\n"),
            (Method::HEAD, "/livez", 200, "ok\n"),
            (Method::POST, "/livez", 405, post.as_str()),
            (Method::GET, "/livez/", 404, unknown.as_str()),
        ] {
            let response = other_page(&method, path, metrics);
            assert_eq!(
                (response.status().as_u16(), response.body().as_str()),
                (status, body),
                "{method} {path}"
            );
        }
        assert_eq!(
            other_page(&Method::PUT, "/x", metrics).headers()[ALLOW],
            "GET, HEAD"
        );
        let readiness = readiness(false, &[]);
        let put = readyz(&Method::PUT, false, &readiness);
        assert_eq!(put.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    fn readiness(is_draining: bool, parts: &[(&str, bool, bool)]) -> Readiness {
        let part = |(name, holds, required): &(&str, bool, bool)| PartState {
            part: (*name).to_owned(),
            holds: *holds,
            required: *required,
            detail: format!("how {name} is"),
        };
        Readiness {
            is_draining,
            parts: parts.iter().map(part).collect(),
        }
    }

    #[test]
    fn is_ready_when_every_required_part_holds_and_no_drain_has_begun() {
        let good = ("keys", true, true);
        let optional = ("cos", false, false);
        let missing = ("sts", false, true);
        for (is_draining, parts, status, text) in [
            (false, vec![good], 200, "ok\n"),
            (false, vec![good, optional], 200, "ok\ncos: how cos is\n"),
            (
                false,
                vec![missing, good, optional],
                503,
                "not ready\nsts: how sts is\ncos: how cos is\n",
            ),
            (true, vec![good], 503, "draining\n"),
        ] {
            let readiness = readiness(is_draining, &parts);
            let short = readyz(&Method::GET, false, &readiness);
            assert_eq!(
                (short.status().as_u16(), short.body().as_str()),
                (status, text)
            );
            let long = readyz(&Method::GET, true, &readiness);
            assert_eq!(long.status().as_u16(), status);
            assert_eq!(long.headers()[CONTENT_TYPE], "application/json");
            let json: serde_json::Value = serde_json::from_str(long.body()).unwrap();
            assert_eq!(json["ready"], status == 200);
            assert_eq!(json["draining"], is_draining);
            let shown = json["parts"].as_array().unwrap();
            assert_eq!(shown.len(), parts.len());
            for (shown, (name, holds, required)) in shown.iter().zip(parts) {
                assert_eq!(
                    (&shown["part"], &shown["holds"], &shown["required"]),
                    (&json!(name), &json!(holds), &json!(required))
                );
            }
        }
    }

    #[test]
    fn names_whose_tokens_cannot_be_checked() {
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
        let readiness = Readiness {
            is_draining: false,
            parts: keys.iter().map(identity_part).collect(),
        };
        let ready = readyz(&Method::GET, false, &readiness);
        assert_eq!(ready.status(), StatusCode::OK);
        let expected = "ok\nidentity down: keys not read since the start, tokens get 503\n\
                        identity old: keys not read for 90000 s, tokens get 503\n";
        assert_eq!(ready.body(), expected);
    }

    #[test]
    fn metrics_have_the_type_of_their_format() {
        for (format, content_type) in [
            (
                TextFormat::Prometheus,
                "text/plain; version=0.0.4; charset=utf-8",
            ),
            (
                TextFormat::OpenMetrics,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
        ] {
            let metrics = || ("cosgate_connections 0\n".to_owned(), format);
            let response = other_page(&Method::GET, "/metrics", metrics);
            assert_eq!(response.body(), "cosgate_connections 0\n");
            assert_eq!(response.headers()[CONTENT_TYPE], content_type);
        }
    }
}
