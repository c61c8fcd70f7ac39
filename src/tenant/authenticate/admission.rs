//! A tenant's requirements of its callers besides their proof: a certificate, an address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::{Authenticated, Connection, Peer};
use crate::config::{Admission, CertificateName, Config};
use crate::error::{Code, S3Error};
use crate::timestamp::Timestamp;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What all tenants require.
#[derive(Debug)]
pub(super) struct Admissions {
    /// By the tenant's index; a template's tenants require no certificate.
    rules: Vec<Admission>,
    /// Each with its tenant's index.
    certificates: Vec<(Arc<str>, usize)>,
    by_name: HashMap<CertificateName, usize>,
    /// The tenant's index by the number of a user.
    users: HashMap<u32, usize>,
    trusted_proxies: Vec<IpNet>,
    trusted_users: Vec<u32>,
}

/// A connection's certificate, and the tenant that it names.
#[derive(Clone, Copy, Debug)]
pub struct Certified {
    /// `None`: it names no tenant, or more than one.
    certificate: Option<usize>,
    not_after: Timestamp,
}

impl Certified {
    /// Whether it names a tenant.
    pub fn is_known(self) -> bool {
        self.certificate.is_some()
    }

    /// The refusal of a caller who shows it and nothing else, where it does not count.
    pub(super) fn unknown(self, now: Timestamp) -> S3Error {
        let why = if self.is_known() && now > self.not_after {
            "the client certificate has expired: connect with a new one, or sign the request with a \
             local access key"
        } else {
            "the client certificate belongs to no tenant: connect with one that does, or sign the \
             request with a local access key"
        };
        S3Error::new(Code::AccessDenied, format!("Access Denied: {why}"))
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The client's address: the connection's, or what trusted proxies say. A Unix socket has none.
    pub address: Option<IpAddr>,
    /// A proxy stands between, known or not.
    pub is_forwarded: bool,
}

impl Admissions {
    pub(super) fn new(config: &Config) -> Self {
        let mut certificates = Vec::new();
        let mut by_name = HashMap::new();
        let mut users = HashMap::new();
        for (index, tenant) in config.tenants.iter().enumerate() {
            users.extend(tenant.admission.unix_users.iter().map(|uid| (*uid, index)));
            for name in &tenant.admission.client_certs {
                by_name.insert(name.clone(), certificates.len());
                certificates.push((name.to_string().into(), index));
            }
        }
        let tenants = config.tenants.iter();
        let tenants = tenants.map(|tenant| tenant.admission.clone());
        let templates = config.templates.iter().map(|template| Admission {
            allowed_ips: template.allowed_ips.clone(),
            ..Admission::default()
        });
        Self {
            rules: tenants.chain(templates).collect(),
            certificates,
            by_name,
            users,
            trusted_users: config.server.trusted_users.clone(),
            trusted_proxies: config.server.trusted_proxies.clone(),
        }
    }

    /// The tenant of a certificate with these names; none too where they are two tenants'.
    pub(super) fn certified(&self, names: &[CertificateName], not_after: Timestamp) -> Certified {
        let tenant_of = |index: usize| self.certificates.get(index).map(|(_, tenant)| *tenant);
        let mut known = names
            .iter()
            .filter_map(|name| self.by_name.get(name))
            .copied();
        let first = known.next();
        let certificate = first.filter(|first| {
            let tenant = tenant_of(*first);
            known.all(|other| tenant_of(other) == tenant)
        });
        Certified {
            certificate,
            not_after,
        }
    }

    /// The name and the tenant of the connection's certificate, while it is good.
    pub(super) fn named(
        &self,
        connection: Connection,
        now: Timestamp,
    ) -> Option<(&Arc<str>, usize)> {
        let certified = connection.certificate?;
        let (name, tenant) = self.certificates.get(certified.certificate?)?;
        (now <= certified.not_after).then_some((name, *tenant))
    }

    /// The tenant of the user at the other end of a Unix socket, and the user.
    pub(super) fn user(&self, connection: Connection) -> Option<(u32, usize)> {
        let uid = connection.user?.uid;
        Some((uid, *self.users.get(&uid)?))
    }

    /// Who stands behind `peer`: the last address of `X-Forwarded-For` that is no trusted proxy's,
    /// read from the end, for all before it may be made up. Nobody else's word is taken.
    pub(super) fn caller(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, S3Error> {
        let is_trusted = self.is_proxy(peer);
        let peer = match peer {
            Peer::Tcp(peer) => Some(peer.ip().to_canonical()),
            Peer::Unix(_) | Peer::Unnamed => None,
        };
        let has_header = headers.contains_key(FORWARDED_FOR) || headers.contains_key(FORWARDED);
        if !is_trusted {
            return Ok(Caller {
                address: peer,
                is_forwarded: has_header,
            });
        }
        let mut address = peer;
        let lines = headers.get_all(FORWARDED_FOR).iter();
        'hops: for line in lines.rev() {
            let line = line.to_str().map_err(|_| malformed())?;
            for hop in line.rsplit(',') {
                let hop = hop_address(hop).ok_or_else(malformed)?;
                address = Some(hop);
                if !self.trusts(hop) {
                    break 'hops;
                }
            }
        }
        Ok(Caller {
            address,
            is_forwarded: true,
        })
    }

    /// Refuses a caller whose proof is good, but who comes without its certificate or from elsewhere.
    /// It gets no reason: it may be a thief of the key, and the log has it.
    pub(super) fn check(
        &self,
        caller: &Authenticated,
        connection: Connection,
        now: Timestamp,
    ) -> Result<(), S3Error> {
        let index = caller.tenant().index;
        let Some(rule) = self.rules.get(index) else {
            return Ok(());
        };
        let denied =
            |why: String| Err(S3Error::new(Code::AccessDenied, "Access Denied.").detail(why));
        let certified = self.named(connection, now);
        if rule.require_client_cert && certified.is_none_or(|(_, tenant)| tenant != index) {
            return denied(format!(
                "the connection has no certificate of the tenant {}",
                caller.tenant().name
            ));
        }
        let address = connection.address;
        let contains = |network: &IpNet| address.is_some_and(|address| network.contains(&address));
        if !rule.allowed_ips.is_empty() && !rule.allowed_ips.iter().any(contains) {
            let address = address.map_or_else(
                || "a Unix socket without a trusted proxy".to_owned(),
                |address| address.to_string(),
            );
            return denied(format!(
                "{address} is not in allowed_ips of the tenant {}",
                caller.tenant().name
            ));
        }
        Ok(())
    }

    /// Whether `peer` is a trusted proxy.
    pub(super) fn is_proxy(&self, peer: Peer) -> bool {
        match peer {
            Peer::Tcp(peer) => self.trusts(peer.ip().to_canonical()),
            Peer::Unix(user) => self.trusted_users.contains(&user.uid),
            Peer::Unnamed => false, // anybody may stand there
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies
            .iter()
            .any(|network| network.contains(&address))
    }
}

/// An address, with a port or without: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches([' ', '\t']);
    let in_brackets = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']'));
    let address = match in_brackets {
        Some(v6) => v6.parse().map(IpAddr::V6).ok(),
        None => hop
            .parse()
            .ok()
            .or_else(|| Some(hop.parse::<std::net::SocketAddr>().ok()?.ip())),
    };
    address.map(|address| address.to_canonical())
}

fn malformed() -> S3Error {
    S3Error::new(
        Code::InvalidRequest,
        "X-Forwarded-For must be a list of addresses.",
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http::HeaderValue;

    use super::super::UnixUser;
    use super::*;

    fn admissions(trusted: &[&str]) -> Admissions {
        Admissions {
            rules: Vec::new(),
            certificates: vec![("a".into(), 0), ("b".into(), 0), ("c".into(), 1)],
            by_name: ["a", "b", "c"]
                .iter()
                .enumerate()
                .map(|(index, name)| (CertificateName::Dns((*name).to_owned()), index))
                .collect(),
            users: HashMap::new(),
            trusted_proxies: trusted.iter().map(|text| text.parse().unwrap()).collect(),
            trusted_users: vec![33],
        }
    }

    fn caller(trusted: &[&str], peer: &str, lines: &[&str]) -> Option<(String, bool)> {
        let peer = Peer::Tcp(SocketAddr::new(peer.parse().unwrap(), 1));
        caller_of(trusted, peer, lines)
    }

    fn caller_of(trusted: &[&str], peer: Peer, lines: &[&str]) -> Option<(String, bool)> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        let found = admissions(trusted).caller(&headers, peer).ok()?;
        let address = found.address.map(|address| address.to_string());
        Some((address.unwrap_or_default(), found.is_forwarded))
    }

    #[test]
    fn of_those_on_a_unix_socket_only_a_trusted_user_speaks_for_others() {
        let user = |uid| Peer::Unix(UnixUser { uid, is_own: true });
        for (uid, lines, address, is_forwarded) in [
            (33, &["1.1.1.1, 192.0.2.1, 10.1.1.1"][..], "192.0.2.1", true),
            (33, &[], "", true),
            (34, &["192.0.2.1"], "", true),
            (34, &[], "", false),
        ] {
            let found = caller_of(&["10.0.0.0/8"], user(uid), lines);
            assert_eq!(
                found,
                Some((address.to_owned(), is_forwarded)),
                "{uid} {lines:?}"
            );
        }
        assert_eq!(caller_of(&[], user(33), &["junk"]), None);
    }

    #[test]
    fn the_last_hop_that_is_not_trusted_is_the_client() {
        let trusted = ["10.0.0.0/8", "::1/128"];
        for (peer, lines, address) in [
            ("10.0.0.1", &["192.0.2.1"][..], "192.0.2.1"),
            ("10.0.0.1", &["1.1.1.1, 192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["1.1.1.1, 192.0.2.1, 10.1.1.1"], "192.0.2.1"),
            (
                "10.0.0.1",
                &["1.1.1.1", "192.0.2.1", "10.1.1.1"],
                "192.0.2.1",
            ),
            ("10.0.0.1", &["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
            ("10.0.0.1", &["junk, 192.0.2.1:80"], "192.0.2.1"),
            ("::ffff:10.0.0.1", &["::ffff:192.0.2.1"], "192.0.2.1"),
            ("::1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("::1", &["127.0.0.1"], "127.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ] {
            let expected = Some((address.to_owned(), true));
            assert_eq!(caller(&trusted, peer, lines), expected, "{peer} {lines:?}");
        }
        for lines in [
            &["junk"][..],
            &[""],
            &["192.0.2.1,"],
            &["unknown"],
            &["a, 10.1.1.1"],
        ] {
            assert_eq!(caller(&trusted, "10.0.0.1", lines), None, "{lines:?}");
        }
    }

    #[test]
    fn nobody_elses_word_is_taken() {
        for lines in [&["192.0.2.1"][..], &["junk"]] {
            let expected = Some(("203.0.113.1".to_owned(), true));
            assert_eq!(caller(&["10.0.0.0/8"], "203.0.113.1", lines), expected);
        }
        let plain = Some(("203.0.113.1".to_owned(), false));
        assert_eq!(caller(&[], "203.0.113.1", &[]), plain);
    }

    #[test]
    fn a_certificate_of_two_tenants_is_nobodys() {
        let admissions = admissions(&[]);
        let known = |names: &[&str]| {
            let names: Vec<_> = names
                .iter()
                .map(|name| CertificateName::Dns((*name).to_owned()))
                .collect();
            let certified = admissions.certified(&names, Timestamp::default());
            certified.is_known()
        };
        assert!(known(&["a", "b", "other"]));
        assert!(!known(&["a", "c"]));
        assert!(!known(&["other"]));
        assert!(!known(&[]));
    }
}
