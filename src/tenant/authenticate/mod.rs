//! Authentication: one file for each kind of proof, and a tenant's other requirements of its callers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName};

use super::Tenant;
use super::cors::CorsRules;
use super::identity_provider::{IdentityProvider, KeyState};
use super::jwk::KeySet;
use super::session::SessionSeal;
use super::shared_rate::RateStore;
use super::template::Template;
use super::vend::{self, TokenHash};
use crate::config::{CertificateName, Config, RevokedSessions};
use crate::encoding::percent::percent_decode;
use crate::error::{Code, S3Error};
use crate::payload::{ChunkSignatures, Mode};
use crate::s3::headers::values_of;
use crate::s3::{S3Request, native};
use crate::secret::Secret;
use crate::sign::sigv4::{CONTENT_SHA256, SigV4Claim};
use crate::sign::{one_mechanism, sigv2};
use crate::timestamp::Timestamp;

mod admission;
mod anonymous;
mod bearer;
mod local_key;
mod qsign;
mod remembered;
mod session;
mod sigv2_url;
mod sigv4;
mod source;
mod strangers;

use admission::Admissions;
pub use admission::Caller;
pub use admission::Certified;
use anonymous::AnonymousRule;
use bearer::Proof;
pub(crate) use bearer::{bearer_token, may_need_newer_keys};
pub(super) use local_key::LocalKey;
pub(super) use qsign::qsign_covers;
use remembered::Remembered;
pub(super) use session::OpenSession;
pub(crate) use session::SignedCall;
use session::{SECURITY_TOKEN, not_ours, session_token};
pub(super) use sigv4::SERVICE;
pub use source::Network;
pub use source::Source;
use strangers::Strangers;

/// How far a client's clock may be from ours, in seconds: AWS's and COS's 15 minutes.
pub(super) const MAX_SKEW: i64 = 900;

/// Spans from now, each with its name, within which local keys are counted that end.
pub(crate) const KEY_ENDS: [(&str, i64); 3] =
    [("1d", 86_400), ("7d", 7 * 86_400), ("30d", 30 * 86_400)];

/// Local keys with a `not_after`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndingKeys {
    /// Those past it.
    pub ended: u64,
    /// Those that will be, within each of [`KEY_ENDS`].
    pub within: [u64; KEY_ENDS.len()],
}

/// All tenants and their local keys. Immutable once made, but for the signing keys it has at hand.
#[derive(Debug)]
pub struct Tenants {
    pub(super) all: Vec<Arc<Tenant>>,
    pub(super) keys: HashMap<String, LocalKey>,
    /// Stands in for a key that nobody has, so that an unknown id takes the path of a known one.
    pub(super) nobody: LocalKey,
    anonymous: AnonymousRule,
    cors: CorsRules,
    admissions: Admissions,
    identities: Vec<IdentityProvider>,
    /// For each identity, the tenants by name that its tokens may name.
    trusting: Vec<HashMap<String, usize>>,
    /// Each with the index of its identity.
    templates: Vec<(usize, Template)>,
    /// For each authorization token that gets a temporary key, the tenant.
    pub(super) vend_tokens: HashMap<TokenHash, usize>,
    proofs: Remembered<Proof>,
    strangers: Arc<Strangers>,
    seal: SessionSeal,
    sessions: Remembered<OpenSession>,
    /// By the tenant's index, templates after tenants.
    revoked: Vec<RevokedSessions>,
    revoked_of_all: RevokedSessions,
    /// How long session keys live at most.
    max_session: Duration,
    /// Tokens may come over plain HTTP from elsewhere.
    allow_plain_bearer: bool,
    /// The only region taken, under `strict_region`.
    region: Option<String>,
    /// The longest life of a presigned URL, in seconds.
    pub(super) max_presign: u64,
    allow_qsign: bool,
    pub(super) allow_sigv2_presign: bool,
}

/// A caller that has proved who they are.
#[derive(Clone, Debug)]
pub struct Authenticated {
    tenant: Arc<Tenant>,
    identity: Identity,
    payload: Mode,
    /// Boxed, so that a caller is small: few bodies have them.
    chunks: Option<Box<ChunkSignatures>>,
}

/// A caller whose proof is good. It may do nothing yet: only [`Tenants::admit`] makes an
/// [`Authenticated`] of it.
#[derive(Debug)]
pub(crate) struct Identified(pub(super) Authenticated);

/// By what a caller is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The anonymous tenant.
    Anonymous,
    /// Nobody has proved anything: `cosgate explain` takes the tenant at its word.
    Assumed,
    /// A token of an identity provider, about this subject.
    Bearer(Arc<str>),
    /// A client certificate of this name.
    Certificate(Arc<str>),
    /// A form whose policy is signed with this local key id.
    Form(Arc<str>),
    /// A SigV4 `Authorization` header under this local key id.
    Header(Arc<str>),
    /// A presigned URL under this local key id.
    Presigned(Arc<str>),
    /// A presigned URL of Signature Version 2 under this local key id.
    PresignedV2(Arc<str>),
    /// COS's own signature in an `Authorization` header, under this local key id.
    Qsign(Arc<str>),
    /// SigV4 or COS's own signature, in a header or a URL, under a session key.
    Session {
        /// The key's id.
        key_id: Arc<str>,
        /// Whom the identity provider names, if the key was got with a token.
        subject: Option<Arc<str>>,
        /// The local key that the key was got with, if it was not a token.
        access_key: Option<Arc<str>>,
    },
    /// The user of this machine who has this number.
    Unix(u32),
    /// An authorization token for temporary keys, and for nothing else.
    VendToken,
}

/// What is known of the connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The listener's and the peer's addresses are both loopback, and no proxy stands between.
    pub loopback: bool,
    /// The connection is TLS.
    pub tls: bool,
    /// Its certificate, and whom that names.
    pub certificate: Option<Certified>,
    /// Who came by a Unix socket, if no proxy stands between.
    pub user: Option<UnixUser>,
    /// The client's address, proxies that are trusted left out; nobody has one on a Unix socket.
    pub address: Option<IpAddr>,
}

impl Connection {
    /// Whether nobody else can read what passes on it.
    fn is_private(&self) -> bool {
        self.tls || self.loopback || self.user.is_some()
    }
}

/// The other end of a connection, or the client that a trusted proxy says it is (PROXY protocol).
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    /// Its address.
    Tcp(SocketAddr),
    /// Whom the kernel says it is.
    Unix(UnixUser),
    /// Somebody whose connection a trusted proxy passes on without a name for them.
    Unnamed,
}

/// A user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixUser {
    /// Its number.
    pub uid: u32,
    /// It is the one that runs cosgate.
    pub is_own: bool,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(user) => write!(f, "the user {}", user.uid),
            Self::Unnamed => f.write_str("a client that its proxy does not name"),
        }
    }
}

impl Tenants {
    /// The tenants of the configuration, which has made sure that no two share a key id.
    pub fn new(config: &Config) -> Self {
        Self::made(config, None, None)
    }

    /// The same, where replicas share the rates of tenants through `store`.
    pub fn sharing(config: &Config, store: Option<&Arc<dyn RateStore>>) -> Self {
        Self::made(config, None, store)
    }

    /// The same after a reload: what `old` counts goes on counting, and the keys of identity providers
    /// that are the same are there.
    pub fn succeeding(config: &Config, old: &Self, store: Option<&Arc<dyn RateStore>>) -> Self {
        Self::made(config, Some(old), store)
    }

    fn made(config: &Config, old: Option<&Self>, store: Option<&Arc<dyn RateStore>>) -> Self {
        let tenants = config.tenants.iter().enumerate();
        let keys = tenants.flat_map(|(index, tenant)| {
            tenant.access_keys.iter().map(move |key| {
                (
                    key.id.clone(),
                    LocalKey::new(&key.id, index, key.secret.value.clone()).until(key.not_after),
                )
            })
        });
        let old_strangers = old.map(|old| Arc::clone(&old.strangers));
        Self {
            keys: keys.collect(),
            all: tenants_of(config, old, store),
            nobody: LocalKey::new("", usize::MAX, Secret::new("")),
            anonymous: AnonymousRule::new(config),
            cors: CorsRules::new(config),
            admissions: Admissions::new(config),
            identities: identities_of(config, old),
            trusting: trusting(config),
            templates: templates_of(config, old, store),
            vend_tokens: vend::tokens(config),
            proofs: Remembered::new(),
            strangers: old_strangers.unwrap_or_default(),
            seal: SessionSeal::new(
                config
                    .server
                    .session_secrets
                    .iter()
                    .map(|secret| &secret.value),
            ),
            sessions: Remembered::new(),
            revoked: (config.tenants.iter().map(|tenant| &tenant.revoked))
                .chain(config.templates.iter().map(|template| &template.revoked))
                .cloned()
                .collect(),
            revoked_of_all: RevokedSessions {
                before: config.server.sessions_not_before,
                ..RevokedSessions::default()
            },
            max_session: config.server.max_session,
            allow_plain_bearer: config.server.allow_plain_bearer,
            region: config
                .server
                .strict_region
                .then(|| config.server.region.clone()),
            max_presign: config.server.max_presign.as_secs(),
            allow_qsign: config.server.allow_qsign,
            allow_sigv2_presign: config.server.allow_sigv2_presign,
        }
    }

    /// All tenants, in the configuration's order.
    pub fn tenants(&self) -> &[Arc<Tenant>] {
        &self.all
    }

    /// Which pages of other origins may use a bucket.
    pub fn cors(&self) -> &CorsRules {
        &self.cors
    }

    /// The tenant of this name: one of the configuration, or a template's (`web/alice`), whose name has
    /// the values of its claims.
    pub fn named(&self, name: &str) -> Option<Arc<Tenant>> {
        if let Some(tenant) = self.all.iter().find(|tenant| tenant.name == name) {
            return Some(Arc::clone(tenant));
        }
        let (template, values) = name.split_once('/')?;
        let mut templates = self.templates.iter().map(|(_, template)| template);
        let template = templates.find(|known| known.name() == template)?;
        template.of_values(values).map(Arc::new)
    }

    /// How many local keys have ended at `now`, and how many end within each of [`KEY_ENDS`] from then.
    pub fn ending_keys(&self, now: Timestamp) -> EndingKeys {
        let mut counts = EndingKeys::default();
        for end in self.keys.values().filter_map(|key| key.not_after) {
            if now > end {
                counts.ended += 1;
                continue;
            }
            for (count, (_, seconds)) in counts.within.iter_mut().zip(KEY_ENDS) {
                *count += u64::from(end.since(now) <= seconds);
            }
        }
        counts
    }

    /// The keys that are in use of the identity provider at `index` were read at `now`.
    pub(crate) fn confirm_keys(&self, index: usize, now: Timestamp) {
        if let Some(identity) = self.identities.get(index) {
            identity.confirm_keys(now);
        }
    }

    /// The keys of the identity provider at `index` could not be read.
    pub(crate) fn miss_keys(&self, index: usize) {
        if let Some(identity) = self.identities.get(index) {
            identity.miss_keys();
        }
    }

    /// How things stand with the keys of each identity provider at `now`.
    pub fn key_states(&self, now: Timestamp) -> Vec<KeyState> {
        let all = self.identities.iter();
        all.map(|identity| identity.key_state(now)).collect()
    }

    /// From now on the tokens of the identity provider at `index` are checked with `keys` alone. They
    /// count once [`Tenants::confirm_keys`] has set when they were read.
    pub(crate) fn replace_keys(&self, index: usize, keys: KeySet) {
        if let Some(identity) = self.identities.get(index) {
            identity.replace_keys(keys);
        }
    }

    /// Both steps of finding the caller: [`Tenants::identify`] and [`Tenants::admit`].
    pub fn authenticate(
        &self,
        head: &Parts,
        requested: &S3Request<'_>,
        connection: Connection,
        now: Timestamp,
    ) -> Result<Authenticated, S3Error> {
        let caller = self.identify(head, requested, connection, now)?;
        self.admit(caller, connection, now)
    }

    /// Takes `head` for one that `tenant` has signed well: for `cosgate explain`, which has no signature and
    /// sends nothing.
    pub fn assume(&self, tenant: &Arc<Tenant>, head: &Parts) -> Result<Authenticated, S3Error> {
        let payload = if native::is_native(head) {
            self.check_native_allowed()?;
            Mode::Unsigned
        } else {
            payload_mode(&head.headers)?
        };
        Ok(Authenticated::new(tenant, Identity::Assumed, payload))
    }

    /// Finds out who sent `head`, which is as it came, and `requested`, which is in S3's terms. `now` is the
    /// local clock.
    ///
    /// Any mark of a signature makes the request one that must be signed well: nothing falls back
    /// from a failed signature to the anonymous tenant.
    pub(crate) fn identify(
        &self,
        head: &Parts,
        requested: &S3Request<'_>,
        connection: Connection,
        now: Timestamp,
    ) -> Result<Identified, S3Error> {
        let caller = self.choose_tenant(head, requested, connection, now);
        caller.map(Identified)
    }

    /// Checks a caller with a valid proof against its tenant's other requirements: a certificate, an address.
    pub(crate) fn admit(
        &self,
        Identified(caller): Identified,
        connection: Connection,
        now: Timestamp,
    ) -> Result<Authenticated, S3Error> {
        self.admissions.check(&caller, connection, now)?;
        Ok(caller)
    }

    /// Whom a connection's certificate with these names is; it counts until `not_after`.
    pub fn certified(&self, names: &[CertificateName], not_after: Timestamp) -> Certified {
        self.admissions.certified(names, not_after)
    }

    /// Where a request with `headers` comes from, on a connection with `peer`.
    pub fn caller(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, S3Error> {
        self.admissions.caller(headers, peer)
    }

    /// Counts a request on `connection` that ended before its caller was identified.
    pub(crate) fn count_unfinished(&self, connection: Connection, now: Timestamp) {
        self.strangers.fail(connection.source(), now);
    }

    /// Whether so many proofs from the source of `connection` have failed that none is checked now.
    pub(crate) fn fails_too_often(&self, connection: Connection, now: Timestamp) -> bool {
        self.strangers.wait(connection.source(), now).is_some()
    }

    /// Whether `peer` speaks for others.
    pub(crate) fn is_trusted_proxy(&self, peer: Peer) -> bool {
        self.admissions.is_proxy(peer)
    }

    /// Chooses the tenant by the first proof in the request: COS's own signature, a bearer token, SigV4, a URL of
    /// version 2, and at last the connection.
    fn choose_tenant(
        &self,
        head: &Parts,
        requested: &S3Request<'_>,
        connection: Connection,
        now: Timestamp,
    ) -> Result<Authenticated, S3Error> {
        let query = requested.query.pairs();
        let in_query = SigV4Claim::is_in_query(query) || sigv2::SigV2Claim::is_in_query(query);
        let has_header = head.headers.contains_key(AUTHORIZATION);
        if in_query && has_header {
            return Err(one_mechanism());
        }
        if native::is_native(head) {
            if in_query || (native::is_presigned(head) && has_header) {
                return Err(one_mechanism());
            }
            return self.native(head, now);
        }
        let session = session_token(&SECURITY_TOKEN, &head.headers, query)?;
        if session.is_some() && !SigV4Claim::is_in_query(query) && !is_signed(&head.headers) {
            return Err(not_ours()); // a token alone is no signature
        }
        let session = session.map(|token| self.session(token, now)).transpose()?;
        let session = session.as_deref();
        if let Some(token) = bearer_token(&head.headers) {
            return self.bearer(token, head, connection, now);
        }
        if let Some(claim) = SigV4Claim::from_headers(&head.headers)? {
            return self.signed(head, requested, &claim, session, now);
        }
        if sigv2::SigV2Claim::is_in_query(query) && !self.allow_sigv2_presign {
            return Err(S3Error::new(
                Code::InvalidRequest,
                "The authorization mechanism you have provided is not supported. Please use \
                 AWS4-HMAC-SHA256, or ask the operator to set [server] allow_sigv2_presign = true.",
            ));
        }
        if let Some(claim) = sigv2::SigV2Claim::from_query(query, &head.headers)? {
            return self.presigned_v2(head, requested, &claim, now);
        }
        if let Some(claim) = SigV4Claim::from_query(query, &head.headers)? {
            return self.signed(head, requested, &claim, session, now);
        }
        let (tenant, identity) = self.unsigned(head, requested, connection, now)?;
        if requested
            .query
            .iter()
            .any(|(name, _)| name.starts_with("response-"))
        {
            // A link could else make a page of any object.
            return Err(S3Error::new(
                Code::InvalidRequest,
                "Request specific response headers cannot be used for anonymous GET requests.",
            ));
        }
        let payload = payload_mode(&head.headers)?;
        Ok(Authenticated::new(tenant, identity, payload))
    }

    /// Whose a request without any proof of its own is: the tenant's that the connection's certificate
    /// names, or the peer's user, or else the anonymous one's.
    pub(super) fn unsigned(
        &self,
        head: &Parts,
        requested: &S3Request<'_>,
        connection: Connection,
        now: Timestamp,
    ) -> Result<(&Arc<Tenant>, Identity), S3Error> {
        let bucket = requested.bucket.as_deref();
        let of = |index| self.all.get(index).ok_or_else(unknown_key);
        let certified = self.admissions.named(connection, now);
        Ok(if let Some((name, tenant)) = certified {
            let tenant = of(tenant)?;
            anonymous::refuse_page(head, bucket, tenant, true)?; // browsers have certificates too
            (tenant, Identity::Certificate(Arc::clone(name)))
        } else if let Some((uid, tenant)) = self.admissions.user(connection) {
            let tenant = of(tenant)?;
            // Something on this machine may pass on what a page requests.
            anonymous::refuse_page(head, bucket, tenant, true)?;
            (tenant, Identity::Unix(uid))
        } else {
            let tenant = self.anonymous.check(&head.headers, connection);
            let tenant = tenant.and_then(|tenant| {
                let tenant = of(tenant)?;
                anonymous::refuse_page(head, bucket, tenant, false)?;
                Ok(tenant)
            });
            let tenant = tenant.map_err(|error| match connection.certificate {
                Some(certificate) => certificate.unknown(now),
                None => error,
            });
            (tenant?, Identity::Anonymous)
        })
    }
}

impl Authenticated {
    /// A caller whose body has no chunk signatures.
    pub(super) fn new(tenant: &Arc<Tenant>, identity: Identity, payload: Mode) -> Self {
        Self {
            tenant: Arc::clone(tenant),
            identity,
            payload,
            chunks: None,
        }
    }

    /// Whose request it is.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    fn share_tenant(&self) -> Arc<Tenant> {
        Arc::clone(&self.tenant)
    }

    /// By what the caller is known.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the client declared of its body, and so what must be checked while it streams.
    pub fn payload(&self) -> Mode {
        self.payload
    }

    /// Whether the chunks of the body can have signatures: their chain starts at the head's.
    pub(crate) fn can_sign_chunks(&self) -> bool {
        self.chunks.is_some() || self.identity == Identity::Assumed
    }

    /// The chain of chunk signatures, where the body has one.
    pub(crate) fn chunk_signatures(&self) -> Option<&ChunkSignatures> {
        self.chunks.as_deref()
    }
}

impl Identified {
    /// Whose request it is.
    pub(crate) fn share_tenant(&self) -> Arc<Tenant> {
        self.0.share_tenant()
    }

    /// By what the caller is known.
    pub(crate) fn identity(&self) -> &Identity {
        self.0.identity()
    }
}

/// The tenants of `config`; `old` are those before a reload.
fn tenants_of(
    config: &Config,
    old: Option<&Tenants>,
    store: Option<&Arc<dyn RateStore>>,
) -> Vec<Arc<Tenant>> {
    let known = old.into_iter().flat_map(|old| &old.all);
    let known: HashMap<&str, &Tenant> = known.map(|old| (old.name.as_str(), &**old)).collect();
    let tenants = config.tenants.iter().enumerate();
    let made = tenants.map(|(index, tenant)| {
        let old = known.get(tenant.name.as_str()).copied();
        Arc::new(Tenant::new(index, tenant, old, store))
    });
    made.collect()
}

/// The same of the templates, each with the index of its identity.
fn templates_of(
    config: &Config,
    old: Option<&Tenants>,
    store: Option<&Arc<dyn RateStore>>,
) -> Vec<(usize, Template)> {
    let first = config.tenants.len();
    let templates = config.templates.iter().enumerate();
    let made = templates.map(|(index, template)| {
        let mut known = old.into_iter().flat_map(|old| &old.templates);
        let old = known.find(|(_, old)| old.name() == template.name);
        let old = old.map(|(_, old)| old);
        let made = Template::new(first + index, template, old, store);
        (template.identity, made)
    });
    made.collect()
}

/// The same of the identity providers.
fn identities_of(config: &Config, old: Option<&Tenants>) -> Vec<IdentityProvider> {
    let identities = config.identities.iter();
    let made = identities.map(|identity| {
        let mut known = old.into_iter().flat_map(|old| &old.identities);
        let old = known.find(|old| old.name() == identity.name);
        IdentityProvider::succeeding(identity, old)
    });
    made.collect()
}

/// For each identity, the tenants that say that its tokens may name them.
fn trusting(config: &Config) -> Vec<HashMap<String, usize>> {
    let mut trusting = vec![HashMap::new(); config.identities.len()];
    for (index, tenant) in config.tenants.iter().enumerate() {
        if let Some(names) = tenant
            .identity
            .and_then(|identity| trusting.get_mut(identity))
        {
            names.insert(tenant.name.clone(), index);
        }
    }
    trusting
}

impl Identity {
    /// What kind it is, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Assumed => "assumed",
            Self::Bearer(_) => "bearer",
            Self::Certificate(_) => "certificate",
            Self::Form(_) => "form",
            Self::Header(_) => "sigv4",
            Self::Presigned(_) => "presigned",
            Self::PresignedV2(_) => "sigv2",
            Self::Qsign(_) => "q-sign",
            Self::Session { .. } => "session",
            Self::Unix(_) => "unix",
            Self::VendToken => "vend-token",
        }
    }

    /// The id of the local key, or the certificate's name.
    pub fn key_id(&self) -> Option<&Arc<str>> {
        match self {
            Self::Anonymous | Self::Assumed | Self::Bearer(_) | Self::Unix(_) | Self::VendToken => {
                None
            }
            Self::Certificate(id)
            | Self::Form(id)
            | Self::Header(id)
            | Self::Presigned(id)
            | Self::PresignedV2(id)
            | Self::Qsign(id)
            | Self::Session { key_id: id, .. } => Some(id),
        }
    }

    /// The local key that a session key was got with.
    pub fn access_key(&self) -> Option<&Arc<str>> {
        match self {
            Self::Session { access_key, .. } => access_key.as_ref(),
            _ => None,
        }
    }

    /// Whom the identity provider says it is.
    pub fn subject(&self) -> Option<&Arc<str>> {
        match self {
            Self::Bearer(subject) => Some(subject),
            Self::Session { subject, .. } => subject.as_ref(),
            Self::Anonymous
            | Self::Assumed
            | Self::Certificate(_)
            | Self::Form(_)
            | Self::Header(_)
            | Self::Presigned(_)
            | Self::PresignedV2(_)
            | Self::Qsign(_)
            | Self::Unix(_)
            | Self::VendToken => None,
        }
    }
}

/// Whether there is an `Authorization` header of another kind than a bearer's.
fn is_signed(headers: &HeaderMap) -> bool {
    headers.contains_key(AUTHORIZATION) && bearer_token(headers).is_none()
}

/// `x-amz-content-sha256`: absent, or one visible value.
fn content_sha256(headers: &HeaderMap) -> Result<Option<&str>, S3Error> {
    const NAME: HeaderName = HeaderName::from_static(CONTENT_SHA256);
    let mut values = values_of(headers, NAME);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match (value.to_str(), values.next()) {
        (Ok(value), None) => Ok(Some(value)),
        _ => Err(S3Error::new(
            Code::InvalidArgument,
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD or a SHA-256 in lower-case hex, once",
        )),
    }
}

/// What `x-amz-content-sha256` says of the body, where no signature covers it.
fn payload_mode(headers: &HeaderMap) -> Result<Mode, S3Error> {
    content_sha256(headers)?.map_or(Ok(Mode::Unsigned), Mode::parse)
}

fn decoded_path(head: &Parts) -> Result<Cow<'_, [u8]>, S3Error> {
    percent_decode(head.uri.path())
        .ok_or_else(|| S3Error::new(Code::InvalidURI, "The path has a % without two hex digits"))
}

pub(super) fn wrong_signature() -> S3Error {
    S3Error::new(
        Code::SignatureDoesNotMatch,
        "The request signature we calculated does not match the signature you provided. \
         Check your secret key, and that nothing between changes the path, query or headers.",
    )
}

pub(super) fn unknown_key() -> S3Error {
    S3Error::new(
        Code::InvalidAccessKeyId,
        "The AWS Access Key Id you provided does not exist in our records. Use a local access \
         key, which the operator gives you, not a key of Tencent Cloud.",
    )
}
