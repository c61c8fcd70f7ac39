//! Endpoints and hosts: `https://{bucket}.cos.{region}.myqcloud.com`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::problem::{Mistake, printable};

/// An endpoint as configured: `https://{bucket}.cos.{region}.myqcloud.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointTemplate {
    /// `https` (true) or `http`.
    pub tls: bool,
    /// The authority, placeholders included: `{bucket}.cos.{region}.myqcloud.com`.
    pub authority: String,
    /// The path before the key, no trailing slash, placeholders included: empty or `/{bucket}`.
    pub path: String,
}

/// Which placeholders an endpoint has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placeholders {
    /// `{bucket}` must be there, `{region}` may.
    Bucket,
    /// None: the host that is signed, as it is.
    None,
    /// `{region}` may be there.
    Region,
}

/// Length of a DNS name (RFC 1035 section 2.3.4).
const HOST_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;

/// An endpoint: scheme, authority and at most a path. What is signed is built from it by hand, so
/// anything that a URL type would have to interpret is refused here.
pub(super) fn endpoint(
    text: &str,
    placeholders: Placeholders,
) -> Result<EndpointTemplate, Mistake> {
    let (tls, rest) = match text.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => {
            return Err(refuse(
                text,
                "does not begin with https:// or http://",
                "write https://HOST",
            ));
        }
    };
    if rest.contains(['?', '#']) {
        return Err(refuse(
            text,
            "has a query or a fragment",
            "remove all from the `?` or `#` on",
        ));
    }
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at_checked(slash).unwrap_or((rest, "")),
        None => (rest, ""),
    };
    if authority.contains('@') {
        return Err(refuse(
            text,
            "has a user name",
            "remove all between the `//` and the `@`, that included",
        ));
    }
    check_placeholders(text, rest, placeholders)?;
    if !is_authority(&filled(authority)) {
        return Err(refuse(
            text,
            "has no valid host",
            "write a DNS name or an IP address, and a port if needed",
        ));
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    if !is_path(&filled(path)) {
        let fix = "write at most a plain path: letters, digits, `-`, `_`, `.` and single `/`";
        return Err(refuse(
            text,
            "has a path that cannot be signed as it is",
            fix,
        ));
    }
    Ok(EndpointTemplate {
        tls,
        authority: authority.to_ascii_lowercase(),
        path: path.to_owned(),
    })
}

/// An endpoint of which the host is all.
pub(super) fn without_path(text: &str) -> Result<EndpointTemplate, Mistake> {
    let endpoint = endpoint(text, Placeholders::None)?;
    if endpoint.path.is_empty() {
        return Ok(endpoint);
    }
    Err(refuse(
        text,
        "has a path",
        "remove all from the `/` after the host on",
    ))
}

/// A store's endpoint that is valid and likely a mistake.
pub(super) fn doubt(endpoint: &EndpointTemplate) -> Option<Mistake> {
    let EndpointTemplate {
        authority, path, ..
    } = endpoint;
    let is_cos = [".myqcloud.com", ".tencentcos.cn"]
        .iter()
        .any(|suffix| authority.ends_with(suffix));
    if is_cos && path.contains("{bucket}") {
        return Some(Mistake::new(
            "COS rejects buckets in the path that were created since 2024 (436/57456)",
            "write https://{bucket}.cos.{region}.myqcloud.com",
        ));
    }
    (!path.is_empty() && !path.contains("{bucket}")).then(|| {
        let message = format!("the path `{path}` becomes the start of every key in the store");
        Mistake::new(
            message,
            "remove the path; for a folder set `root` in the grant",
        )
    })
}

/// `host:port` to connect to.
pub(super) fn dial(text: &str) -> Result<String, Mistake> {
    let has_port = split_port(text).is_some_and(|(_, port)| port.is_some());
    if has_port && is_authority(text) {
        return Ok(text.to_owned());
    }
    Err(refuse(
        text,
        "is not host:port",
        "write a host and a port: 127.0.0.1:9100",
    ))
}

/// A suffix of virtual-hosted names, made lower case.
pub(super) fn domain(text: &str) -> Result<String, Mistake> {
    if is_dns_name(text) && text.parse::<Ipv4Addr>().is_err() {
        return Ok(text.to_ascii_lowercase());
    }
    Err(refuse(
        text,
        "is not a domain",
        "write a DNS name without port or leading dot: s3.example.com",
    ))
}

/// Whether what is sent to `authority` stays on this machine.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let Some((host, _)) = split_port(authority) else {
        return false;
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

fn check_placeholders(text: &str, rest: &str, placeholders: Placeholders) -> Result<(), Mistake> {
    let allowed: &[&str] = match placeholders {
        Placeholders::Bucket => &["{bucket}", "{region}"],
        Placeholders::None => &[],
        Placeholders::Region => &["{region}"],
    };
    let without = allowed
        .iter()
        .fold(rest.to_owned(), |rest, name| rest.replace(name, ""));
    if without.contains(['{', '}']) {
        let fix = match allowed {
            [] => "write the host out, without placeholders".to_owned(),
            names => format!("the placeholders here are {}", names.join(" and ")),
        };
        return Err(refuse(text, "has an unknown placeholder", &fix));
    }
    if placeholders == Placeholders::Bucket && !rest.contains("{bucket}") {
        let fix = "put {bucket} into the host, as COS demands: https://{bucket}.cos.{region}.myqcloud.com";
        return Err(refuse(text, "does not say where the bucket goes", fix));
    }
    Ok(())
}

/// With letters in place of the placeholders: what the grammars of host and path apply to.
fn filled(template: &str) -> String {
    template.replace("{bucket}", "b-1").replace("{region}", "r")
}

fn is_authority(text: &str) -> bool {
    let Some((host, port)) = split_port(text) else {
        return false;
    };
    let port_valid = port.is_none_or(|port| {
        !port.starts_with('+') && port.parse::<u16>().is_ok_and(|number| number > 0)
    });
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let host_valid = match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_dns_name(host),
    };
    port_valid && host_valid
}

/// Host and port; the colons of an IPv6 address are inside its brackets.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let (host, rest) = authority.split_at_checked(authority.find(']')? + 1)?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

fn is_dns_name(host: &str) -> bool {
    host.len() <= HOST_BYTES
        && host.split('.').all(|label| {
            (1..=LABEL_BYTES).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn is_path(path: &str) -> bool {
    path.is_empty()
        || path.strip_prefix('/').is_some_and(|segments| {
            segments.split('/').all(|segment| {
                !matches!(segment, "" | "." | "..")
                    && segment
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            })
        })
}

/// What may hold a password (before an `@`) or a token (in a query) is not quoted.
fn refuse(text: &str, what: &str, fix: &str) -> Mistake {
    let plain = text.split(['?', '#']).next().unwrap_or("");
    let shown = plain.rsplit('@').next().unwrap_or("");
    Mistake::new(format!("`{}` {what}", printable(shown)), fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_endpoints_of_cos_and_of_stores_with_path_style() {
        for (text, tls, authority, path) in [
            (
                "https://{bucket}.cos.{region}.myqcloud.com",
                true,
                "{bucket}.cos.{region}.myqcloud.com",
                "",
            ),
            (
                "http://127.0.0.1:9100/{bucket}/",
                false,
                "127.0.0.1:9100",
                "/{bucket}",
            ),
            (
                "https://[::1]:9000/{bucket}",
                true,
                "[::1]:9000",
                "/{bucket}",
            ),
            (
                "https://{bucket}.COS.example",
                true,
                "{bucket}.cos.example",
                "",
            ),
        ] {
            let want = EndpointTemplate {
                tls,
                authority: authority.into(),
                path: path.into(),
            };
            assert_eq!(endpoint(text, Placeholders::Bucket), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_what_could_be_signed_otherwise_than_sent() {
        for text in [
            "ftp://{bucket}.x",
            "{bucket}.x",
            "HTTPS://{bucket}.x",
            "https://user:pass@{bucket}.x",
            "https://{bucket}.x?a=1",
            "https://{bucket}.x#a",
            "https://{bucket}.x/{key}",
            "https://cos.x",
            "https://{bucket}..x",
            "https://-{bucket}.x",
            "https://{bucket}.x:0",
            "https://{bucket}.x:99999",
            "https://{bucket}.x:+80",
            "https://{bucket}.x:",
            "https://x//{bucket}",
            "https://x/../{bucket}",
            "https://x/a%20/{bucket}",
            "https://[::1/{bucket}",
            "https://[::1]x/{bucket}",
            "https:///{bucket}",
            "https://{bucket",
            "",
        ] {
            assert!(endpoint(text, Placeholders::Bucket).is_err(), "{text}");
        }
        assert!(endpoint("https://{bucket}.x", Placeholders::Region).is_err());
        assert!(endpoint("https://sts.{region}.x", Placeholders::None).is_err());
    }

    #[test]
    fn a_password_or_a_token_is_not_quoted() {
        for text in [
            "https://user:CANARY@{bucket}.x",
            "ftp://user:CANARY@{bucket}.x",
            "user:CANARY@{bucket}.x",
            "https://user:CANARY@{bucket}.x?y",
            "https://{bucket}.x?token=CANARY",
            "https://{bucket}.x?token=a@CANARY",
            "https://user:CANARY/{b@x",
        ] {
            let Err(mistake) = endpoint(text, Placeholders::Bucket) else {
                panic!("{text}")
            };
            assert!(!format!("{mistake:?}").contains("CANARY"), "{mistake:?}");
            let Err(mistake) = dial(text) else {
                panic!("{text}")
            };
            assert!(!format!("{mistake:?}").contains("CANARY"), "{mistake:?}");
        }
    }

    #[test]
    fn a_dialled_address_has_a_port() {
        for text in ["127.0.0.1:1", "[::1]:9", "cos.internal:443"] {
            assert!(dial(text).is_ok(), "{text}");
        }
        for text in ["127.0.0.1", "::1:9", "http://x:1", "x:0", ":1", ""] {
            assert!(dial(text).is_err(), "{text}");
        }
    }

    #[test]
    fn knows_loopback_hosts() {
        for text in [
            "127.0.0.1:9",
            "[::1]",
            "localhost:1",
            "{bucket}.cos.localhost:1",
        ] {
            assert!(is_loopback(text), "{text}");
        }
        for text in ["10.0.0.1", "cos.example", "localhost.example"] {
            assert!(!is_loopback(text), "{text}");
        }
    }
}
