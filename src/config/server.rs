//! `[server]`: the side that clients see.

use std::net::SocketAddr;

use super::admission;
use super::endpoint;
use super::file::{Located, Origin};
use super::given_secret::GivenSecret;
use super::grammar;
use super::model::{ClientAuth, Listen, ReadyPart, Server, ServerLimits, ServerTls};
use super::section::Section;
use super::sessions;
use super::unix;
use super::vend;

/// Length of a secret that seals: 256 bits in base64, without the padding and then some.
const SEAL_SECRET_BYTES: usize = 32;

pub(super) fn server(section: Section<'_>) -> Option<Server> {
    let listen = unix::listen(&section);
    let socket_mode = unix::socket_mode(&section, listen.as_ref());
    let admin = admin(&section, listen.as_ref());
    let (trusted_proxies, trusted_users) = admission::trusted_proxies(&section);
    let is_trusting = !trusted_proxies.is_empty() || !trusted_users.is_empty();
    let proxy_protocol = proxy_protocol(&section, is_trusting);
    let tls = tls(section.section("tls"));
    check_transport(&section, listen.as_ref(), tls.is_some(), is_trusting);
    let cores = u64::try_from(section.file().sources.cores).unwrap_or(1);
    let admin_hosts = section.has("admin_hosts");
    let server = Server {
        socket_mode,
        admin,
        admin_token: admin_token(&section),
        admin_hosts: admin_hosts.then(|| names(&section, "admin_hosts")),
        domains: names(&section, "domains"),
        region: section
            .parsed("region", grammar::region)
            .map_or_else(String::new, |found| found.value),
        strict_region: section.flag("strict_region").value,
        allow_remote_anonymous: section.flag("allow_remote_anonymous").value,
        allow_plain_bearer: section.flag("allow_plain_bearer").value,
        loopback_is_proxy: section.flag("loopback_is_proxy").value,
        proxy_protocol,
        trusted_proxies,
        trusted_users,
        allow_qsign: section.flag("allow_qsign").value,
        allow_sigv2_presign: section.flag("allow_sigv2_presign").value,
        threads: in_memory(section.number_or("threads", cores.clamp(1, 1024))),
        max_presign: section.duration("max_presign").value,
        session_secrets: session_secrets(&section),
        sessions_not_before: sessions::not_before(&section),
        max_session: section.duration("max_session").value,
        reload_on_change: section.flag("reload_on_change").value,
        ready_requires: ready_requires(&section),
        tenant_metrics: in_memory(section.number("tenant_metrics")),
        reuse_port: reuse_port(&section, listen.as_ref()),
        tls,
        limits: limits(section.section("limits")),
        listen: listen?,
    };
    section.finish();
    Some(server)
}

/// The address of the admin pages; `None` when they are off.
fn admin(section: &Section<'_>, listen: Option<&Listen>) -> Option<SocketAddr> {
    let admin = section.parsed("admin", |text| match text {
        "" => Ok(None),
        text => grammar::address(text).map(Some),
    })?;
    if let Some(address) = admin.value
        && listen == Some(&Listen::Tcp(address))
        && address.port() != 0
    {
        let message = format!("`admin` and `listen` are both {address}");
        section.error(
            &admin.origin,
            message,
            "give `admin` another port, or \"\" to turn it off",
        );
    }
    admin.value
}

/// What the admin pages need as a Bearer token, or as a password of HTTP's Basic.
fn admin_token(section: &Section<'_>) -> Option<GivenSecret> {
    let found = section.secret("admin_token")?;
    if vend::is_guessable(&found.value.value) {
        let message = "`admin_token` is shorter than 16 characters, or not plain text";
        let fix = "make one with `openssl rand -hex 32`";
        section.error(&found.origin, message, fix);
    }
    Some(found.value)
}

fn ready_requires(section: &Section<'_>) -> Vec<ReadyPart> {
    let texts = section.texts("ready_requires").into_iter();
    let part = |text: Located<&str>| {
        let part = match text.value {
            "cos" => Ok(ReadyPart::Cos),
            "sts" => Ok(ReadyPart::Sts),
            other => Err(grammar::not_one_of(other, &["cos", "sts"])),
        };
        section.check("ready_requires", &text.origin, part)
    };
    texts.filter_map(part).collect()
}

fn reuse_port(section: &Section<'_>, listen: Option<&Listen>) -> bool {
    let flag = section.flag("reuse_port");
    if flag.value && matches!(listen, Some(Listen::Unix(_))) {
        let message = "`reuse_port` has no effect on a Unix socket";
        let fix = "remove reuse_port, or set `listen` to an address";
        section.error(&flag.origin, message, fix);
    }
    flag.value
}

fn proxy_protocol(section: &Section<'_>, is_trusting: bool) -> bool {
    let flag = section.flag("proxy_protocol");
    if flag.value && !is_trusting {
        let message =
            "`proxy_protocol` needs `trusted_proxies`: cosgate reads the header of no other peer";
        let fix = "add trusted_proxies = [\"10.0.0.0/8\"] with the addresses of the load balancer";
        section.error(&flag.origin, message, fix);
    }
    flag.value
}

/// Where TLS is refused, and where its absence is likely a mistake.
fn check_transport(
    section: &Section<'_>,
    listen: Option<&Listen>,
    has_tls: bool,
    is_trusting: bool,
) {
    match listen {
        Some(Listen::Unix(_)) if has_tls => {
            let origin = section.section("tls").origin();
            let message = "[server.tls] has no effect on a Unix socket";
            section.error(
                &origin,
                message,
                "remove [server.tls], or set `listen` to an address",
            );
        }
        // An incomplete [server.tls] is an error already.
        Some(Listen::Tcp(address))
            if !address.ip().is_loopback()
                && !has_tls
                && !section.section("tls").is_written()
                && !is_trusting =>
        {
            let origin = section
                .position_of("listen")
                .unwrap_or_else(|| section.origin());
            let message = format!(
                "`listen` is {address}, which other machines can reach, without TLS: anyone on the network can read what clients send"
            );
            let fix = "add [server.tls] with cert and key, listen on 127.0.0.1, or name the proxy that terminates TLS in trusted_proxies";
            section.warning(&origin, message, fix);
        }
        _ => {}
    }
}

/// The secret that seals session tokens, and the one before it.
fn session_secrets(section: &Section<'_>) -> Vec<GivenSecret> {
    let mut secrets = Vec::new();
    for key in ["session_secret", "previous_session_secret"] {
        let Some(found) = section.secret(key) else {
            continue;
        };
        refuse_short_seal(section, key, &found);
        if key != "session_secret" && secrets.is_empty() {
            let message = format!("`{key}` needs `session_secret`");
            section.error(&found.origin, message, "add session_secret = \"env:NAME\"");
        }
        secrets.push(found.value);
    }
    secrets
}

/// Who guesses a secret that seals could make what it seals.
pub(super) fn refuse_short_seal(section: &Section<'_>, key: &str, secret: &Located<GivenSecret>) {
    if secret.value.value.expose().len() < SEAL_SECRET_BYTES {
        let message =
            format!("`{key}` is shorter than {SEAL_SECRET_BYTES} characters and could be guessed");
        section.error(
            &secret.origin,
            message,
            "make one with `openssl rand -base64 32`",
        );
    }
}

/// The DNS names of `key`.
fn names(section: &Section<'_>, key: &'static str) -> Vec<String> {
    let texts = section.texts(key).into_iter();
    let check =
        |text: Located<&str>| section.check(key, &text.origin, endpoint::domain(text.value));
    texts.filter_map(check).collect()
}

fn tls(section: Section<'_>) -> Option<ServerTls> {
    let is_wanted =
        section.is_written() || section.text("cert").is_some() || section.text("key").is_some();
    let (cert, key) = (section.pem("cert"), section.pem("key"));
    let client_ca = section.pem("client_ca");
    let client_crl = section.pem("client_crl");
    let client_auth = section.choice("client_auth", |word| match word {
        "optional" => Some(ClientAuth::Optional),
        "required" => Some(ClientAuth::Required),
        _ => None,
    });
    let is_requesting = client_ca.is_some() || section.has("client_ca");
    for name in ["client_crl", "client_auth"] {
        if !is_requesting && let Some(origin) = section.position_of(name) {
            refuse_without_authority(&section, name, &origin);
        }
    }
    if is_wanted {
        for name in ["cert", "key"] {
            if section.position_of(name).is_none() {
                section.missing(name);
            }
        }
    }
    section.finish();
    Some(ServerTls {
        cert: cert?,
        key: key?,
        client_ca,
        client_crl,
        client_auth: client_auth?.value,
    })
}

fn refuse_without_authority(section: &Section<'_>, name: &str, origin: &Origin) {
    let message =
        format!("`{name}` needs `client_ca`: without it cosgate requests no client certificate");
    section.error(
        origin,
        message,
        format!("add client_ca = \"PATH\", or remove {name}"),
    );
}

fn limits(section: Section<'_>) -> ServerLimits {
    let connections = section.number("connections");
    let of_address = section.number_or("connections_per_address", (connections / 8).max(1));
    let limits = ServerLimits {
        head_bytes: in_memory(section.number("head_bytes")),
        head_fields: in_memory(section.number("head_fields")),
        head_timeout: section.duration("head_timeout").value,
        body_rate: section.number("body_rate"),
        body_window: section.duration("body_window").value,
        idle_timeout: section.duration("idle_timeout").value,
        tls_handshake_timeout: section.duration("tls_handshake_timeout").value,
        xml_bytes: in_memory(section.number("xml_bytes")),
        connections: in_memory(connections),
        connections_per_address: in_memory(of_address),
        stranger_bytes: in_memory(section.number("stranger_bytes")),
        drain_delay: section.duration("drain_delay").value,
        drain_timeout: section.duration("drain_timeout").value,
        streams: in_settings(section.number("streams")),
        stream_window: in_settings(section.number("stream_window")),
    };
    section.finish();
    limits
}

pub(super) fn in_memory(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// A value of HTTP/2's SETTINGS.
fn in_settings(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
