//! The keys of `[server]`, its TLS and its limits.

use std::time::Duration;

use super::{
    ConfigTable, Default, GIB, HOUR, KIB, MIB, PATH, SECOND, TIME, TIMEOUT, Value, key, table,
};

/// The largest `head_fields`.
pub(crate) const MAX_HEAD_FIELDS: usize = 1000;

pub(super) static SERVER: ConfigTable = ConfigTable {
    about: "The side that clients see.",
    keys: &[
        key(
            "listen",
            Value::Text("address or `unix:PATH`"),
            Default::Is("127.0.0.1:9000"),
            "Address that clients use, or `\"unix:/run/cosgate/s3.sock\"`: see [A Unix socket](configuration-guide.md#a-unix-socket).",
        ),
        key(
            "socket_mode",
            Value::Text("octal mode"),
            Default::Is("0600"),
            "File mode of the Unix socket. A user who may write to the file may connect.",
        ),
        key(
            "admin",
            Value::Text("address or `\"\"`"),
            Default::Is("127.0.0.1:9001"),
            "Address of the admin pages: `/livez`, `/readyz`, `/metrics`, the status page and the admin API. `\"\"` turns them off.",
        ),
        key(
            "ready_requires",
            Value::Texts("`cos` or `sts`"),
            Default::Absent,
            "What else must be up for `/readyz` to return 200: `sts` (calls of at least one issuer succeed), `cos` (at least one region can be reached).",
        ),
        key(
            "admin_hosts",
            Value::Texts("DNS name"),
            Default::Absent,
            "Host names of the admin pages besides `localhost` and addresses. Others get 421. If `admin` is not loopback and this is not set, `/livez`, `/readyz` and `/metrics` accept every name.",
        ),
        key(
            "admin_token",
            Value::Secret,
            Default::Absent,
            "Token of 16 or more characters that the admin pages need, but for `/livez` and `/readyz`: see [The admin API](admin-api.md).",
        ),
        key(
            "domains",
            Value::Texts("DNS name"),
            Default::Is("s3.localhost"),
            "Suffixes for virtual-hosted style (`BUCKET.s3.localhost`). Path style always works.",
        ),
        key(
            "region",
            Value::Text("region"),
            Default::Is("ap-guangzhou"),
            "The region that cosgate reports to clients.",
        ),
        key(
            "tenant_metrics",
            Value::Count(0, 10_000),
            Default::Is("100"),
            "Number of tenants and templates with metrics of their own. The first in the configuration have them; all others count as `other`.",
        ),
        key(
            "reuse_port",
            Value::Flag,
            Default::Is("false"),
            "Let another process listen on the same address (`SO_REUSEPORT`), so that a new cosgate can take over from an old one.",
        ),
        key(
            "strict_region",
            Value::Flag,
            Default::Is("false"),
            "Reject signatures that name another region.",
        ),
        key(
            "allow_remote_anonymous",
            Value::Flag,
            Default::Is("false"),
            "Serve the anonymous tenant to clients that are not on this machine, and to every user of a Unix socket.",
        ),
        key(
            "trusted_proxies",
            Value::Texts("network or `unix:USER`"),
            Default::Absent,
            "Proxies whose `X-Forwarded-For` cosgate trusts: see [Behind a load balancer](configuration-guide.md#behind-a-load-balancer).",
        ),
        key(
            "proxy_protocol",
            Value::Flag,
            Default::Is("false"),
            "Require a PROXY protocol header (version 1 or 2) on every connection from `trusted_proxies`.",
        ),
        key(
            "loopback_is_proxy",
            Value::Flag,
            Default::Is("false"),
            "Give loopback connections no special rights, because a proxy on this machine opens them.",
        ),
        key(
            "allow_qsign",
            Value::Flag,
            Default::Is("true"),
            "Accept requests that a local key signed with COS's own signature (`q-sign-algorithm=sha1`).",
        ),
        key(
            "allow_sigv2_presign",
            Value::Flag,
            Default::Is("false"),
            "Accept presigned URLs and browser forms of AWS Signature Version 2.",
        ),
        key(
            "allow_plain_bearer",
            Value::Flag,
            Default::Is("false"),
            "Accept tokens, and issue session keys, on connections without TLS. Use it only behind a proxy that terminates TLS.",
        ),
        key(
            "threads",
            Value::Count(1, 1024),
            Default::Computed("one per core"),
            "Number of threads that serve requests.",
        ),
        key(
            "max_presign",
            Value::Duration(SECOND, Duration::from_hours(7 * 24)),
            Default::Is("168h"),
            "Maximum lifetime of a presigned URL, and of a browser form from its `x-amz-date` on.",
        ),
        key(
            "session_secret",
            Value::Secret,
            Default::Absent,
            "Secret of 32 or more characters that seals session keys (`openssl rand -base64 32`). Without it cosgate issues none.",
        ),
        key(
            "previous_session_secret",
            Value::Secret,
            Default::Absent,
            "The `session_secret` before the last rotation. Remove it after `max_session`.",
        ),
        key(
            "sessions_not_before",
            TIME,
            Default::Absent,
            "Reject all session keys issued before this time.",
        ),
        key(
            "max_session",
            Value::Duration(Duration::from_mins(15), Duration::from_hours(12)),
            Default::Is("1h"),
            "Maximum lifetime of session keys.",
        ),
        key(
            "reload_on_change",
            Value::Flag,
            Default::Is("false"),
            "Reload when this file, one that it includes or a grant's policy changes. Without it a reload needs SIGHUP or `POST /reload`: see [Changes while cosgate runs](operations.md).",
        ),
        table("tls", Value::Table(&SERVER_TLS)),
        table("limits", Value::Table(&SERVER_LIMITS)),
    ],
};

static SERVER_TLS: ConfigTable = ConfigTable {
    about: "HTTPS for clients, TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2. Without this table cosgate serves plain HTTP/1.1.",
    keys: &[
        key(
            "cert",
            PATH,
            Default::Required("\"PATH\""),
            "PEM file with the certificate chain.",
        ),
        key(
            "key",
            PATH,
            Default::Required("\"PATH\""),
            "PEM file with the private key.",
        ),
        key(
            "client_ca",
            PATH,
            Default::Absent,
            "PEM file with authorities. If set, cosgate requests a client certificate at every handshake.",
        ),
        key(
            "client_crl",
            PATH,
            Default::Absent,
            "PEM file with revocation lists of `client_ca`, at most 16 MiB. cosgate reads it again when it changes.",
        ),
        key(
            "client_auth",
            Value::Choice(&["required", "optional"]),
            Default::Is("required"),
            "Whether a client must present a certificate. A certificate that is presented must be valid.",
        ),
    ],
};

static SERVER_LIMITS: ConfigTable = ConfigTable {
    about: "Limits for each client. They hold over HTTP/1.1 and HTTP/2.",
    keys: &[
        // hyper reads no head with less than 8 KiB.
        key(
            "head_bytes",
            Value::Size(8 * KIB, MIB),
            Default::Is("16KiB"),
            "Maximum size of a request head.",
        ),
        key(
            "head_fields",
            Value::Count(8, MAX_HEAD_FIELDS as u64),
            Default::Is("100"),
            "Maximum number of header fields in a request.",
        ),
        key(
            "head_timeout",
            TIMEOUT,
            Default::Is("10s"),
            "Time within which a request head must arrive.",
        ),
        key(
            "body_rate",
            Value::Size(1, GIB),
            Default::Is("1KiB"),
            "Minimum bytes a second of a body, averaged over `body_window`, in both directions.",
        ),
        key(
            "body_window",
            TIMEOUT,
            Default::Is("60s"),
            "Period for `body_rate`.",
        ),
        key(
            "idle_timeout",
            TIMEOUT,
            Default::Is("75s"),
            "Time after which an idle client connection is closed.",
        ),
        key(
            "tls_handshake_timeout",
            TIMEOUT,
            Default::Is("5s"),
            "Time within which a TLS handshake must finish.",
        ),
        key(
            "xml_bytes",
            Value::Size(KIB, 16 * MIB),
            Default::Is("2MiB"),
            "Maximum size of an XML request body.",
        ),
        key(
            "connections",
            Value::Count(1, 1_000_000),
            Default::Is("16384"),
            "Maximum number of client connections.",
        ),
        key(
            "connections_per_address",
            Value::Count(0, 1_000_000),
            Default::Computed("an eighth of `connections`"),
            "Maximum number of connections of one IPv4 address, one IPv6 /64 or one local user. `0` sets no limit.",
        ),
        key(
            "stranger_bytes",
            Value::Size(4 * MIB, GIB),
            Default::Is("16MiB"),
            "Memory of each core for requests whose sender is not authenticated yet.",
        ),
        key(
            "drain_delay",
            Value::Duration(Duration::ZERO, HOUR),
            Default::Is("0s"),
            "How long cosgate accepts connections after a signal that ends it, while `/readyz` returns 503. Set it to the time that a load balancer needs to notice.",
        ),
        key(
            "drain_timeout",
            Value::Duration(Duration::ZERO, HOUR),
            Default::Is("60s"),
            "How long a signal that ends cosgate waits for requests in flight. A second signal ends the wait.",
        ),
        key(
            "streams",
            Value::Count(0, 128),
            Default::Is("128"),
            "Maximum number of concurrent requests on one HTTP/2 connection. `0` turns HTTP/2 off.",
        ),
        // Sixteen of them are the connection's, which ends at 2 GiB (RFC 9113 section 6.9.1).
        key(
            "stream_window",
            Value::Size(64 * KIB, 8 * MIB),
            Default::Is("128KiB"),
            "Bytes that one HTTP/2 request may send before COS has taken them.",
        ),
    ],
};
