//! A `Host` as a name or an address: what may stand behind it is for others to judge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use http::header::HOST;

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

/// Whether a request may have come from a page in somebody's browser: a page can point a name of its own
/// at this machine (DNS rebinding), and the browser then sends that name as `Host`. An address is not
/// looked up, and who sends no `Host` is no browser. `names` are lower case, besides those of localhost.
pub(crate) fn is_misdirected(headers: &HeaderMap, names: &[String]) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => return false,
        (Some(host), None) => host.to_str(),
        (Some(_), Some(_)) => return true,
    };
    let Ok(host) = host else { return true };
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
