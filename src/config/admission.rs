//! The settings that admit callers without an access key, and those that restrict from where a tenant may call.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::file::{Located, Origin};
use super::model::{Admission, CertificateName, Server};
use super::problem::{Mistake, printable};
use super::section::Section;
use super::unix;

/// X.520's upper bound of a common name.
const COMMON_NAME_BYTES: usize = 64;
const NAME_BYTES: usize = 1024;

/// A tenant's [`Admission`], and where it is written.
pub(super) struct ReadAdmission {
    pub(super) admission: Admission,
    pub(super) certificate_origins: Vec<Origin>,
    pub(super) user_origins: Vec<Origin>,
}

pub(super) fn admission(section: &Section<'_>) -> ReadAdmission {
    let mut client_certs = Vec::new();
    let mut origins = Vec::new();
    for text in section.texts("client_certs") {
        if let Some(name) = section.check("client_certs", &text.origin, certificate(text.value)) {
            client_certs.push(name);
            origins.push(text.origin);
        }
    }
    let require_client_cert = section.flag("require_client_cert");
    if require_client_cert.value && client_certs.is_empty() {
        let message = "`require_client_cert` needs `client_certs`: the tenant has no certificate";
        section.error(
            &require_client_cert.origin,
            message,
            "add client_certs = [\"san:dns:NAME\"]",
        );
    }
    let (unix_users, user_origins) = unix::users(section, "unix_users");
    ReadAdmission {
        admission: Admission {
            client_certs,
            require_client_cert: require_client_cert.value,
            unix_users,
            allowed_ips: allowed_ips(section),
        },
        certificate_origins: origins,
        user_origins,
    }
}

/// `allowed_ips` of a tenant or a template.
pub(super) fn allowed_ips(section: &Section<'_>) -> Vec<IpNet> {
    let allowed_ips = networks(section, "allowed_ips");
    if section.is_empty_array("allowed_ips") {
        let message = "`allowed_ips` is empty: the tenant could not call from any address";
        let fix = "write networks, such as [\"10.0.0.0/8\"], or remove it";
        section.error(&section.origin(), message, fix);
    }
    allowed_ips
}

/// `trusted_proxies`: networks, and users who come by the Unix socket.
pub(super) fn trusted_proxies(section: &Section<'_>) -> (Vec<IpNet>, Vec<u32>) {
    const KEY: &str = "trusted_proxies";
    let (mut networks, mut users) = (Vec::new(), Vec::new());
    for text in section.texts(KEY) {
        if let Some(name) = text.value.strip_prefix("unix:") {
            let user = unix::user(section.file(), name);
            users.extend(section.check(KEY, &text.origin, user));
        } else {
            networks.extend(section.check(KEY, &text.origin, network(text.value)));
        }
    }
    (networks, users)
}

/// The networks of `key`.
fn networks(section: &Section<'_>, key: &'static str) -> Vec<IpNet> {
    let texts = section.texts(key);
    let read = |text: Located<&str>| section.check(key, &text.origin, network(text.value));
    texts.into_iter().filter_map(read).collect()
}

/// Names that cannot be shown, or that two tenants share.
pub(super) fn check_certificates<'r>(
    root: &Section<'_>,
    names: impl Iterator<Item = (&'r CertificateName, &'r Origin, &'r str)>,
    server: Option<&Server>,
) {
    let shown = server.is_none_or(|server| {
        let tls = server.tls.as_ref();
        tls.is_some_and(|tls| tls.client_ca.is_some())
    });
    let mut seen: HashMap<&CertificateName, &str> = HashMap::new();
    for (name, origin, tenant) in names {
        if !shown {
            let message = "`client_certs` needs `client_ca`: without it cosgate requests no client certificate";
            let fix = "set client_ca in [server.tls]";
            root.error(origin, message, fix);
        }
        if let Some(first) = seen.insert(name, tenant) {
            let message = format!(
                "the tenant `{1}` has the certificate `{0}` already",
                printable(&name.to_string()),
                printable(first)
            );
            let fix = "remove it from one of the two";
            root.error(origin, message, fix);
        }
    }
}

/// `10.0.0.0/8`, `2001:db8::/32`, or one address.
fn network(text: &str) -> Result<IpNet, Mistake> {
    let refused =
        |fix: String| Mistake::new(format!("`{}` is not a network", printable(text)), fix);
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| {
            refused("write it as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1".to_owned())
        })?,
    };
    if network.trunc() != network {
        return Err(refused(format!("write {}", network.trunc())));
    }
    // Addresses are compared as what they are: such a network would never match.
    if let IpNet::V6(v6) = network
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err(refused(
            "write the IPv4 network itself, such as 10.0.0.0/8".to_owned(),
        ));
    }
    Ok(network)
}

fn certificate(text: &str) -> Result<CertificateName, Mistake> {
    let fits = |value: &str, max: usize| {
        (1..=max).contains(&value.len()) && !value.chars().any(char::is_control)
    };
    let name = if let Some(name) = text.strip_prefix("san:dns:") {
        let label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        (fits(name, NAME_BYTES) && name.bytes().all(label))
            .then(|| CertificateName::Dns(name.to_ascii_lowercase()))
    } else if let Some(uri) = text.strip_prefix("san:uri:") {
        (fits(uri, NAME_BYTES) && uri.is_ascii() && uri.contains(':'))
            .then(|| CertificateName::Uri(uri.to_owned()))
    } else if let Some(name) = text.strip_prefix("subject:CN=") {
        fits(name, COMMON_NAME_BYTES).then(|| CertificateName::CommonName(name.to_owned()))
    } else {
        None
    };
    name.ok_or_else(|| {
        Mistake::new(
            format!("`{}` is not the name of a certificate", printable(text)),
            "write \"san:dns:NAME\" (no wildcard), \"san:uri:URI\" or \"subject:CN=NAME\"",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_written_as_they_are() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), expected);
        }
        for text in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0/8",
            "::ffff:10.0.0.0/104",
            "a/8",
            "10.0.0.0/8 ",
        ] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn certificates_are_named_in_three_ways() {
        for (text, name) in [
            ("san:dns:Acme.Example", "san:dns:acme.example"),
            ("san:uri:spiffe://a/b", "san:uri:spiffe://a/b"),
            ("subject:CN=Acme, Inc.", "subject:CN=Acme, Inc."),
        ] {
            assert_eq!(certificate(text).unwrap().to_string(), name);
        }
        for text in [
            "acme",
            "san:dns:",
            "san:dns:*.a",
            "san:uri:x",
            "subject:CN=",
            "subject:O=x",
            "cn:a",
        ] {
            assert!(certificate(text).is_err(), "{text}");
        }
    }
}
