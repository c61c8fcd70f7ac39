//! Every key of the configuration, in one list: what the parser knows, which default it uses and which
//! values it allows. `docs/configuration.md` is written from it (`reference.rs`), and the JSON schema (`schema.rs`).

use std::time::Duration;

/// A table of the file.
#[derive(Debug)]
pub(super) struct ConfigTable {
    /// One or two sentences for the reference and the schema.
    pub(super) about: &'static str,
    pub(super) keys: &'static [ConfigKey],
}

/// A key of a table.
#[derive(Debug)]
pub(super) struct ConfigKey {
    pub(super) name: &'static str,
    pub(super) value: Value,
    pub(super) default: Default,
    /// What the key does, on one line.
    pub(super) meaning: &'static str,
    /// The kinds of issuer that have the key; empty: all.
    pub(super) kinds: &'static [&'static str],
}

/// What may be written for a key.
#[derive(Debug)]
pub(super) enum Value {
    /// Text, of a form that the reference names.
    Text(&'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`
    Flag,
    /// A duration between these two.
    Duration(Duration, Duration),
    /// A whole number between these two.
    Count(u64, u64),
    /// A number of bytes between these two.
    Size(u64, u64),
    /// A secret.
    Secret,
    /// An array of texts of this form.
    Texts(&'static str),
    /// An array of secrets.
    Secrets,
    /// A table, `[server.tls]`.
    Table(&'static ConfigTable),
    /// A table for each name, `[issuers.NAME]`.
    Named(&'static ConfigTable),
    /// An array of tables, `[[tenants.NAME.grants]]`.
    Tables(&'static ConfigTable),
}

/// What holds when a key is not written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Default {
    /// It must be written, for example so (as in TOML).
    Required(&'static str),
    /// Nothing.
    Absent,
    /// This, read as if it were written.
    Is(&'static str),
    /// What the parser works out, in the reference's words.
    Computed(&'static str),
}

impl Value {
    /// Whether a `COSGATE_…` variable can set it.
    pub(super) fn is_scalar(&self) -> bool {
        matches!(
            self,
            Self::Text(_)
                | Self::Choice(_)
                | Self::Flag
                | Self::Duration(..)
                | Self::Count(..)
                | Self::Size(..)
                | Self::Secret
        )
    }

    /// The table of a key that has one.
    pub(super) fn table(&self) -> Option<&'static ConfigTable> {
        match self {
            Self::Table(table) | Self::Named(table) | Self::Tables(table) => Some(table),
            _ => None,
        }
    }
}

impl ConfigTable {
    /// The key `name` of a table whose issuer is of `kind`; any issuer's where the kind is not known.
    pub(super) fn key(&self, name: &str, kind: Option<&str>) -> Option<&'static ConfigKey> {
        self.keys_of(kind).find(|key| key.name == name)
    }

    /// The keys of a table whose issuer is of `kind`.
    pub(super) fn keys_of(&self, kind: Option<&str>) -> impl Iterator<Item = &'static ConfigKey> {
        self.keys.iter().filter(move |key| {
            key.kinds.is_empty() || kind.is_none_or(|kind| key.kinds.contains(&kind))
        })
    }
}

/// The tables that have a key `name`, as they are headed in a file (`[server.limits]`).
pub(super) fn tables_with(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(&ROOT, "", &mut |heading, table| {
        if !heading.is_empty() && table.keys.iter().any(|key| key.name == name) {
            found.push(heading.to_owned());
        }
    });
    found
}

/// Shows every table, from the root down, with its heading.
pub(super) fn walk(
    table: &'static ConfigTable,
    path: &str,
    show: &mut impl FnMut(&str, &'static ConfigTable),
) {
    if path.is_empty() {
        show("", table);
    }
    for key in table.keys {
        let dot = if path.is_empty() { "" } else { "." };
        let (path, heading) = match key.value {
            Value::Table(_) => {
                let path = format!("{path}{dot}{}", key.name);
                (path.clone(), format!("[{path}]"))
            }
            Value::Named(_) => {
                let path = format!("{path}{dot}{}.NAME", key.name);
                (path.clone(), format!("[{path}]"))
            }
            Value::Tables(_) => {
                let path = format!("{path}{dot}{}", key.name);
                (path.clone(), format!("[[{path}]]"))
            }
            _ => continue,
        };
        if let Some(table) = key.value.table() {
            show(&heading, table);
            walk(table, &path, show);
        }
    }
}

/// The largest `head_fields`.
pub(crate) const MAX_HEAD_FIELDS: usize = 1000;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// The kinds of issuer.
pub(super) const ASSUME_ROLE: &str = "assume-role";
pub(super) const FEDERATION: &str = "federation";
pub(super) const STATIC: &str = "static";
pub(super) const WEB_IDENTITY: &str = "web-identity";

const NAME: Value = Value::Text("name");
const PATH: Value = Value::Text("path");
const ENDPOINT: Value = Value::Text("endpoint");
const HOST_AND_PORT: Value = Value::Text("host:port");
const TIME: Value = Value::Text("time in UTC");
const REGION: Value = Value::Text("COS region");
const TIMEOUT: Value = Value::Duration(MILLISECOND, HOUR);

const fn key(
    name: &'static str,
    value: Value,
    default: Default,
    meaning: &'static str,
) -> ConfigKey {
    ConfigKey {
        name,
        value,
        default,
        meaning,
        kinds: &[],
    }
}

const fn issuer_key(
    kinds: &'static [&'static str],
    name: &'static str,
    value: Value,
    default: Default,
    meaning: &'static str,
) -> ConfigKey {
    ConfigKey {
        name,
        value,
        default,
        meaning,
        kinds,
    }
}

const fn table(name: &'static str, value: Value) -> ConfigKey {
    key(name, value, Default::Absent, "")
}

/// The file.
pub(super) static ROOT: ConfigTable = ConfigTable {
    about: "",
    keys: &[
        table("include", Value::Table(&INCLUDE)),
        table("server", Value::Table(&SERVER)),
        table("log", Value::Table(&LOG)),
        table("traces", Value::Table(&TRACES)),
        table("upstream", Value::Table(&UPSTREAM)),
        table("sts", Value::Table(&STS)),
        table("issuers", Value::Named(&ISSUER)),
        table("tenants", Value::Named(&TENANT)),
        table("identities", Value::Named(&IDENTITY)),
        table("templates", Value::Named(&TEMPLATE)),
        table("credentials", Value::Table(&CREDENTIALS)),
    ],
};

/// A file that another includes.
pub(super) static INCLUDED: ConfigTable = ConfigTable {
    about: "",
    keys: &[
        table("issuers", Value::Named(&ISSUER)),
        table("tenants", Value::Named(&TENANT)),
        table("identities", Value::Named(&IDENTITY)),
        table("templates", Value::Named(&TEMPLATE)),
    ],
};

static INCLUDE: ConfigTable = ConfigTable {
    about: "Other files that belong to this configuration: see [A file for each tenant](operations.md#a-file-for-each-tenant).",
    keys: &[key(
        "files",
        Value::Texts("path, `*` in the file name"),
        Default::Absent,
        "Files with `[issuers.*]`, `[identities.*]`, `[tenants.*]` and `[templates.*]`, at most 20 000. Paths in them are relative to their own directory.",
    )],
};

static SERVER: ConfigTable = ConfigTable {
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
            "Address of `/livez`, `/readyz` and `/metrics`. `\"\"` turns it off.",
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
            "Host names of the admin pages besides `localhost` and addresses. Others get 421. If `admin` is not loopback and this is not set, every name is accepted.",
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
            "Maximum lifetime of a presigned URL or of a browser form's policy.",
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

static LOG: ConfigTable = ConfigTable {
    about: "The access log and the program log: see [Metrics and logs](metrics-and-logs.md#access-log).",
    keys: &[
        key(
            "access",
            Value::Choice(&["json", "combined", "short", "off"]),
            Default::Is("json"),
            "Format of the access log: one JSON object, the combined format of Apache and nginx, or one short line for each request; or no access log.",
        ),
        key(
            "access_file",
            PATH,
            Default::Absent,
            "File that the access log is appended to. cosgate opens it again at SIGUSR1. Without it the access log goes to standard output.",
        ),
        key(
            "access_share",
            Value::Text("percentage"),
            Default::Is("100%"),
            "Share of the successful requests that the access log has. It always has errors, refusals and slow requests.",
        ),
        key(
            "access_slow",
            Value::Duration(MILLISECOND, HOUR),
            Default::Is("1s"),
            "A request that takes this time is slow.",
        ),
        key(
            "access_user_agent",
            Value::Flag,
            Default::Is("true"),
            "Write the `User-Agent` header and the host of the `Referer` header of clients to the access log.",
        ),
        key(
            "program",
            Value::Choice(&["text", "json"]),
            Default::Is("text"),
            "Format of the program log on standard error.",
        ),
    ],
};

static TRACES: ConfigTable = ConfigTable {
    about: "Traces of requests: see [Traces](metrics-and-logs.md#traces).",
    keys: &[
        key(
            "enabled",
            Value::Flag,
            Default::Is("false"),
            "Begin a trace for each request whose client names none, and record traces.",
        ),
        key(
            "share",
            Value::Text("percentage"),
            Default::Is("1%"),
            "Share of the traces begun by cosgate that are recorded. cosgate records a trace of a client if its `traceparent` says so.",
        ),
        key(
            "endpoint",
            ENDPOINT,
            Default::Absent,
            "URL to which recorded traces are sent by OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`. It needs a cosgate built with the feature `otel`.",
        ),
        key(
            "ca_file",
            PATH,
            Default::Absent,
            "PEM file with the authorities that `endpoint` is verified with. Without it they are those of the system.",
        ),
        key(
            "authorization",
            Value::Secret,
            Default::Absent,
            "`Authorization` header for `endpoint`.",
        ),
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

static UPSTREAM: ConfigTable = ConfigTable {
    about: "COS, or another store that speaks one of its two protocols.",
    keys: &[
        key(
            "endpoint",
            ENDPOINT,
            Default::Is("https://{bucket}.cos.{region}.myqcloud.com"),
            "Endpoint of buckets, with the placeholders `{bucket}` (required) and `{region}`. Its host is signed.",
        ),
        key(
            "service_endpoint",
            ENDPOINT,
            Default::Is("https://service.cos.myqcloud.com"),
            "Endpoint of the account. It may contain `{region}`.",
        ),
        key(
            "signature",
            Value::Choice(&["s3", "cos"]),
            Default::Is("s3"),
            "Signature of requests to the store: AWS SigV4, or COS's own. Copies between regions need `\"cos\"`.",
        ),
        key(
            "connect_to",
            HOST_AND_PORT,
            Default::Absent,
            "Connect to this address, whatever the endpoint says.",
        ),
        key(
            "ca_file",
            PATH,
            Default::Absent,
            "PEM file with authorities. Without it cosgate uses those of the system.",
        ),
        key(
            "stored_check",
            Value::Choice(&["crc64ecma", "md5", "off"]),
            Default::Is("crc64ecma"),
            "Checksum by which cosgate compares each upload with what the store says it stored.",
        ),
        key(
            "spool_unknown_length",
            Value::Size(0, 32 * MIB),
            Default::Is("0"),
            "Maximum size of an upload without a length that cosgate holds in memory, since COS requires a length. With `0` they get 411.",
        ),
        table("limits", Value::Table(&UPSTREAM_LIMITS)),
    ],
};

static UPSTREAM_LIMITS: ConfigTable = ConfigTable {
    about: "Connections to the store.",
    keys: &[
        key(
            "connect_timeout",
            TIMEOUT,
            Default::Is("3s"),
            "Time within which a connection must open.",
        ),
        key(
            "tls_handshake_timeout",
            TIMEOUT,
            Default::Is("5s"),
            "Time within which a TLS handshake must finish.",
        ),
        key(
            "head_timeout",
            TIMEOUT,
            Default::Is("30s"),
            "Time from the last byte of a request to the response head.",
        ),
        key(
            "idle_timeout",
            TIMEOUT,
            Default::Is("50s"),
            "Time after which an idle connection is closed.",
        ),
        key(
            "idle_connections",
            Value::Count(0, 65_536),
            Default::Is("256"),
            "Maximum number of idle connections for each thread and host.",
        ),
    ],
};

static STS: ConfigTable = ConfigTable {
    about: "Tencent Cloud's STS, which issues temporary keys.",
    keys: &[
        key(
            "endpoint",
            ENDPOINT,
            Default::Is("https://sts.tencentcloudapi.com"),
            "Endpoint without placeholders or path. Its host is signed.",
        ),
        key(
            "region",
            Value::Text("region"),
            Default::Is("ap-guangzhou"),
            "Value of the `X-TC-Region` header.",
        ),
        key(
            "connect_to",
            HOST_AND_PORT,
            Default::Absent,
            "Connect to this address, whatever the endpoint says.",
        ),
        key(
            "ca_file",
            PATH,
            Default::Absent,
            "PEM file with authorities. Without it cosgate uses those of the system.",
        ),
        table("limits", Value::Table(&STS_LIMITS)),
    ],
};

static STS_LIMITS: ConfigTable = ConfigTable {
    about: "Calls to STS.",
    keys: &[
        key(
            "timeout",
            TIMEOUT,
            Default::Is("5s"),
            "Time for one call, from the connection to the last byte.",
        ),
        key(
            "answer_bytes",
            Value::Size(KIB, MIB),
            Default::Is("64KiB"),
            "Maximum size of a response.",
        ),
    ],
};

/// GetFederationToken: 36 hours for a sub-account (1312/48195).
const FEDERATION_LIFE: Value = Value::Duration(SECOND, Duration::from_hours(36));
/// `AssumeRole` and `AssumeRoleWithWebIdentity`: 43 200 s (1312/48197).
const ROLE_LIFE: Value = Value::Duration(SECOND, Duration::from_hours(12));
/// Calls in a second that STS takes of one account, and of web identities (1312/48195; the page of
/// `AssumeRoleWithWebIdentity`).
const CALLS: Value = Value::Count(1, 600);
const WEB_CALLS: Value = Value::Count(1, 20);
const OF_ROLES: &[&str] = &[ASSUME_ROLE, WEB_IDENTITY];
const WITH_A_KEY: &[&str] = &[FEDERATION, ASSUME_ROLE, STATIC];
const CALLS_SIGNED: &[&str] = &[FEDERATION, ASSUME_ROLE];

static ISSUER: ConfigTable = ConfigTable {
    about: "An identity in Tencent Cloud (CAM) from which temporary keys come. Each `kind` has its own keys: see [Issuers](configuration-guide.md#issuers).",
    keys: &[
        key(
            "kind",
            Value::Choice(&[FEDERATION, ASSUME_ROLE, WEB_IDENTITY, STATIC]),
            Default::Required("\"federation\""),
            "How the issuer gets keys for tenants.",
        ),
        issuer_key(
            &[FEDERATION],
            "duration",
            FEDERATION_LIFE,
            Default::Is("2h"),
            "Lifetime of temporary keys. STS allows at most 2h for the key of a root account.",
        ),
        issuer_key(
            OF_ROLES,
            "duration",
            ROLE_LIFE,
            Default::Is("2h"),
            "Lifetime of temporary keys.",
        ),
        issuer_key(
            CALLS_SIGNED,
            "calls_per_second",
            CALLS,
            Default::Is("100"),
            "Maximum average rate of STS calls. Tencent Cloud allows an account 600.",
        ),
        issuer_key(
            CALLS_SIGNED,
            "burst",
            CALLS,
            Default::Is("200"),
            "Maximum number of STS calls at once after a pause.",
        ),
        issuer_key(
            &[WEB_IDENTITY],
            "calls_per_second",
            WEB_CALLS,
            Default::Is("15"),
            "Maximum average rate of STS calls. Tencent Cloud allows web identities 20.",
        ),
        issuer_key(
            &[WEB_IDENTITY],
            "burst",
            WEB_CALLS,
            Default::Is("15"),
            "Maximum number of STS calls at once after a pause.",
        ),
        issuer_key(
            WITH_A_KEY,
            "secret_id",
            Value::Secret,
            Default::Computed("required without another key"),
            "The issuer's own SecretId.",
        ),
        issuer_key(
            WITH_A_KEY,
            "secret_key",
            Value::Secret,
            Default::Computed("required without another key"),
            "The issuer's own SecretKey.",
        ),
        issuer_key(
            &[ASSUME_ROLE, STATIC],
            "token",
            Value::Secret,
            Default::Absent,
            "Session token, if the issuer's own key is a temporary one.",
        ),
        issuer_key(
            CALLS_SIGNED,
            "profile",
            NAME,
            Default::Absent,
            "Profile of Tencent's credentials file that has the issuer's own key.",
        ),
        issuer_key(
            CALLS_SIGNED,
            "profile_file",
            PATH,
            Default::Computed(
                "`TENCENTCLOUD_CREDENTIALS_FILE`, `~/.tencentcloud/credentials` or `/etc/tencentcloud/credentials`",
            ),
            "The credentials file for `profile`.",
        ),
        issuer_key(
            CALLS_SIGNED,
            "command",
            Value::Texts("word of a command"),
            Default::Absent,
            "Program (absolute path) and arguments. It prints the issuer's own key as JSON.",
        ),
        issuer_key(
            CALLS_SIGNED,
            "command_env",
            Value::Texts("variable"),
            Default::Absent,
            "Further environment variables that `command` gets, besides `PATH`, `HOME` and the like.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "cvm_role",
            NAME,
            Default::Absent,
            "Role of this machine, whose key its metadata service gives.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "metadata_endpoint",
            ENDPOINT,
            Default::Is("http://metadata.tencentyun.com"),
            "The metadata service for `cvm_role`, over plain HTTP.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "base",
            NAME,
            Default::Absent,
            "Another issuer, of kind assume-role or web-identity, whose key signs the calls.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "role_arn",
            Value::Text("role ARN"),
            Default::Required("\"qcs::cam::uin/UIN:roleName/NAME\""),
            "The role to assume.",
        ),
        issuer_key(
            &[WEB_IDENTITY],
            "role_arn",
            Value::Text("role ARN"),
            Default::Computed("`TKE_ROLE_ARN`"),
            "The role to assume.",
        ),
        issuer_key(
            OF_ROLES,
            "session_name",
            Value::Text("name with or without `{tenant}`"),
            Default::Is("{tenant}"),
            "The `RoleSessionName` that Tencent's audit shows.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "external_id",
            Value::Text("2 to 128 characters"),
            Default::Absent,
            "The external ID that the role's trust policy requires.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "source_identity",
            Value::Text("1 to 128 characters"),
            Default::Absent,
            "The `SourceIdentity` that Tencent's audit shows.",
        ),
        issuer_key(
            &[ASSUME_ROLE],
            "tags",
            Value::Tables(&TAG),
            Default::Absent,
            "",
        ),
        issuer_key(
            &[WEB_IDENTITY],
            "provider_id",
            NAME,
            Default::Computed("`TKE_PROVIDER_ID`"),
            "Name of the identity provider in CAM.",
        ),
        issuer_key(
            &[WEB_IDENTITY],
            "token_file",
            PATH,
            Default::Computed("`TKE_WEB_IDENTITY_TOKEN_FILE` or `TKE_IDENTITY_TOKEN_FILE`"),
            "File with the token. cosgate reads it at each call.",
        ),
    ],
};

static TAG: ConfigTable = ConfigTable {
    about: "Session tags of an assume-role issuer, at most 50.",
    keys: &[
        key(
            "key",
            Value::Text("up to 128 characters"),
            Default::Required("\"team\""),
            "Key of the tag.",
        ),
        key(
            "value",
            Value::Text("up to 256 characters"),
            Default::Required("\"storage\""),
            "Value of the tag.",
        ),
    ],
};

const ISSUER_OF: ConfigKey = key(
    "issuer",
    NAME,
    Default::Required("\"NAME\" of an [issuers.NAME]"),
    "The issuer of its temporary keys.",
);
const GRANTS: ConfigKey = table("grants", Value::Tables(&GRANT));
const LIMITS: ConfigKey = table("limits", Value::Table(&TENANT_LIMITS));
const ALLOWED_IPS: ConfigKey = key(
    "allowed_ips",
    Value::Texts("network"),
    Default::Absent,
    "Networks from which it may call. Without it, any.",
);
const VEND: ConfigKey = key(
    "vend",
    Value::Flag,
    Default::Is("false"),
    "Let its clients get temporary keys for COS: see [Keys for clients](configuration-guide.md#keys-for-clients).",
);
/// Nobody can take such a key back, and one with under 20 minutes left is not handed out.
const VEND_DURATION: ConfigKey = key(
    "vend_duration",
    Value::Duration(Duration::from_mins(30), Duration::from_hours(12)),
    Default::Is("1h"),
    "Maximum lifetime of these keys.",
);
const NOT_BEFORE: ConfigKey = key(
    "sessions_not_before",
    TIME,
    Default::Absent,
    "Reject its session keys issued before this time.",
);
const REVOKED: ConfigKey = table("revoked_sessions", Value::Tables(&REVOKED_SESSION));

static TENANT: ConfigTable = ConfigTable {
    about: "Who calls, and what they may do.",
    keys: &[
        ISSUER_OF,
        table("access_keys", Value::Tables(&ACCESS_KEY)),
        key(
            "identity",
            NAME,
            Default::Absent,
            "An identity with `tenant_claim`. A token whose claim is this tenant's name is this tenant's.",
        ),
        key(
            "anonymous",
            Value::Flag,
            Default::Is("false"),
            "Callers without credentials are this tenant. At most one tenant has it.",
        ),
        key(
            "client_certs",
            Value::Texts("certificate name"),
            Default::Absent,
            "Client certificates of this tenant: `\"san:dns:NAME\"`, `\"san:uri:URI\"` or `\"subject:CN=NAME\"`, exact. Needs `client_ca`.",
        ),
        key(
            "require_client_cert",
            Value::Flag,
            Default::Is("false"),
            "Require one of `client_certs` in addition to a key or token.",
        ),
        key(
            "unix_users",
            Value::Texts("user name or number"),
            Default::Absent,
            "Local users who are this tenant when they connect over the Unix socket.",
        ),
        ALLOWED_IPS,
        VEND,
        VEND_DURATION,
        key(
            "vend_tokens",
            Value::Secrets,
            Default::Absent,
            "Tokens of 16 or more characters. A client that sends one as `Authorization` gets a temporary key.",
        ),
        NOT_BEFORE,
        REVOKED,
        GRANTS,
        LIMITS,
    ],
};

static ACCESS_KEY: ConfigTable = ConfigTable {
    about: "A local access key of the tenant. `cosgate keygen` makes one. No two keys have the same id.",
    keys: &[
        key(
            "id",
            Value::Text("3 to 128 letters, digits, `-` `_` `.`"),
            Default::Required("\"ID\" (`cosgate keygen` makes one)"),
            "The access key ID that the client uses.",
        ),
        key(
            "secret",
            Value::Secret,
            Default::Required("\"env:NAME\""),
            "The secret access key that the client uses.",
        ),
        key(
            "not_after",
            TIME,
            Default::Absent,
            "End of the key. Requests that it signs, and session keys that it was exchanged for, are rejected after this time.",
        ),
    ],
};

static REVOKED_SESSION: ConfigTable = ConfigTable {
    about: "Session keys to reject, by the subject of the token that they were issued for.",
    keys: &[
        key(
            "subject",
            Value::Text("1 to 255 bytes"),
            Default::Required("\"SUB\", the tokens' sub"),
            "The `sub` of the tokens.",
        ),
        key(
            "before",
            TIME,
            Default::Required("\"2026-01-31T12:00:00Z\""),
            "Reject the subject's session keys issued before this time.",
        ),
    ],
};

static TENANT_LIMITS: ConfigTable = ConfigTable {
    about: "Limits of one tenant, over all threads. In a template they hold for each subject.",
    keys: &[
        key(
            "requests_per_second",
            Value::Count(1, 1_000_000),
            Default::Absent,
            "Maximum average rate of requests. Above it clients get 503 `SlowDown`.",
        ),
        key(
            "burst",
            Value::Count(1, 1_000_000),
            Default::Computed("`requests_per_second`"),
            "Maximum number of requests at once after a pause.",
        ),
        key(
            "concurrent_requests",
            Value::Count(1, 1_000_000),
            Default::Absent,
            "Maximum number of requests in flight. Above it clients get 503 `SlowDown`.",
        ),
        // A piece of a stream is up to 400 KiB, and between two pieces neither side may time out.
        key(
            "upload_rate",
            Value::Size(64 * KIB, TIB),
            Default::Absent,
            "Maximum bytes a second of all uploads together. cosgate slows bodies down.",
        ),
        key(
            "download_rate",
            Value::Size(64 * KIB, TIB),
            Default::Absent,
            "Maximum bytes a second of all downloads and listings together.",
        ),
        // COS's own limit of one request (436/14518).
        key(
            "object_size",
            Value::Size(1, 5 * GIB),
            Default::Absent,
            "Maximum size of one object or part that is uploaded.",
        ),
    ],
};

static GRANT: ConfigTable = ConfigTable {
    about: "What the client sees as one bucket: see [Grants](configuration-guide.md#grants).",
    keys: &[
        key(
            "name",
            Value::Text("S3 bucket name"),
            Default::Required("\"photos\""),
            "The bucket's name as the client uses it.",
        ),
        key(
            "bucket",
            Value::Text("`NAME-APPID`"),
            Default::Required("\"photos-1250000000\""),
            "The bucket in COS, with its APPID.",
        ),
        key(
            "region",
            REGION,
            Default::Required("\"ap-guangzhou\""),
            "The bucket's region.",
        ),
        key(
            "root",
            Value::Text("folder, with `/` at the end"),
            Default::Absent,
            "Folder of the bucket that the client sees as the whole bucket.",
        ),
        key(
            "prefixes",
            Value::Texts("`\"*\"`, `\"folder/*\"`, `\"start*\"` or a key"),
            Default::Computed("required; `[\"*\"]` with `root`"),
            "The keys that the client may use, as the client names them.",
        ),
        key(
            "list_default_prefix",
            Value::Flag,
            Default::Is("false"),
            "No effect any more: a listing without a prefix shows what the client may list.",
        ),
        key(
            "actions",
            Value::Texts("`read`, `write`, `list` or a COS action"),
            Default::Computed("required"),
            "What the client may do.",
        ),
        key(
            "policy",
            Value::Text("`file:PATH`"),
            Default::Absent,
            "A CAM policy in place of `root`, `prefixes` and `actions`: see [Policies](configuration-guide.md#policies).",
        ),
        key(
            "headers",
            Value::Texts("header name"),
            Default::Absent,
            "Request headers that the client may send only because they are listed here.",
        ),
        key(
            "attachment",
            Value::Flag,
            Default::Is("false"),
            "Make browsers save objects (`Content-Disposition: attachment`) and never show them.",
        ),
        table("cors", Value::Tables(&CORS)),
        key(
            "shared",
            Value::Flag,
            Default::Is("false"),
            "Allow another tenant's grant, which must say so too, to cover the same keys.",
        ),
    ],
};

static CORS: ConfigTable = ConfigTable {
    about: "A rule for web pages of other origins, in S3's model: see [Pages of another origin](browser-uploads.md#pages-of-another-origin). The first rule counts that matches the origin, the method and all requested headers.",
    keys: &[
        key(
            "origins",
            Value::Texts("`\"SCHEME://HOST[:PORT]\"`, with one `*`, or `\"*\"`"),
            Default::Computed("required"),
            "Origins of the pages, as browsers write them.",
        ),
        key(
            "methods",
            Value::Texts("`GET`, `PUT`, `POST`, `DELETE` or `HEAD`"),
            Default::Computed("required"),
            "Methods that the pages may use.",
        ),
        key(
            "headers",
            Value::Texts("header name, with one `*`, or `\"*\"`"),
            Default::Absent,
            "Request headers that the pages may set.",
        ),
        key(
            "expose",
            Value::Texts("header name"),
            Default::Absent,
            "Response headers that the pages may read, besides those that cosgate always exposes (`ETag`, `x-amz-*` and others of the response).",
        ),
        key(
            "max_age",
            Value::Duration(Duration::ZERO, DAY),
            Default::Is("1h"),
            "Time for which a browser may keep the response to a preflight.",
        ),
    ],
};

static IDENTITY: ConfigTable = ConfigTable {
    about: "An identity provider whose tokens (JWT) cosgate accepts: see [Identities](configuration-guide.md#identities-and-templates).",
    keys: &[
        key(
            "issuer",
            Value::Text("1 to 512 bytes"),
            Default::Required("\"https://login.example.com/\""),
            "The tokens' `iss`, byte by byte.",
        ),
        key(
            "audience",
            Value::Text("1 to 512 bytes"),
            Default::Required("\"cosgate\""),
            "What the tokens' `aud` must be or contain.",
        ),
        key(
            "jwks",
            Value::Text("URL or `file:PATH`"),
            Default::Required(
                "\"https://login.example.com/.well-known/jwks.json\" or \"file:jwks.json\"",
            ),
            "The provider's public keys. A file is read again when it changes.",
        ),
        key(
            "tenant_claim",
            Value::Text("claim name"),
            Default::Absent,
            "The claim that names a tenant. A token that has it is that tenant's, or is rejected.",
        ),
        key(
            "refresh",
            Value::Duration(Duration::from_secs(10), DAY),
            Default::Is("5m"),
            "How often cosgate fetches the keys from a URL.",
        ),
        key(
            "max_key_age",
            Value::Duration(Duration::from_secs(10), Duration::from_hours(365 * 24)),
            Default::Computed("`24h`, at least twice `refresh`"),
            "How long keys stay valid after they were last fetched. It is at least twice `refresh`.",
        ),
        key(
            "connect_to",
            HOST_AND_PORT,
            Default::Absent,
            "Connect to this address, whatever the URL says.",
        ),
        key(
            "ca_file",
            PATH,
            Default::Absent,
            "PEM file with authorities for the URL. Without it cosgate uses those of the system.",
        ),
    ],
};

static TEMPLATE: ConfigTable = ConfigTable {
    about: "A tenant for each subject of an identity: see [Templates](configuration-guide.md#identities-and-templates). Its `root` and `prefixes` may contain `{claim.NAME}`.",
    keys: &[
        ISSUER_OF,
        key(
            "identity",
            NAME,
            Default::Required("\"NAME\" of an [identities.NAME]"),
            "The identity whose subjects use the template.",
        ),
        ALLOWED_IPS,
        VEND,
        VEND_DURATION,
        NOT_BEFORE,
        REVOKED,
        GRANTS,
        LIMITS,
    ],
};

static CREDENTIALS: ConfigTable = ConfigTable {
    about: "The cache of temporary keys.",
    keys: &[
        key(
            "entries",
            Value::Count(1, 10_000_000),
            Default::Is("10000"),
            "Maximum number of template subjects and session policies whose keys are cached.",
        ),
        key(
            "session_policies",
            Value::Count(1, 10_000_000),
            Default::Is("1000"),
            "Maximum number of session policies of one tenant whose keys are cached: see [Keys for one table](temporary-keys.md#keys-for-one-table).",
        ),
        key(
            "warm",
            Value::Flag,
            Default::Is("false"),
            "Fetch the keys of all tenants, 10 000 at most, at start and for new tenants after a reload. `/readyz` returns 503 until each has been tried once.",
        ),
        table("shared", Value::Table(&SHARED)),
    ],
};

static SHARED: ConfigTable = ConfigTable {
    about: "A Redis through which several cosgates share their temporary keys, and limits if you want: see [Shared keys](configuration-guide.md#shared-keys).",
    keys: &[
        key(
            "redis",
            Value::Secret,
            Default::Required("\"env:NAME\""),
            "`redis://[user:password@]host[:port][/number]`, or `rediss://…` for TLS. With `sentinels` the host is the name of the master.",
        ),
        key(
            "sentinels",
            Value::Texts("host:port"),
            Default::Absent,
            "Redis Sentinels. cosgate finds out from them where the master is, again after each failure. They use TLS if `redis` does, and no password.",
        ),
        key(
            "ca_file",
            PATH,
            Default::Absent,
            "PEM file with authorities for `rediss://`. Without it cosgate uses those of the system.",
        ),
        key(
            "key",
            Value::Secret,
            Default::Required("\"env:NAME\""),
            "Secret of 32 or more characters, the same for all, that seals the entries (`openssl rand -base64 32`).",
        ),
        key(
            "limits",
            Value::Flag,
            Default::Is("false"),
            "The rates of tenants and of templates' subjects hold over all these cosgates together: see [Shared limits](configuration-guide.md#shared-limits).",
        ),
        key(
            "limits_timeout",
            Value::Duration(MILLISECOND, SECOND),
            Default::Is("20ms"),
            "How long a request waits for the Redis at most. After that its own cosgate decides alone.",
        ),
    ],
};
