//! The file's sections, each into its type.

use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeTable;

use super::admission;
use super::document::{Document, Found, Origin, printable};
use super::endpoint::{self, Placeholders};
use super::grammar;
use super::identities;
use super::issuers;
use super::problem::{Problem, Refusal, Severity};
use super::section::Section;
use super::sessions;
use super::tenants;
use super::unix;
use super::{
    ClientAuth, Config, EndpointTemplate, Listen, MAX_HEAD_FIELDS, Server, ServerLimits, ServerTls,
    SharedCache, Sources, StoredCheck, Sts, Upstream, UpstreamLimits, UpstreamSignature,
};
use crate::secret::Secret;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const WEEK: Duration = Duration::from_hours(7 * 24);
/// As many as 256 bits are in base64, less the padding and then some.
const SESSION_SECRET_BYTES: usize = 32;

pub(super) fn parse(
    file_name: &str,
    text: &str,
    sources: &Sources<'_>,
) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let document = Document::new(file_name, text, sources);
    let (tree, faults) = DeTable::parse_recoverable(text);
    if !faults.is_empty() {
        for fault in faults {
            // Only the parser's own words: the source line may hold a secret.
            let at = Origin::File(fault.span().map_or(0, |span| span.start));
            document.error(
                &at,
                Refusal::new(
                    format!("not TOML: {}", fault.message()),
                    "mend the syntax here",
                ),
            );
        }
        return Err(document.into_problems());
    }
    let config = config(Section::root(&document, tree.get_ref()));
    let problems = document.into_problems();
    match config {
        Some(config) if problems.iter().all(|p| p.severity == Severity::Warning) => {
            Ok((config, problems))
        }
        _ => Err(problems),
    }
}

fn config(mut root: Section<'_>) -> Option<Config> {
    let server = server(root.section("server"));
    let upstream = upstream(root.section("upstream"));
    let sts = sts(root.section("sts"));
    let issuers = issuers::issuers(&mut root);
    let identities = identities::identities(&mut root);
    let (credential_entries, credential_shared) = credentials(root.section("credentials"));
    let (tenants, templates) = tenants::tenants(&mut root, &issuers, &identities, server.as_ref());
    root.finish();
    Some(Config {
        server: server?,
        upstream: upstream?,
        sts: sts?,
        issuers: issuers.all,
        identities: identities.all,
        tenants,
        templates,
        credential_entries,
        credential_shared,
    })
}

fn server(mut section: Section<'_>) -> Option<Server> {
    let listen = unix::listen(&mut section);
    let socket_mode = unix::socket_mode(&mut section, listen.as_ref());
    let admin = admin(&mut section, listen.as_ref());
    let admin_hosts = names(&mut section, "admin_hosts");
    let domains = names(&mut section, "domains");
    let domains = domains.unwrap_or_else(|| vec!["s3.localhost".to_owned()]);
    let region = region(&mut section);
    let strict_region = section.flag("strict_region").value;
    let allow_remote_anonymous = section.flag("allow_remote_anonymous").value;
    let allow_plain_bearer = section.flag("allow_plain_bearer").value;
    let loopback_is_proxy = section.flag("loopback_is_proxy").value;
    let (trusted_proxies, trusted_users) = admission::trusted_proxies(&mut section);
    let proxy_protocol = section.flag("proxy_protocol");
    if proxy_protocol.value && trusted_proxies.is_empty() && trusted_users.is_empty() {
        let message = "`proxy_protocol` without `trusted_proxies`: nobody's header would be read";
        let fix = "add trusted_proxies = [\"10.0.0.0/8\"] with the addresses of the balancer";
        let refusal = Refusal::new(message, fix);
        section.document().error(&proxy_protocol.origin, refusal);
    }
    let allow_qsign = section.flag_or("allow_qsign", true).value;
    let allow_sigv2_presign = section.flag("allow_sigv2_presign").value;
    let cores = u64::try_from(section.document().sources.cores)
        .unwrap_or(1)
        .clamp(1, 1024);
    let threads = in_memory(section.size("threads", cores, 1..=1024));
    let max_presign = section.duration("max_presign", WEEK, SECOND..=WEEK).value;
    let session_secrets = session_secrets(&mut section);
    let max_session = section.duration("max_session", HOUR, HOUR / 4..=12 * HOUR);
    let max_session = max_session.value;
    let sessions_not_before = sessions::not_before(&mut section);
    let tls = section.section("tls");
    let tls_at = tls.origin();
    let tls = server_tls(tls);
    if let (Some(Listen::Unix(_)), Some(_)) = (&listen, &tls) {
        let message = "a Unix socket speaks no TLS: nobody reads what passes there";
        section.document().error(
            &tls_at,
            Refusal::new(message, "remove [server.tls], or listen on an address"),
        );
    }
    let limits = server_limits(section.section("limits"));
    section.finish();
    Some(Server {
        listen: listen?,
        socket_mode,
        admin,
        admin_hosts,
        domains,
        region,
        strict_region,
        allow_remote_anonymous,
        allow_plain_bearer,
        loopback_is_proxy,
        proxy_protocol: proxy_protocol.value,
        trusted_proxies,
        trusted_users,
        allow_qsign,
        allow_sigv2_presign,
        threads,
        max_presign,
        session_secrets,
        sessions_not_before,
        max_session,
        tls,
        limits,
    })
}

/// Where the admin pages are; `None` when nowhere.
fn admin(section: &mut Section<'_>, listen: Option<&Listen>) -> Option<SocketAddr> {
    let admin = section.parsed("admin", |text| match text {
        "" => Ok(None),
        text => grammar::address(text).map(Some),
    });
    if let Some(Found {
        value: Some(admin),
        origin,
    }) = &admin
        && listen == Some(&Listen::Tcp(*admin))
        && admin.port() != 0
    {
        let message = "`admin` is the address of `listen`";
        section.document().error(
            origin,
            Refusal::new(message, "give it a port of its own, or \"\" for none"),
        );
    }
    admin.map_or_else(
        || grammar::address("127.0.0.1:9001").ok(),
        |found| found.value,
    )
}

/// The secret that seals session tokens, and the one before it.
fn session_secrets(section: &mut Section<'_>) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for key in ["session_secret", "previous_session_secret"] {
        let Some(found) = section.secret(key) else {
            continue;
        };
        if found.value.expose().len() < SESSION_SECRET_BYTES {
            let message = format!("`{key}` is shorter than 32 characters: tokens could be forged");
            let fix = "make one with `openssl rand -base64 32`";
            section
                .document()
                .error(&found.origin, Refusal::new(message, fix));
        }
        if key != "session_secret" && secrets.is_empty() {
            let message = format!("`{key}` stands without `session_secret`");
            section
                .document()
                .error(&found.origin, Refusal::new(message, "add session_secret"));
        }
        secrets.push(found.value);
    }
    secrets
}

/// The DNS names of `key`; `None` when it is not written.
fn names(section: &mut Section<'_>, key: &'static str) -> Option<Vec<String>> {
    let written = section.texts(key);
    if !section.has(key) {
        return None;
    }
    let check = |text: &Found<&str>| section.check(key, &text.origin, endpoint::domain(text.value));
    Some(written.iter().filter_map(check).collect())
}

fn server_tls(mut section: Section<'_>) -> Option<ServerTls> {
    let wanted =
        section.is_written() || section.text("cert").is_some() || section.text("key").is_some();
    let cert = section.pem("cert");
    let key = section.pem("key");
    let client_ca = section.pem("client_ca");
    let client_crl = section.pem("client_crl");
    if let Some(origin) = section.place_of("client_crl")
        && client_ca.is_none()
        && !section.has("client_ca")
    {
        let message = "`client_crl` without `client_ca`: no client is asked for a certificate";
        section.document().error(
            &origin,
            Refusal::new(message, "add client_ca = \"PATH\", or remove it"),
        );
    }
    let client_auth = section.parsed("client_auth", admission::client_auth);
    if let Some(found) = &client_auth
        && client_ca.is_none()
        && !section.has("client_ca")
    {
        let message = "`client_auth` without `client_ca`: no client is asked for a certificate";
        section.document().error(
            &found.origin,
            Refusal::new(message, "add client_ca = \"PATH\", or remove it"),
        );
    }
    if wanted {
        for name in ["cert", "key"] {
            if !section.has(name) && section.text(name).is_none() {
                section.missing(name, "\"PATH\"");
            }
        }
    }
    section.finish();
    Some(ServerTls {
        cert: cert?,
        key: key?,
        client_ca,
        client_crl,
        client_auth: client_auth.map_or(ClientAuth::Required, |found| found.value),
    })
}

fn server_limits(mut section: Section<'_>) -> ServerLimits {
    let connections = section.size("connections", 16_384, 1..=1_000_000);
    let of_address = (connections / 8).max(1);
    let limits = ServerLimits {
        // hyper reads no head with less than 8 KiB.
        head_bytes: in_memory(section.size("head_bytes", 16 * KIB, 8 * KIB..=MIB)),
        head_fields: in_memory(section.size("head_fields", 100, 8..=MAX_HEAD_FIELDS as u64)),
        head_timeout: time(&mut section, "head_timeout", 10),
        body_rate: section.size("body_rate", KIB, 1..=1024 * MIB),
        body_window: time(&mut section, "body_window", 60),
        idle_timeout: time(&mut section, "idle_timeout", 75),
        tls_handshake_timeout: time(&mut section, "tls_handshake_timeout", 5),
        xml_bytes: in_memory(section.size("xml_bytes", 2 * MIB, KIB..=16 * MIB)),
        connections: in_memory(connections),
        connections_per_address: in_memory(section.size(
            "connections_per_address",
            of_address,
            0..=1_000_000,
        )),
        stranger_bytes: in_memory(section.size("stranger_bytes", 16 * MIB, 4 * MIB..=1024 * MIB)),
        drain_timeout: section
            .duration("drain_timeout", 60 * SECOND, Duration::ZERO..=HOUR)
            .value,
        streams: in_settings(section.size("streams", 128, 0..=128)),
        // Sixteen of them are the connection's, which ends at 2 GiB (RFC 9113 section 6.9.1).
        stream_window: in_settings(section.size("stream_window", 128 * KIB, 64 * KIB..=8 * MIB)),
    };
    section.finish();
    limits
}

fn upstream(mut section: Section<'_>) -> Option<Upstream> {
    let connect_to = section
        .parsed("connect_to", endpoint::dial)
        .map(|found| found.value);
    let endpoint = read_endpoint(
        &mut section,
        "endpoint",
        "https://{bucket}.cos.{region}.myqcloud.com",
        Placeholders::Bucket,
        connect_to.as_deref(),
    );
    let service_endpoint = read_endpoint(
        &mut section,
        "service_endpoint",
        "https://service.cos.myqcloud.com",
        Placeholders::Region,
        connect_to.as_deref(),
    );
    let signature = section.parsed("signature", |text| match text {
        "cos" => Ok(UpstreamSignature::Cos),
        "s3" => Ok(UpstreamSignature::S3),
        _ => Err(Refusal::new(
            format!("`{}` is not a signature", printable(text)),
            "write \"s3\" or \"cos\"",
        )),
    });
    let stored_check = section.parsed("stored_check", |text| match text {
        "crc64ecma" => Ok(StoredCheck::Crc64Ecma),
        "md5" => Ok(StoredCheck::Md5),
        "off" => Ok(StoredCheck::Off),
        _ => Err(Refusal::new(
            format!("`{}` is not a way to compare", printable(text)),
            "write \"crc64ecma\", \"md5\" or \"off\"",
        )),
    });
    let ca_file = section.pem("ca_file");
    let spool_unknown_length = in_memory(section.size("spool_unknown_length", 0, 0..=32 * MIB));
    let limits = upstream_limits(section.section("limits"));
    section.finish();
    Some(Upstream {
        endpoint: endpoint?,
        service_endpoint: service_endpoint?,
        signature: signature.map_or(UpstreamSignature::S3, |found| found.value),
        connect_to,
        ca_file,
        stored_check: stored_check.map_or(StoredCheck::Crc64Ecma, |found| found.value),
        spool_unknown_length,
        limits,
    })
}

fn upstream_limits(mut section: Section<'_>) -> UpstreamLimits {
    let limits = UpstreamLimits {
        connect_timeout: time(&mut section, "connect_timeout", 3),
        tls_handshake_timeout: time(&mut section, "tls_handshake_timeout", 5),
        head_timeout: time(&mut section, "head_timeout", 30),
        idle_timeout: time(&mut section, "idle_timeout", 50),
        idle_connections: in_memory(section.size("idle_connections", 256, 0..=65_536)),
    };
    section.finish();
    limits
}

fn sts(mut section: Section<'_>) -> Option<Sts> {
    let connect_to = section
        .parsed("connect_to", endpoint::dial)
        .map(|found| found.value);
    let endpoint = read_endpoint(
        &mut section,
        "endpoint",
        "https://sts.tencentcloudapi.com",
        Placeholders::None,
        connect_to.as_deref(),
    );
    let region = region(&mut section);
    let ca_file = section.pem("ca_file");
    let mut limits = section.section("limits");
    let timeout = time(&mut limits, "timeout", 5);
    let answer_bytes = in_memory(limits.size("answer_bytes", 64 * KIB, KIB..=MIB));
    limits.finish();
    section.finish();
    Some(Sts {
        endpoint: endpoint?,
        region,
        connect_to,
        ca_file,
        timeout,
        answer_bytes,
    })
}

fn credentials(mut section: Section<'_>) -> (usize, Option<SharedCache>) {
    let entries = in_memory(section.size("entries", 10_000, 1..=10_000_000));
    let shared = shared_cache(section.section("shared"));
    section.finish();
    (entries, shared)
}

fn shared_cache(mut section: Section<'_>) -> Option<SharedCache> {
    if !section.is_written() {
        return None;
    }
    let redis = section.required_secret("redis");
    let key = section.required_secret("key");
    if let Some(redis) = &redis
        && !redis.value.expose().starts_with("redis://")
    {
        let message = "`redis` is not a URL that starts with redis://";
        let fix = "write redis://host:6379; what is stored there is sealed, and TLS is not spoken";
        section
            .document()
            .error(&redis.origin, Refusal::new(message, fix));
    }
    if let Some(key) = &key
        && key.value.expose().len() < SESSION_SECRET_BYTES
    {
        let message = "`key` is shorter than 32 characters: the keys in the Redis could be opened";
        let fix = "make one with `openssl rand -base64 32`";
        section
            .document()
            .error(&key.origin, Refusal::new(message, fix));
    }
    section.finish();
    Some(SharedCache {
        redis: redis?.value,
        key: key?.value,
    })
}

fn read_endpoint(
    section: &mut Section<'_>,
    key: &'static str,
    default: &str,
    placeholders: Placeholders,
    connect_to: Option<&str>,
) -> Option<EndpointTemplate> {
    if !section.has(key) && section.text(key).is_none() {
        return endpoint::endpoint(default, placeholders).ok();
    }
    let found = section.parsed(key, |text| endpoint::endpoint(text, placeholders))?;
    let here = endpoint::is_loopback(connect_to.unwrap_or(&found.value.authority));
    if !found.value.tls && !here {
        let message =
            format!("`{key}` is plain http: keys' tokens and data cross the network in the clear");
        section
            .document()
            .warning(&found.origin, Refusal::new(message, "write https://"));
    }
    Some(found.value)
}

fn region(section: &mut Section<'_>) -> String {
    let found = section.parsed("region", grammar::region);
    found.map_or_else(|| "ap-guangzhou".to_owned(), |found| found.value)
}

fn time(section: &mut Section<'_>, key: &'static str, seconds: u64) -> Duration {
    section
        .duration(key, Duration::from_secs(seconds), MILLISECOND..=HOUR)
        .value
}

fn in_memory(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// A value of HTTP/2's SETTINGS.
fn in_settings(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
