//! The configuration as checked: what the program may rely on.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::cors::CorsRule;
use super::endpoint::EndpointTemplate;
use super::given_secret::GivenSecret;
use super::log::LogConfig;
use super::named_file::NamedFile;
use super::prefix::PrefixPattern;
use super::raw_policy::RawPolicy;
use super::session_policy::SessionPolicy;
use super::traces::TracesConfig;
use crate::timestamp::Timestamp;

/// The configuration, checked whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[log]`
    pub log: LogConfig,
    /// `[traces]`
    pub traces: TracesConfig,
    /// `[upstream]`
    pub upstream: Upstream,
    /// `[sts]`
    pub sts: Sts,
    /// `[issuers.*]`, in the file's order.
    pub issuers: Vec<Issuer>,
    /// `[identities.*]`, in the file's order.
    pub identities: Vec<IdentityProviderConfig>,
    /// `[tenants.*]`, in the file's order.
    pub tenants: Vec<TenantConfig>,
    /// `[templates.*]`, in the file's order.
    pub templates: Vec<TemplateConfig>,
    /// `[credentials] entries`: scopes of templates and session policies whose keys are kept at once (10 000).
    pub credential_entries: usize,
    /// `[credentials] session_policies`: of them, sessions of one tenant with a policy of their own (1000).
    pub credential_session_policies: usize,
    /// `warm` of `[credentials]`: fetch tenants' keys before requests need them.
    pub credential_warm: bool,
    /// `[credentials.shared]`
    pub credential_shared: Option<SharedCache>,
    /// The other files that it was read from, or that it names.
    pub files: Vec<NamedFile>,
}

/// `[credentials.shared]`: a Redis through which several cosgates share their keys, and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedCache {
    /// `redis`: its URL, which may hold a password. With sentinels its host is the name of the master.
    pub redis: GivenSecret,
    /// `sentinels`: addresses of Redis Sentinels, which know where the master is.
    pub sentinels: Vec<String>,
    /// `ca_file`: whom `rediss://` trusts.
    pub ca_file: Option<PathBuf>,
    /// `key`: what the seal of the entries is made of.
    pub key: GivenSecret,
    /// `limits`: tenants' rates hold over all cosgates together.
    pub limits: bool,
    /// `limits_timeout`: how long a request waits for the Redis (20 ms).
    pub limits_timeout: Duration,
}

/// `[server]`: the side that clients see.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key of the file that stands alone"
)]
pub struct Server {
    /// `listen`
    pub listen: Listen,
    /// `socket_mode`: the rights of a Unix socket's file (0600).
    pub socket_mode: u32,
    /// `admin`; `None` when `""`.
    pub admin: Option<SocketAddr>,
    /// `admin_token`: what the admin pages need; `None`: they need none.
    pub admin_token: Option<GivenSecret>,
    /// `admin_hosts`, lower case: names besides loopback's under which the admin pages are shown;
    /// `None`: not written.
    pub admin_hosts: Option<Vec<String>>,
    /// `domains`, lower case: suffixes of virtual-hosted names.
    pub domains: Vec<String>,
    /// `region`: what the local side calls its region.
    pub region: String,
    /// `strict_region`: refuse other regions in a client's credential scope.
    pub strict_region: bool,
    /// `allow_remote_anonymous`: serve the anonymous tenant on an address that is not loopback.
    pub allow_remote_anonymous: bool,
    /// `allow_plain_bearer`: take tokens on connections that are neither TLS nor loopback.
    pub allow_plain_bearer: bool,
    /// `loopback_is_proxy`: who comes over loopback is never taken for somebody on this machine.
    pub loopback_is_proxy: bool,
    /// `proxy_protocol`: trusted proxies say in front of each connection whose it is.
    pub proxy_protocol: bool,
    /// `trusted_proxies`: whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The same of users of this machine, by number: `unix:NAME` in `trusted_proxies`.
    pub trusted_users: Vec<u32>,
    /// `allow_qsign`: take requests that are signed in COS's own way (default).
    pub allow_qsign: bool,
    /// `allow_sigv2_presign`: take presigned URLs and browser forms of Signature Version 2.
    pub allow_sigv2_presign: bool,
    /// `threads`: one runtime each; default: one a core.
    pub threads: usize,
    /// `max_presign`: the longest life of a presigned URL or browser form, 1 s to 7 days (default).
    pub max_presign: Duration,
    /// `session_secret`, which seals session tokens, and `previous_session_secret`, which opens old
    /// ones; none: no session keys.
    pub session_secrets: Vec<GivenSecret>,
    /// `sessions_not_before`: session keys issued before this time are invalid.
    pub sessions_not_before: Option<Timestamp>,
    /// `ready_requires`: what must be up, besides keys, for cosgate to be ready.
    pub ready_requires: Vec<ReadyPart>,
    /// `tenant_metrics`: so many tenants have metrics of their own.
    pub tenant_metrics: usize,
    /// `reuse_port`: another process may listen on the same address (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// `reload_on_change`: take the files again when they change, without a signal.
    pub reload_on_change: bool,
    /// `max_session`: the longest life of session keys (1 h), 15 minutes to 12 hours.
    pub max_session: Duration,
    /// `[server.tls]`
    pub tls: Option<ServerTls>,
    /// `[server.limits]`
    pub limits: ServerLimits,
}

/// What readiness may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyPart {
    /// `cos`
    Cos,
    /// `sts`
    Sts,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `IP:PORT`
    Tcp(SocketAddr),
    /// `unix:PATH`
    Unix(PathBuf),
}

/// `[server.tls]`
#[derive(Clone, Debug, PartialEq)]
pub struct ServerTls {
    /// `cert`: PEM chain.
    pub cert: PathBuf,
    /// `key`: PEM private key.
    pub key: PathBuf,
    /// `client_ca`: PEM; when set, cosgate requests a client certificate of this authority.
    pub client_ca: Option<PathBuf>,
    /// `client_crl`: PEM; certificates of clients that are on it are refused.
    pub client_crl: Option<PathBuf>,
    /// `client_auth`
    pub client_auth: ClientAuth,
}

/// Whether a client must present a certificate. One that is presented must be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// It may do without.
    Optional,
    /// It must (default).
    Required,
}

/// `[server.limits]`
#[derive(Clone, Debug, PartialEq)]
pub struct ServerLimits {
    /// `head_bytes`: size of a request head (16 KiB).
    pub head_bytes: usize,
    /// `head_fields`: number of header fields (100).
    pub head_fields: usize,
    /// `head_timeout`: a head must arrive within this (10 s).
    pub head_timeout: Duration,
    /// `body_rate`: least bytes a second, averaged over `body_window`, both ways (1 KiB).
    pub body_rate: u64,
    /// `body_window` (60 s).
    pub body_window: Duration,
    /// `idle_timeout`: idle keep-alive (75 s).
    pub idle_timeout: Duration,
    /// `tls_handshake_timeout` (5 s).
    pub tls_handshake_timeout: Duration,
    /// `xml_bytes`: size of an XML body (2 MiB).
    pub xml_bytes: usize,
    /// `connections` at once (16 384).
    pub connections: usize,
    /// `connections_per_address` (an eighth of `connections`); 0: as many as there may be.
    pub connections_per_address: usize,
    /// `stranger_bytes`: what each core holds of requests before it is known who sends them (16 MiB).
    pub stranger_bytes: usize,
    /// `drain_delay`: for this long new connections are accepted after SIGTERM (0 s).
    pub drain_delay: Duration,
    /// `drain_timeout` on SIGTERM (60 s).
    pub drain_timeout: Duration,
    /// `streams`: requests at once on an HTTP/2 connection (128); 0 offers HTTP/1.1 alone.
    pub streams: u32,
    /// `stream_window`: bytes that a stream of HTTP/2 may send ahead (128 KiB).
    pub stream_window: u32,
}

/// `[upstream]`: COS.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// `endpoint`, with `{bucket}` and `{region}`.
    pub endpoint: EndpointTemplate,
    /// `service_endpoint`
    pub service_endpoint: EndpointTemplate,
    /// `signature`
    pub signature: UpstreamSignature,
    /// `connect_to`: dial this `host:port` whatever the endpoint says.
    pub connect_to: Option<String>,
    /// `ca_file`: PEM roots in place of the platform's.
    pub ca_file: Option<PathBuf>,
    /// `stored_check`
    pub stored_check: StoredCheck,
    /// `spool_unknown_length`: hold uploads of unknown length up to this size and send them with one;
    /// 0 refuses them.
    pub spool_unknown_length: usize,
    /// `[upstream.limits]`
    pub limits: UpstreamLimits,
}

/// How an upload is compared with what COS reports it stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredCheck {
    /// By `x-cos-hash-crc64ecma`; the `ETag` too, where the client sent a `Content-MD5`.
    Crc64Ecma,
    /// By the MD5 in the `ETag`, for stores that report no CRC. It costs much more.
    Md5,
    /// Not at all.
    Off,
}

/// The signature scheme toward COS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamSignature {
    /// COS native: `q-sign-algorithm=sha1` with `x-cos-security-token`.
    Cos,
    /// AWS SigV4 with `x-amz-security-token`.
    S3,
}

/// `[upstream.limits]`
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamLimits {
    /// `connect_timeout` (3 s).
    pub connect_timeout: Duration,
    /// `tls_handshake_timeout` (5 s).
    pub tls_handshake_timeout: Duration,
    /// `head_timeout`: from the request's last byte to the response's head (30 s).
    pub head_timeout: Duration,
    /// `idle_timeout`: idle keep-alive (50 s).
    pub idle_timeout: Duration,
    /// `idle_connections` kept for each thread and host (256).
    pub idle_connections: usize,
}

/// `[sts]`
#[derive(Clone, Debug, PartialEq)]
pub struct Sts {
    /// `endpoint`
    pub endpoint: EndpointTemplate,
    /// `region`: the `X-TC-Region` header.
    pub region: String,
    /// `connect_to`
    pub connect_to: Option<String>,
    /// `ca_file`
    pub ca_file: Option<PathBuf>,
    /// `[sts.limits] timeout`: one call, connect to last byte (5 s).
    pub timeout: Duration,
    /// `[sts.limits] answer_bytes` (64 KiB).
    pub answer_bytes: usize,
}

/// How often an issuer calls STS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallRate {
    /// `calls_per_second` on average (100; 15 for web identities).
    pub per_second: u32,
    /// `burst`: calls at once after a pause (200; 15 for web identities).
    pub burst: u32,
}

/// `[tenants.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct TenantConfig {
    /// NAME
    pub name: String,
    /// Index into [`Config::issuers`].
    pub issuer: usize,
    /// `access_keys`
    pub access_keys: Vec<AccessKey>,
    /// `anonymous`
    pub anonymous: bool,
    /// `client_certs`, `require_client_cert`, `unix_users`, `allowed_ips`
    pub admission: Admission,
    /// `identity`: index into [`Config::identities`] of the one whose tokens may name this tenant.
    pub identity: Option<usize>,
    /// `[[tenants.NAME.grants]]`
    pub grants: Vec<Grant>,
    /// `[tenants.NAME.limits]`
    pub limits: TenantLimits,
    /// `vend`: its clients may have temporary keys themselves.
    pub vend: Option<Vend>,
    /// `sessions_not_before`, `revoked_sessions`
    pub revoked: RevokedSessions,
}

/// What belongs to `vend = true`.
#[derive(Clone, Debug, PartialEq)]
pub struct Vend {
    /// `vend_tokens`: who sends one of these gets a key.
    pub tokens: Vec<GivenSecret>,
    /// `vend_duration`: how long the keys live at most (1 h), 30 minutes to 12 hours.
    pub duration: Duration,
}

/// `[identities.NAME]`: who makes tokens that are believed here.
#[derive(Clone, Debug, PartialEq)]
pub struct IdentityProviderConfig {
    /// NAME
    pub name: String,
    /// `issuer`: the tokens' `iss`.
    pub issuer: String,
    /// `audience`: what the tokens' `aud` must hold.
    pub audience: String,
    /// `jwks`
    pub jwks: Jwks,
    /// `max_key_age` (24 h): how long the keys count after they were last read.
    pub max_key_age: Duration,
    /// `tenant_claim`: the claim that names a tenant.
    pub tenant_claim: Option<String>,
}

/// Where the keys of an [`IdentityProviderConfig`] are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Jwks {
    /// `file:PATH`, read again when it changes.
    File(PathBuf),
    /// A URL.
    Url {
        /// Scheme, authority and path.
        endpoint: EndpointTemplate,
        /// `connect_to`
        connect_to: Option<String>,
        /// `ca_file`
        ca_file: Option<PathBuf>,
        /// `refresh` (5 m)
        refresh: Duration,
    },
}

/// `[templates.NAME]`: a tenant for each subject of an identity provider.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateConfig {
    /// NAME
    pub name: String,
    /// Index into [`Config::issuers`].
    pub issuer: usize,
    /// Index into [`Config::identities`].
    pub identity: usize,
    /// `[[templates.NAME.grants]]`; `{claim.NAME}` stands in prefixes for what the token states.
    pub grants: Vec<Grant>,
    /// `vend`: its subjects may have temporary keys themselves.
    pub vend: Option<Vend>,
    /// `allowed_ips`; empty: from anywhere.
    pub allowed_ips: Vec<IpNet>,
    /// `[templates.NAME.limits]`: of each subject.
    pub limits: TenantLimits,
    /// `sessions_not_before`, `revoked_sessions`
    pub revoked: RevokedSessions,
}

/// How else than by a key a tenant is known, and from where it may call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admission {
    /// `client_certs`: who shows one of these and nothing else is this tenant.
    pub client_certs: Vec<CertificateName>,
    /// `require_client_cert`: a caller with another proof must present one of these certificates too.
    pub require_client_cert: bool,
    /// `unix_users`, by number: who comes as one of these by the Unix socket, and shows nothing else,
    /// is this tenant.
    pub unix_users: Vec<u32>,
    /// `allowed_ips`; empty: from anywhere.
    pub allowed_ips: Vec<IpNet>,
}

/// Which session keys of a tenant or a template count no more: those that were given before a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevokedSessions {
    /// `sessions_not_before`: of everybody.
    pub before: Option<Timestamp>,
    /// `revoked_sessions`: of these subjects of tokens.
    pub subjects: Vec<(String, Timestamp)>,
}

/// A name that a certificate has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// `subject:CN=…`: the subject's only common name.
    CommonName(String),
    /// `san:dns:…`, lower case.
    Dns(String),
    /// `san:uri:…`
    Uri(String),
}

/// One of a tenant's local keys.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessKey {
    /// `id`
    pub id: String,
    /// `secret`
    pub secret: GivenSecret,
    /// `not_after`: what it signs is refused after this time.
    pub not_after: Option<Timestamp>,
}

/// What a tenant sees as one bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// `name`: the alias that the client uses.
    pub name: String,
    /// `bucket`: the real one, APPID included.
    pub bucket: String,
    /// `region`
    pub region: String,
    /// `root`: what stands before every key in the real bucket, `folder/`; empty for none.
    pub root: String,
    /// `prefixes`, parsed: below the root, as the client names keys.
    pub prefixes: Vec<PrefixPattern>,
    /// `actions`, presets unfolded: COS names, `name/cos:GetObject`, sorted, each once.
    pub actions: Vec<String>,
    /// `headers`: lower-case names of request headers that need a grant by name.
    pub headers: Vec<String>,
    /// `policy`: what the grant is in place of `prefixes` and `actions`, which hold all that it is about.
    pub policy: Option<Arc<RawPolicy>>,
    /// `attachment`: browsers save its objects, and never show them.
    pub attachment: bool,
    /// `cors`: which pages of other origins may use it.
    pub cors: Arc<[CorsRule]>,
    /// What a session is narrowed to, within all the rest. No file says it: the session's token does.
    pub session: Option<Arc<SessionPolicy>>,
}

/// `[issuers.NAME]`: a CAM identity from which temporary keys come.
#[derive(Clone, Debug, PartialEq)]
pub struct Issuer {
    /// NAME
    pub name: String,
    /// `kind` and what belongs to it.
    pub kind: IssuerKind,
    /// `calls_per_second`, `burst`
    pub rate: CallRate,
}

/// How an issuer makes keys.
#[derive(Clone, Debug, PartialEq)]
pub enum IssuerKind {
    /// `AssumeRole`
    AssumeRole {
        /// The key that signs the calls.
        base: BaseKey,
        /// The role that is assumed.
        role: Role,
    },
    /// `GetFederationToken`
    Federation {
        /// The key that signs the calls: a permanent one.
        base: BaseKey,
        /// `duration`
        duration: Duration,
    },
    /// The issuer's own key is used as it is.
    Static(GivenKey),
    /// `AssumeRoleWithWebIdentity`, which nobody signs and no policy narrows.
    WebIdentity(WebIdentity),
}

impl IssuerKind {
    /// The requested life of keys; `None` for an issuer that calls no STS.
    pub fn duration(&self) -> Option<Duration> {
        match self {
            Self::AssumeRole { role, .. } => Some(role.duration),
            Self::Federation { duration, .. } => Some(*duration),
            Self::Static(_) => None,
            Self::WebIdentity(web) => Some(web.duration),
        }
    }
}

/// Where the key comes from that an issuer signs its calls with.
#[derive(Clone, Debug, PartialEq)]
pub enum BaseKey {
    /// `command`: a program that prints a key.
    Command(KeyCommand),
    /// `cvm_role`: the role of the machine, from its metadata service.
    CvmRole {
        /// `cvm_role`
        name: String,
        /// `metadata_endpoint`, plain HTTP.
        endpoint: EndpointTemplate,
    },
    /// `secret_id`, `secret_key` and `token`.
    Given(GivenKey),
    /// `base`: index into [`super::Config::issuers`] of the issuer that makes it.
    Issuer(usize),
    /// `profile` of a profile file.
    Profile {
        /// `profile`
        name: String,
        /// The file that has it.
        file: PathBuf,
    },
}

/// A program that prints a key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyCommand {
    /// `command`: the program and its arguments.
    pub words: Vec<String>,
    /// The variables of cosgate's environment that it gets: the listed names and `command_env`.
    pub env: Vec<String>,
}

/// `secret_id`, `secret_key` and `token`.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenKey {
    /// `secret_id`
    pub secret_id: GivenSecret,
    /// `secret_key`
    pub secret_key: GivenSecret,
    /// `token`; the key is a temporary one.
    pub token: Option<GivenSecret>,
}

/// What `AssumeRole` requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Role {
    /// `role_arn`
    pub arn: String,
    /// `session_name`, with `{tenant}` in it (default) or without.
    pub session_name: String,
    /// `external_id`
    pub external_id: Option<String>,
    /// `tags`: keys and values.
    pub tags: Vec<(String, String)>,
    /// `source_identity`
    pub source_identity: Option<String>,
    /// `duration` (2 h), 1 s to 12 h.
    pub duration: Duration,
}

/// What `AssumeRoleWithWebIdentity` requests.
#[derive(Clone, Debug, PartialEq)]
pub struct WebIdentity {
    /// `provider_id`
    pub provider_id: String,
    /// `token_file`, read at each call.
    pub token_file: PathBuf,
    /// `role_arn`
    pub role_arn: String,
    /// `session_name`, as that of [`Role`].
    pub session_name: String,
    /// `duration` (2 h), 1 s to 12 h.
    pub duration: Duration,
}

/// `[tenants.NAME.limits]`: each `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
    /// `requests_per_second`
    pub requests_per_second: Option<u64>,
    /// `burst`: how many requests may come at once after a rest; one second's if not written.
    pub burst: Option<u64>,
    /// `concurrent_requests`
    pub concurrent_requests: Option<u64>,
    /// `upload_rate`: bytes a second.
    pub upload_rate: Option<u64>,
    /// `download_rate`: bytes a second.
    pub download_rate: Option<u64>,
    /// `object_size`: bytes of one object or part as it is uploaded.
    pub object_size: Option<u64>,
}

impl Listen {
    /// Whether only processes of this machine can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommonName(name) => write!(f, "subject:CN={name}"),
            Self::Dns(name) => write!(f, "san:dns:{name}"),
            Self::Uri(uri) => write!(f, "san:uri:{uri}"),
        }
    }
}
