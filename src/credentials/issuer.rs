//! An issuer: one call to STS for one key.

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::time::{Duration, Instant};

use super::base::Base;
use super::credential::is_visible;
use super::key_document::CallerKey;
use super::key_files::read_text;
use super::sts::{Issued, StsCall, StsCaller, StsClass, StsEndpoint, StsError, parse_response};
use crate::clock::Clock;
use crate::config::{Role, WebIdentity};
use crate::encoding::hex::sha256_hex;
use crate::observe::CacheCounters;
use crate::secret::Secret;
use crate::upstream::one_shot::{OneShotClient, OneShotError, OneShotResponse};

/// An issuer's own key that STS has refused signs nothing for this long, for any tenant. Another
/// key is tried at once.
const REFUSED: Duration = Duration::from_secs(4);

/// The name of a key that only signs calls for others, where a tenant's would stand.
const BASE_NAME: &str = "cosgate";

/// Makes keys by one call to STS each.
#[derive(Debug)]
pub struct StsIssuer {
    settings: IssuerSettings,
    /// The last of its own keys that STS has refused.
    refused: Mutex<Option<RefusedKey>>,
    clock: Arc<Clock>,
    counters: Arc<CacheCounters>,
}

/// What an issuer is.
#[derive(Debug)]
pub(super) struct IssuerSettings {
    /// In the configuration; empty without one.
    pub(super) name: String,
    /// Distinguishes it from every other issuer whose keys may do other things; empty if its keys are not shared.
    pub(super) sharing_identity: String,
    /// `X-TC-Region`
    pub(super) region: String,
    pub(super) method: IssueMethod,
    /// Calls the STS endpoint.
    pub(super) client: OneShotClient,
}

/// The call that makes a key.
#[derive(Debug)]
pub(super) enum IssueMethod {
    AssumeRole { base: Base, role: Role },
    Federation { base: Base, duration: Duration },
    WebIdentity(WebIdentity),
}

impl IssueMethod {
    /// How long keys live unless a caller says it.
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
struct IssueRequest<'a> {
    /// The tenant's, for Tencent's audit.
    name: &'a str,
    policy: Option<&'a str>,
    duration: Duration,
}

impl StsIssuer {
    pub(super) fn new(
        settings: IssuerSettings,
        clock: Arc<Clock>,
        counters: Arc<CacheCounters>,
    ) -> Self {
        Self {
            settings,
            refused: Mutex::default(),
            clock,
            counters,
        }
    }

    /// Distinguishes it from every other issuer whose keys may do other things.
    pub(super) fn sharing_identity(&self) -> &str {
        &self.settings.sharing_identity
    }

    /// A key for `tenant` that `policy`, plain JSON, fences; that of a web identity no policy can.
    pub async fn issue(&self, tenant: &str, policy: &str) -> Result<Issued, StsError> {
        self.issue_for(tenant, policy, self.settings.method.duration())
            .await
    }

    /// Its name in the configuration; empty without one.
    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    /// The same for a key that lives for `duration`.
    pub async fn issue_for(
        &self,
        tenant: &str,
        policy: &str,
        duration: Duration,
    ) -> Result<Issued, StsError> {
        let wanted = IssueRequest {
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
            let wanted = IssueRequest {
                name: BASE_NAME,
                policy: None,
                duration: self.settings.method.duration(),
            };
            self.issue_with(&wanted).await
        })
    }

    /// When STS says that our time is wrong, or that a fetched key is, the call is made once more: its
    /// time is learnt, the key fetched anew.
    async fn issue_with(&self, wanted: &IssueRequest<'_>) -> Result<Issued, StsError> {
        let (result, signed_with) = self.call(wanted).await;
        let again = match (&result, &signed_with.key, self.base()) {
            (Err(error), ..) if error.class == StsClass::Clock => true,
            (Err(error), Some(key), Some(base)) if error.class == StsClass::IssuerBroken => {
                base.reject(key, error)
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
                tracing::error!(issuer = self.settings.name, %error, "STS refuses the issuer's own key");
                *self.refused() = Some(RefusedKey {
                    digest: signed_with.digest.clone(),
                    error: error.clone().repeated(),
                    until: Instant::now() + REFUSED,
                });
            }
            Err(_) => {}
        }
    }

    /// The error with which STS has just refused this key, if it has.
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
        match &self.settings.method {
            IssueMethod::AssumeRole { base, .. } | IssueMethod::Federation { base, .. } => {
                Some(base)
            }
            IssueMethod::WebIdentity(_) => None,
        }
    }

    /// One call, and the key that signed it.
    async fn call(&self, wanted: &IssueRequest<'_>) -> (Result<Issued, StsError>, SignedWith) {
        let mut signed_with = SignedWith::default();
        let result = match self.request(wanted, &mut signed_with).await {
            Ok(call) => self.send(call).await,
            Err(error) => Err(error),
        };
        let result = result.map_err(|error| error.of_issuer(&self.settings.name));
        self.learn(&result, &signed_with);
        if !result.as_ref().is_err_and(|error| error.is_repeated) {
            counter_of(&self.counters, &result).fetch_add(1, Ordering::Relaxed);
        }
        (result, signed_with)
    }

    async fn request(
        &self,
        wanted: &IssueRequest<'_>,
        signed_with: &mut SignedWith,
    ) -> Result<StsCall, StsError> {
        let endpoint = StsEndpoint {
            host: self.settings.client.authority(),
            region: &self.settings.region,
        };
        let base = match &self.settings.method {
            IssueMethod::AssumeRole { base, .. } | IssueMethod::Federation { base, .. } => base,
            IssueMethod::WebIdentity(web) => {
                let token = read_token(&web.token_file)?;
                signed_with.digest = sha256_hex(token.expose().as_bytes());
                self.check_refused(&signed_with.digest)?;
                let now = self.clock.upstream_now();
                return Ok(StsCall::web_identity(
                    &endpoint,
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
        let caller = StsCaller {
            endpoint,
            secret_id: &key.secret_id,
            secret_key: &key.secret_key,
            token: key.token.as_ref(),
        };
        let now = self.clock.upstream_now();
        let (name, duration) = (wanted.name, wanted.duration);
        let request = match &self.settings.method {
            IssueMethod::AssumeRole { role, .. } => {
                let role = Role {
                    duration,
                    ..role.clone()
                };
                StsCall::assume_role(&caller, &role, name, wanted.policy, now)
            }
            IssueMethod::Federation { .. } if key.token.is_none() => {
                let policy = wanted.policy.unwrap_or_default();
                StsCall::federation_token(&caller, name, policy, duration, now)
            }
            IssueMethod::Federation { .. } | IssueMethod::WebIdentity(_) => {
                let what = "the issuer's own key has become a temporary one";
                let code = "FailedOperation.TempKeyNotAllowed";
                return Err(StsError::new(StsClass::IssuerBroken, code, what));
            }
        };
        Ok(request)
    }

    async fn send(&self, call: StsCall) -> Result<Issued, StsError> {
        let response = self.settings.client.send(http_request(call)?).await;
        self.read(&response?)
    }

    fn read(&self, response: &OneShotResponse) -> Result<Issued, StsError> {
        let now = response.date.unwrap_or_else(|| self.clock.upstream_now());
        let result = parse_response(response.status.as_u16(), &response.body, now);
        match (response.date, &result) {
            (Some(date), Err(error)) if error.class == StsClass::Clock => self.clock.resync(date),
            (Some(date), _) => self.clock.learn(date),
            (None, _) => {}
        }
        result
    }
}

/// The token of a web identity, as its file has it now: its provider replaces it before it expires.
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

fn http_request(call: StsCall) -> Result<Request<Full<Bytes>>, StsError> {
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

impl From<OneShotError> for StsError {
    fn from(error: OneShotError) -> Self {
        let (class, code) = match &error {
            OneShotError::Authority => (StsClass::IssuerBroken, "BadHeader"),
            OneShotError::Network(_) => (StsClass::Retry, "Network"),
            OneShotError::Timeout(_) => (StsClass::Retry, "Timeout"),
            OneShotError::TooLong(_) => (StsClass::Retry, "Unreadable"),
        };
        Self::new(class, code, error.to_string())
    }
}
