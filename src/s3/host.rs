//! The `Host` header, parsed as a name or an address. Callers decide which hosts they accept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderValue, Request, Version};

/// What a `Host` names, its port left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostName {
    /// An address, which nobody looks up.
    Address(IpAddr),
    /// A name, lower case, which is looked up in a DNS that may be a stranger's.
    Name(String),
}

impl HostName {
    /// Reads `host`, with a port or without (RFC 9110 section 7.2).
    pub(crate) fn parse(host: &str) -> Self {
        let name = without_port(host).to_ascii_lowercase();
        let v4 = || name.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
        let v6 = || {
            let name = name.strip_prefix('[')?.strip_suffix(']')?;
            name.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        };
        match v4().or_else(v6) {
            Some(address) => Self::Address(address),
            None => Self::Name(name),
        }
    }
}

/// Why the `Host` of a request is an error: HTTP/1.1 requires one that is valid (RFC 9112 section 3.2).
pub(crate) fn host_fault<B>(request: &Request<B>) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Some("the request has more than one Host"),
        (Some(host), None) if host.to_str().is_ok_and(is_valid) => None,
        (Some(_), None) => Some("the Host is not a name or an address, with or without a port"),
        (None, _) if request.version() == Version::HTTP_11 => Some("HTTP/1.1 requires a Host"),
        (None, _) => None,
    }
}

/// `uri-host [":" port]` (RFC 3986 section 3.2.2), with a port that exists.
fn is_valid(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let parts = rest.split_once(']');
        return parts
            .is_some_and(|(address, port)| address.parse::<Ipv6Addr>().is_ok() && fits_port(port));
    }
    let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    !name.is_empty() && name.bytes().all(fits) && fits_port(port)
}

/// Whether what follows a name is nothing, or a colon and a port.
pub(super) fn fits_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
        None => text.is_empty(),
    }
}

/// Whether a request may have come from a page in somebody's browser: a page can point a name of its own
/// at this machine (DNS rebinding), and the browser then sends that name as `Host`. An address is not
/// looked up, and who sends no `Host` is no browser. `names` are lower case, besides those of localhost.
///
/// A target with a host of its own has that in place of `Host` (RFC 9112 section 3.2.2).
pub(crate) fn is_misdirected<B>(request: &Request<B>, names: &[String]) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return true,
        (host, _) => host.map(HeaderValue::to_str),
    };
    let target = request.uri().authority();
    let host = match (target.map(Authority::as_str), host) {
        (Some(host), _) | (None, Some(Ok(host))) => host,
        (None, Some(Err(_))) => return true,
        (None, None) => return false,
    };
    match HostName::parse(host) {
        HostName::Address(_) => false,
        HostName::Name(name) => !is_localhost(&name) && !names.contains(&name),
    }
}

/// RFC 6761 section 6.3: names under `localhost` are always loopback.
pub(crate) fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') =>
        {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_absolute_target_decides() {
        for (target, host, is_misdirected) in [
            ("/x", Some("localhost"), false),
            ("/x", Some("evil.example"), true),
            ("/x", None, false),
            ("http://evil.example/x", Some("localhost"), true),
            ("https://evil.example:9001", Some("127.0.0.1"), true),
            ("http://evil.example/x", None, true),
            ("http://evil.example@localhost/x", Some("localhost"), true),
            ("http://localhost@evil.example/x", Some("localhost"), true),
            ("http://localhost:9001/x", Some("evil.example"), false),
            ("http://127.0.0.1/x", Some("localhost"), false),
            ("evil.example:443", Some("localhost"), true),
        ] {
            let mut request = Request::builder().uri(target);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            let request = request.body(()).unwrap();
            assert_eq!(
                super::is_misdirected(&request, &[]),
                is_misdirected,
                "{target} {host:?}"
            );
        }
        let twice = Request::builder()
            .uri("http://localhost/x")
            .header(HOST, "localhost")
            .header(HOST, "localhost");
        assert!(is_misdirected(&twice.body(()).unwrap(), &[]));
    }

    #[test]
    fn host_must_be_one_and_valid() {
        let fault = |version, hosts: &[&str]| {
            let mut request = Request::builder().version(version);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            host_fault(&request.body(()).unwrap())
        };
        for host in [
            "localhost",
            "127.0.0.1:9001",
            "[::1]",
            "[::1]:65535",
            "cosgate.svc.cluster.local.:9001",
            "a_b",
        ] {
            assert_eq!(fault(Version::HTTP_11, &[host]), None, "{host}");
        }
        for host in [
            "",
            ":9001",
            "a:",
            "a:65536",
            "127.0.0.1:99999999",
            "a:80:80",
            "a:+80",
            "[::1",
            "[::1]x",
            "[x]",
            "u@a",
            "a/b",
            "a b",
        ] {
            assert!(fault(Version::HTTP_11, &[host]).is_some(), "{host}");
        }
        assert!(fault(Version::HTTP_11, &["a", "a"]).is_some());
        assert!(fault(Version::HTTP_11, &[]).is_some());
        assert_eq!(fault(Version::HTTP_10, &[]), None);
    }

    #[test]
    fn hosts_are_addresses_or_names() {
        for (host, address) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1:9001", "127.0.0.1"),
            ("[::1]", "::1"),
            ("[::1]:9001", "::1"),
        ] {
            let address = HostName::Address(address.parse().unwrap());
            assert_eq!(HostName::parse(host), address);
        }
        for (host, name) in [
            ("LocalHost:9001", "localhost"),
            ("evil.example", "evil.example"),
            ("127.0.0.1.evil.example:80", "127.0.0.1.evil.example"),
            ("", ""),
            ("::1", "::1"),
        ] {
            assert_eq!(HostName::parse(host), HostName::Name(name.to_owned()));
        }
    }
}
