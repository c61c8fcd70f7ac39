//! Health probe: one request to an admin listener, as a container's health check makes it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::Full;

use crate::encoding::visible::is_hidden;
use crate::upstream::dial::Dialer;
use crate::upstream::one_shot::{OneShotClient, OneShotError};

/// Limit of a probe, from the look-up of the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Limit of the response's body.
const RESPONSE_BYTES: usize = 64 * 1024;

/// A page to request: `http`, a host and a path.
#[derive(Clone, Debug)]
pub struct HealthUrl {
    authority: String,
    target: String,
}

/// What the page says.
#[derive(Debug)]
pub struct Health {
    /// Its status is 2xx.
    pub is_healthy: bool,
    /// The status, and the text without hidden characters other than line ends.
    pub text: String,
}

impl HealthUrl {
    /// The page at `url`.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        const FORM: &str = "not of the form http://HOST:PORT/PATH";
        let url: Uri = url.parse().map_err(|_| FORM)?;
        let authority = url.authority().ok_or(FORM)?.as_str();
        if url.scheme_str() != Some("http") || authority.contains('@') {
            return Err(FORM);
        }
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self {
            authority: authority.to_owned(),
            target: target.to_owned(),
        })
    }
}

impl fmt::Display for HealthUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.target)
    }
}

/// Requests the page. An error says why there is no response.
pub async fn probe(url: &HealthUrl) -> Result<Health, String> {
    let dialer = Dialer::new(None, None, TIMEOUT, TIMEOUT);
    let client = OneShotClient::new(&url.authority, dialer, TIMEOUT, RESPONSE_BYTES);
    let request = Request::get(&url.target).body(Full::<Bytes>::default());
    let request = request.map_err(|error| error.to_string())?;
    let sent = client.send(request).await;
    let response = sent.map_err(|error: OneShotError| error.to_string())?;
    Ok(Health {
        is_healthy: response.status.is_success(),
        text: text(response.status, &response.body),
    })
}

fn text(status: StatusCode, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let is_shown = |c: &char| !is_hidden(*c) || *c == '\n';
    let body: String = body.chars().filter(is_shown).collect();
    format!("{}: {}", status.as_str(), body.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_plain_http_alone() {
        let shown = |url: &str| HealthUrl::parse(url).map(|url| url.to_string());
        for url in ["http://127.0.0.1:9001/readyz", "http://[::1]:9001/a?b"] {
            assert_eq!(shown(url).unwrap(), url);
        }
        assert_eq!(shown("http://localhost").unwrap(), "http://localhost/");
        for url in [
            "",
            "/readyz",
            "localhost:9001",
            "https://localhost/readyz",
            "http://user@localhost/",
        ] {
            assert!(shown(url).is_err(), "{url}");
        }
    }

    #[test]
    fn removes_control_characters_of_a_response() {
        let shown = text(StatusCode::OK, b"a\x1b[31m\r\nb\xff\n");
        assert_eq!(shown, "200: a[31m\nb\u{fffd}");
    }
}
