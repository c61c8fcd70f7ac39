//! An issuer at work: one HTTPS call to STS for one key.

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::DATE;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::base::{Base, Fetched, Source, Watched, read_profile, read_text};
use super::get_credential::Options;
use super::is_visible;
use super::key_document::CallerKey;
use super::metadata::Metadata;
use super::sts::{Caller, Issued, StsClass, StsError, StsRequest, parse_answer};
use crate::clock::Clock;
use crate::config::{self, BaseKey, Config, GivenKey, GivenSecret, IssuerKind, Role, WebIdentity};
use crate::encoding::hex::sha256_hex;
use crate::observe::CacheCounters;
use crate::secret::Secret;
use crate::timestamp::Timestamp;
use crate::upstream::dial::{Dialer, Roots};

/// Bytes of an answer's head at most.
const HEAD_BYTES: usize = 16 * 1024;
/// One call of an issuer that stands in no configuration, connect to last byte.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the answer to it at most.
const ANSWER_BYTES: usize = 64 * 1024;

/// An issuer's own key that STS has refused signs nothing for this long, whichever tenant asks. Another
/// key is tried at once.
const REFUSED: Duration = Duration::from_secs(4);

/// The name of a key that only signs calls for others, where a tenant's would stand.
const BASE_NAME: &str = "cosgate";

/// Makes keys by one call of STS each.
#[derive(Debug)]
pub struct Issuer {
    /// In the configuration; empty without one.
    name: String,
    /// All that the file says of it, secrets left out.
    identity: String,
    host: String,
    region: String,
    asks: Asks,
    /// The last of its own keys that STS has refused.
    refused: Mutex<Option<RefusedKey>>,
    dialer: Dialer,
    timeout: Duration,
    answer_bytes: usize,
    clock: Arc<Clock>,
    counters: Arc<CacheCounters>,
}

/// What STS is asked for.
#[derive(Debug)]
enum Asks {
    AssumeRole { base: Base, role: Role },
    Federation { base: Base, duration: Duration },
    WebIdentity(WebIdentity),
}

impl Asks {
    /// How long keys live where nobody says it.
    fn duration(&self) -> Duration {
        match self {
            Self::AssumeRole { role, .. } => role.duration,
            Self::Federation { duration, .. } => *duration,
            Self::WebIdentity(web) => web.duration,
        }
    }
}

/// A key that STS has refused.
#[derive(Debug)]
struct RefusedKey {
    digest: String,
    error: StsError,
    until: Instant,
}

/// What one call was made with.
#[derive(Default)]
struct SignedWith {
    /// `None` where a pod's token is the key.
    key: Option<Arc<CallerKey>>,
    /// Of the key or the token; empty while there is none.
    digest: String,
}

/// A key that is to be made.
struct Wanted<'a> {
    /// The tenant's, for Tencent's audit.
    name: &'a str,
    policy: Option<&'a str>,
    duration: Duration,
}

struct Answer {
    status: u16,
    date: Option<Timestamp>,
    body: Zeroizing<Vec<u8>>,
}

impl Issuer {
    /// The issuers of `config` that call STS, at their index there.
    pub fn all(
        config: &Config,
        clock: &Arc<Clock>,
        counters: &Arc<CacheCounters>,
    ) -> Result<Vec<Option<Arc<Self>>>, String> {
        let calls = |issuer: &config::Issuer| issuer.kind.duration().is_some();
        if !config.issuers.iter().any(calls) {
            return Ok(Vec::new());
        }
        let roots = Roots::for_endpoint(config.sts.endpoint.tls, config.sts.ca_file.as_deref())
            .map_err(|error| format!("sts.ca_file: {error}"))?;
        let mut made = vec![None; config.issuers.len()];
        let maker = Maker {
            config,
            roots: roots.as_ref(),
            clock,
            counters,
        };
        for index in 0..config.issuers.len() {
            maker.make(index, &mut made)?;
        }
        Ok(made)
    }

    /// One that stands in no configuration: `options` say whose key calls, from where and how.
    pub(super) fn of(options: &Options, dialer: Dialer, clock: Arc<Clock>) -> Self {
        let given = |value: Secret| GivenSecret { value, file: None };
        let key = GivenKey {
            secret_id: given(Secret::new(options.secret_id.as_str())),
            secret_key: given(options.secret_key.clone()),
            token: None,
        };
        let base = Base::Read(Watched::given("", &key));
        let duration = options.duration;
        let asks = match &options.role {
            None => Asks::Federation { base, duration },
            Some(asked) => Asks::AssumeRole {
                base,
                role: Role {
                    arn: asked.arn.clone(),
                    session_name: asked.session.clone(),
                    external_id: asked.external_id.clone(),
                    tags: Vec::new(),
                    source_identity: None,
                    duration,
                },
            },
        };
        Self {
            name: String::new(),
            identity: String::new(), // its keys are shared with nobody
            host: options.host.authority().to_owned(),
            region: options.region.clone(),
            asks,
            refused: Mutex::default(),
            dialer,
            timeout: CALL_TIMEOUT,
            answer_bytes: ANSWER_BYTES,
            clock,
            counters: Arc::default(),
        }
    }

    /// Tells it from every other issuer whose keys may do other things.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// A key for `tenant` that `policy`, plain JSON, fences; that of a web identity no policy can.
    pub async fn issue(&self, tenant: &str, policy: &str) -> Result<Issued, StsError> {
        self.issue_for(tenant, policy, self.asks.duration()).await
    }

    /// The same for a key that lives for `duration`.
    pub async fn issue_for(
        &self,
        tenant: &str,
        policy: &str,
        duration: Duration,
    ) -> Result<Issued, StsError> {
        let wanted = Wanted {
            name: tenant,
            policy: Some(policy),
            duration,
        };
        self.issue_with(&wanted).await
    }

    /// A key to sign another issuer's calls with. Boxed: that issuer's future holds it.
    pub(super) fn issue_base(
        &self,
    ) -> Pin<Box<dyn Future<Output = Result<Issued, StsError>> + Send + '_>> {
        Box::pin(async {
            let wanted = Wanted {
                name: BASE_NAME,
                policy: None,
                duration: self.asks.duration(),
            };
            self.issue_with(&wanted).await
        })
    }

    /// When STS says that our time is wrong, or that a fetched key is, the call is made once more: its
    /// time is learnt, the key fetched anew.
    async fn issue_with(&self, wanted: &Wanted<'_>) -> Result<Issued, StsError> {
        let (result, signed_with) = self.call(wanted).await;
        let again = match (&result, &signed_with.key, self.base()) {
            (Err(error), ..) if error.class == StsClass::Clock => true,
            (Err(error), Some(key), Some(base)) if error.class == StsClass::IssuerBroken => {
                base.reject(key, error).await
            }
            _ => false,
        };
        if again {
            return self.call(wanted).await.0;
        }
        result
    }

    /// Remembers which key STS took, or refused.
    fn learn(&self, result: &Result<Issued, StsError>, signed_with: &SignedWith) {
        match result {
            Ok(_) => {
                if let (Some(base), Some(key)) = (self.base(), &signed_with.key) {
                    base.mark_worked(key);
                }
            }
            Err(error) if error.class == StsClass::IssuerBroken && !error.is_repeated => {
                tracing::error!(issuer = self.name, %error, "STS refuses the issuer's own key");
                *self.refused() = Some(RefusedKey {
                    digest: signed_with.digest.clone(),
                    error: error.clone().repeated(),
                    until: Instant::now() + REFUSED,
                });
            }
            Err(_) => {}
        }
    }

    /// What STS said of this key, if that was a short time ago.
    fn check_refused(&self, digest: &str) -> Result<(), StsError> {
        match &*self.refused() {
            Some(refused) if refused.digest == digest && Instant::now() < refused.until => {
                Err(refused.error.clone())
            }
            _ => Ok(()),
        }
    }

    fn refused(&self) -> MutexGuard<'_, Option<RefusedKey>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn base(&self) -> Option<&Base> {
        match &self.asks {
            Asks::AssumeRole { base, .. } | Asks::Federation { base, .. } => Some(base),
            Asks::WebIdentity(_) => None,
        }
    }

    /// One call, and the key that signed it.
    async fn call(&self, wanted: &Wanted<'_>) -> (Result<Issued, StsError>, SignedWith) {
        let mut signed_with = SignedWith::default();
        let result = match self.request(wanted, &mut signed_with).await {
            Ok(call) => match timeout(self.timeout, self.exchange(call)).await {
                Ok(Ok(answer)) => self.read(&answer),
                Ok(Err(error)) => Err(error),
                Err(_) => {
                    let what = format!("no answer within {:?}", self.timeout);
                    Err(StsError::new(StsClass::Retry, "Timeout", what))
                }
            },
            Err(error) => Err(error),
        };
        let result = result.map_err(|error| error.of_issuer(&self.name));
        self.learn(&result, &signed_with);
        if !result.as_ref().is_err_and(|error| error.is_repeated) {
            counter_of(&self.counters, &result).fetch_add(1, Ordering::Relaxed);
        }
        (result, signed_with)
    }

    async fn request(
        &self,
        wanted: &Wanted<'_>,
        signed_with: &mut SignedWith,
    ) -> Result<StsRequest, StsError> {
        let base = match &self.asks {
            Asks::AssumeRole { base, .. } | Asks::Federation { base, .. } => base,
            Asks::WebIdentity(web) => {
                let token = read_token(&web.token_file)?;
                signed_with.digest = sha256_hex(token.expose().as_bytes());
                self.check_refused(&signed_with.digest)?;
                let now = self.clock.upstream_now();
                let (host, region) = (&self.host, &self.region);
                return Ok(StsRequest::web_identity(
                    host,
                    region,
                    web,
                    &token,
                    wanted.name,
                    now,
                ));
            }
        };
        let key = base.key().await?;
        signed_with.digest = key.digest();
        signed_with.key = Some(Arc::clone(&key));
        self.check_refused(&signed_with.digest)?;
        let caller = Caller {
            host: &self.host,
            region: &self.region,
            secret_id: &key.secret_id,
            secret_key: &key.secret_key,
            token: key.token.as_ref(),
        };
        let now = self.clock.upstream_now();
        let (name, duration) = (wanted.name, wanted.duration);
        let request = match &self.asks {
            Asks::AssumeRole { role, .. } => {
                StsRequest::assume_role(&caller, role, name, wanted.policy, duration, now)
            }
            Asks::Federation { .. } if key.token.is_none() => {
                let policy = wanted.policy.unwrap_or_default();
                StsRequest::federation_token(&caller, name, policy, duration, now)
            }
            Asks::Federation { .. } | Asks::WebIdentity(_) => {
                let what = "the issuer's own key has become a temporary one";
                let code = "FailedOperation.TempKeyNotAllowed";
                return Err(StsError::new(StsClass::IssuerBroken, code, what));
            }
        };
        Ok(request)
    }

    fn read(&self, answer: &Answer) -> Result<Issued, StsError> {
        let now = answer.date.unwrap_or_else(|| self.clock.upstream_now());
        let result = parse_answer(answer.status, &answer.body, now);
        match (answer.date, &result) {
            (Some(date), Err(error)) if error.class == StsClass::Clock => self.clock.resync(date),
            (Some(date), _) => self.clock.learn(date),
            (None, _) => {}
        }
        result
    }

    async fn exchange(&self, call: StsRequest) -> Result<Answer, StsError> {
        let stream = self
            .dialer
            .dial(&self.host)
            .await
            .map_err(|error| network(&error))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| network(&error))?;
        let mut driver = JoinSet::new(); // ends the connection when this call ends, however it does
        driver.spawn(connection);
        let response = sender
            .send_request(http_request(call)?)
            .await
            .map_err(|error| network(&error))?;
        self.collect(response).await
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Answer, StsError> {
        let date = response
            .headers()
            .get(DATE)
            .and_then(|value| value.to_str().ok());
        let date = date.and_then(Timestamp::parse_http_date);
        let status = response.status().as_u16();
        let mut body = Zeroizing::new(Vec::new());
        let mut limited = Limited::new(response.into_body(), self.answer_bytes);
        while let Some(frame) = limited.frame().await {
            let frame = frame.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    let what = format!("the answer is longer than {} bytes", self.answer_bytes);
                    return StsError::new(StsClass::Retry, "Unreadable", what);
                }
                network(error.as_ref())
            })?;
            body.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        }
        Ok(Answer { status, date, body })
    }
}

/// Makes each issuer once, its base before it.
struct Maker<'a> {
    config: &'a Config,
    roots: Option<&'a Roots>,
    clock: &'a Arc<Clock>,
    counters: &'a Arc<CacheCounters>,
}

impl Maker<'_> {
    /// The configuration has no circle of bases, so this ends.
    fn make(
        &self,
        index: usize,
        made: &mut [Option<Arc<Issuer>>],
    ) -> Result<Option<Arc<Issuer>>, String> {
        let Some(issuer) = self.config.issuers.get(index) else {
            return Ok(None);
        };
        if let Some(Some(issuer)) = made.get(index) {
            return Ok(Some(Arc::clone(issuer)));
        }
        let asks = match &issuer.kind {
            IssuerKind::AssumeRole { base, role } => Asks::AssumeRole {
                base: self.base(&issuer.name, base, made)?,
                role: role.clone(),
            },
            IssuerKind::Federation { base, duration } => Asks::Federation {
                base: self.base(&issuer.name, base, made)?,
                duration: *duration,
            },
            IssuerKind::Static(_) => return Ok(None),
            IssuerKind::WebIdentity(web) => Asks::WebIdentity(web.clone()),
        };
        let (sts, limits) = (&self.config.sts, &self.config.upstream.limits);
        let issuer = Arc::new(Issuer {
            name: issuer.name.clone(),
            identity: format!("{} {}", sts.endpoint.authority, self.told_apart(issuer)),
            host: sts.endpoint.authority.clone(),
            region: sts.region.clone(),
            asks,
            refused: Mutex::default(),
            dialer: Dialer::new(
                self.roots,
                sts.connect_to.clone(),
                limits.connect_timeout,
                limits.tls_handshake_timeout,
            ),
            timeout: sts.timeout,
            answer_bytes: sts.answer_bytes,
            clock: Arc::clone(self.clock),
            counters: Arc::clone(self.counters),
        });
        if let Some(place) = made.get_mut(index) {
            *place = Some(Arc::clone(&issuer));
        }
        Ok(Some(issuer))
    }

    /// All that the configuration says of `issuer` and of its bases, but for secrets.
    fn told_apart(&self, issuer: &config::Issuer) -> String {
        let text = format!("{issuer:?}");
        let base = match &issuer.kind {
            IssuerKind::AssumeRole { base, .. } | IssuerKind::Federation { base, .. } => base,
            IssuerKind::Static(_) | IssuerKind::WebIdentity(_) => return text,
        };
        match base {
            BaseKey::Given(key) => format!("{text} {}", key.secret_id.value.expose()),
            BaseKey::Issuer(index) => match self.config.issuers.get(*index) {
                Some(base) => format!("{text} {}", self.told_apart(base)),
                None => text,
            },
            // On another machine a file of the same name may hold another account's key.
            BaseKey::Profile { name, file } => match read_profile(name, file) {
                Ok(key) => format!("{text} {}", key.secret_id),
                Err(_) => text, // it is told when the key is made
            },
            BaseKey::Command(_) | BaseKey::CvmRole { .. } => text,
        }
    }

    fn base(
        &self,
        name: &str,
        base: &BaseKey,
        made: &mut [Option<Arc<Issuer>>],
    ) -> Result<Base, String> {
        let source = match base {
            BaseKey::Command(command) => Source::Command(command.clone()),
            BaseKey::CvmRole {
                name: role,
                endpoint,
            } => Source::Metadata(Metadata::new(&endpoint.authority, &endpoint.path, role)),
            BaseKey::Given(key) => return Ok(Base::Read(Watched::given(name, key))),
            BaseKey::Issuer(index) => {
                let issuer = self.make(*index, made)?;
                Source::Chain(issuer.ok_or_else(|| format!("issuers.{name}: base makes no keys"))?)
            }
            BaseKey::Profile {
                name: profile,
                file,
            } => {
                let watched = Watched::profile(name, profile, file);
                return watched
                    .map(Base::Read)
                    .map_err(|error| format!("issuers.{name}: {error}"));
            }
        };
        let fetched = Fetched::new(name, source, Arc::clone(self.clock));
        Ok(Base::Fetched(Arc::new(fetched)))
    }
}

/// The token of a web identity, as its file has it now: whoever issues it replaces it before it ends.
fn read_token(file: &Path) -> Result<Secret, StsError> {
    let wrong = |what: String| StsError::new(StsClass::Retry, "TokenFile", what);
    let text = read_text(file).map_err(wrong)?;
    let token = text.trim();
    if !is_visible(token) {
        let what = format!("{} holds no token", file.display());
        return Err(wrong(what));
    }
    Ok(Secret::new(token))
}

/// The counter of a call with this result.
fn counter_of<'c>(counters: &'c CacheCounters, result: &Result<Issued, StsError>) -> &'c AtomicU64 {
    match result.as_ref().map_err(|error| error.class) {
        Ok(_) => &counters.sts_ok,
        Err(StsClass::Clock) => &counters.sts_clock,
        Err(StsClass::ConfigWrong) => &counters.sts_config_wrong,
        Err(StsClass::IssuerBroken) => &counters.sts_issuer_broken,
        Err(StsClass::NotAllowed) => &counters.sts_not_allowed,
        Err(StsClass::Retry | StsClass::Unknown) => &counters.sts_retry,
    }
}

fn http_request(call: StsRequest) -> Result<Request<Full<Bytes>>, StsError> {
    let mut request = Request::post("/");
    for (name, value) in call.headers {
        request = request.header(name, value);
    }
    request.body(Full::from(call.body.as_bytes().to_vec())).map_err(|_| {
        let what =
            "the issuer's secret_id, or the endpoint or region of [sts], cannot stand in a header";
        StsError::new(StsClass::IssuerBroken, "BadHeader", what)
    })
}

fn network(error: &(dyn std::error::Error + 'static)) -> StsError {
    StsError::new(StsClass::Retry, "Network", chain(error))
}

/// An error with its causes in one line: hyper's own text has only the outermost.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
