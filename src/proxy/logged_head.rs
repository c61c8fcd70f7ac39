//! [`LoggedHead`]: what the access log has of a request's head, kept until the request's end. No allocation.

use http::header::{REFERER, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Method};

use crate::observe::{AccessLine, CutText, LogBuffer};

/// A longer `User-Agent` is cut. Those of AWS's tools have some 250 bytes.
const USER_AGENT_BYTES: usize = 256;
/// A longer host is cut. A DNS name has at most 253 bytes.
const HOST_BYTES: usize = 128;
/// A longer method is none of S3's, and not logged.
const METHOD_BYTES: usize = 15;

/// The parts of a head that the log has.
#[derive(Debug, Default)]
pub(super) struct LoggedHead {
    method: Option<Method>,
    user_agent: CutText<USER_AGENT_BYTES>,
    referer_host: CutText<HOST_BYTES>,
}

impl LoggedHead {
    /// What `log` needs of `head`.
    pub(super) fn of(head: &Parts, log: &LogBuffer) -> Self {
        if !log.needs_heads() {
            return Self::default();
        }
        let is_short = head.method.as_str().len() <= METHOD_BYTES;
        let mut logged = Self {
            method: is_short.then(|| head.method.clone()),
            ..Self::default()
        };
        if log.needs_user_agents() {
            logged.read_client(&head.headers);
        }
        logged
    }

    fn read_client(&mut self, headers: &HeaderMap) {
        if let Some(agent) = headers.get(USER_AGENT) {
            self.user_agent = CutText::of(agent.as_bytes());
        }
        let referer = headers.get(REFERER).and_then(|value| value.to_str().ok());
        if let Some(host) = referer.and_then(host_of) {
            self.referer_host = CutText::of(host.as_bytes());
        }
    }

    /// Adds it to a line.
    pub(super) fn add_to<'a>(&'a self, line: &mut AccessLine<'a>) {
        line.method = self.method.as_ref().map(Method::as_str);
        line.user_agent = self.user_agent.get();
        line.referer_host = self.referer_host.get();
    }
}

/// The host of a page's URL. Its path and query may hold what is nobody's business, as may a user before
/// the host.
fn host_of(referer: &str) -> Option<&str> {
    let (_, rest) = referer.split_once("://")?;
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let authority = rest.get(..end)?;
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-.:[]_".contains(c);
    let is_host = name.chars().all(is_part) && port.bytes().all(|byte| byte.is_ascii_digit());
    (is_host && !name.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_host_of_a_referer_alone() {
        for (referer, host) in [
            ("https://example.com/a?token=secret", Some("example.com")),
            (
                "https://user:secret@example.com:8443#x",
                Some("example.com:8443"),
            ),
            ("http://[2001:db8::1]/", Some("[2001:db8::1]")),
            ("https://a@b@example.com", Some("example.com")),
            ("https://example.com?secret", Some("example.com")),
            ("https://exa mple/", None),
            ("https://exa\"mple/", None),
            ("https://user:sec/ret@example.com", None),
            ("about:blank", None),
            ("/photos?secret", None),
            ("", None),
        ] {
            assert_eq!(host_of(referer), host, "{referer}");
        }
    }
}
