//! An issuer at work: one HTTPS call to STS for one key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::DATE;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::cache::CacheCounters;
use super::clock::Clock;
use super::get_credential::Options;
use super::sts::{Caller, Issued, Role, StsClass, StsError, StsRequest, parse_answer};
use crate::config;
use crate::dial::{Dialer, Roots};
use crate::secret::Secret;
use crate::timestamp::Timestamp;

/// Bytes of an answer's head at most.
const HEAD_BYTES: usize = 16 * 1024;
/// One call of an issuer that stands in no configuration, connect to last byte.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the answer to it at most.
const ANSWER_BYTES: usize = 64 * 1024;

/// Makes keys by `GetFederationToken` with one permanent key of Tencent.
#[derive(Debug)]
pub struct Issuer {
    host: String,
    region: String,
    secret_id: String,
    secret_key: Secret,
    duration: Duration,
    role: Option<Role>,
    dialer: Dialer,
    timeout: Duration,
    answer_bytes: usize,
    clock: Arc<Clock>,
    counters: Arc<CacheCounters>,
}

struct Answer {
    status: u16,
    date: Option<Timestamp>,
    body: Zeroizing<Vec<u8>>,
}

impl Issuer {
    /// The issuer `issuer` of `config`, whose keys live for `duration`.
    pub fn new(
        config: &config::Config,
        issuer: &config::Issuer,
        duration: Duration,
        roots: Option<&Roots>,
        clock: Arc<Clock>,
        counters: Arc<CacheCounters>,
    ) -> Self {
        let (sts, limits) = (&config.sts, &config.upstream.limits);
        Self {
            host: sts.endpoint.authority.clone(),
            region: sts.region.clone(),
            secret_id: issuer.secret_id.clone(),
            secret_key: issuer.secret_key.clone(),
            duration,
            role: None,
            dialer: Dialer::new(
                roots,
                sts.connect_to.clone(),
                limits.connect_timeout,
                limits.tls_handshake_timeout,
            ),
            timeout: sts.timeout,
            answer_bytes: sts.answer_bytes,
            clock,
            counters,
        }
    }

    /// One that stands in no configuration: `options` say whose key calls, from where and how.
    pub(super) fn of(options: &Options, dialer: Dialer, clock: Arc<Clock>) -> Self {
        Self {
            host: options.host.authority().to_owned(),
            region: options.region.clone(),
            secret_id: options.secret_id.clone(),
            secret_key: options.secret_key.clone(),
            duration: options.duration,
            role: options.role.clone(),
            dialer,
            timeout: CALL_TIMEOUT,
            answer_bytes: ANSWER_BYTES,
            clock,
            counters: Arc::default(),
        }
    }

    /// A key for `tenant` that `policy`, plain JSON, fences. When STS says that our time is wrong,
    /// its time is learnt and the call made once more.
    pub async fn issue(&self, tenant: &str, policy: &str) -> Result<Issued, StsError> {
        self.issue_for(tenant, policy, self.duration).await
    }

    /// The same for a key that lives for `duration`.
    pub async fn issue_for(
        &self,
        tenant: &str,
        policy: &str,
        duration: Duration,
    ) -> Result<Issued, StsError> {
        match self.call(tenant, policy, duration).await {
            Err(error) if error.class == StsClass::Clock => {
                self.call(tenant, policy, duration).await
            }
            other => other,
        }
    }

    async fn call(
        &self,
        tenant: &str,
        policy: &str,
        duration: Duration,
    ) -> Result<Issued, StsError> {
        let exchange = self.exchange(tenant, policy, duration);
        let result = match timeout(self.timeout, exchange).await {
            Ok(Ok(answer)) => self.read(&answer),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let what = format!("no answer within {:?}", self.timeout);
                Err(StsError::new(StsClass::Retry, "Timeout", what))
            }
        };
        self.counters.of(&result).fetch_add(1, Ordering::Relaxed);
        result
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

    async fn exchange(
        &self,
        tenant: &str,
        policy: &str,
        duration: Duration,
    ) -> Result<Answer, StsError> {
        let caller = Caller {
            host: &self.host,
            region: &self.region,
            secret_id: &self.secret_id,
            secret_key: &self.secret_key,
        };
        let now = self.clock.upstream_now();
        let call = match &self.role {
            None => StsRequest::federation_token(&caller, tenant, policy, duration, now),
            Some(role) => StsRequest::assume_role(&caller, role, policy, duration, now),
        };
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

impl CacheCounters {
    fn of(&self, result: &Result<Issued, StsError>) -> &AtomicU64 {
        match result.as_ref().map_err(|error| error.class) {
            Ok(_) => &self.sts_ok,
            Err(StsClass::Clock) => &self.sts_clock,
            Err(StsClass::ConfigWrong) => &self.sts_config_wrong,
            Err(StsClass::IssuerBroken) => &self.sts_issuer_broken,
            Err(StsClass::NotAllowed) => &self.sts_not_allowed,
            Err(StsClass::Retry) => &self.sts_retry,
        }
    }
}

fn http_request(call: StsRequest) -> Result<Request<Full<Bytes>>, StsError> {
    let mut request = Request::post("/");
    for (name, value) in call.headers {
        request = request.header(name, value);
    }
    request.body(Full::from(call.body)).map_err(|_| {
        let what =
            "the issuer's secret_id, or the endpoint or region of [sts], cannot stand in a header";
        StsError::new(StsClass::IssuerBroken, "BadHeader", what)
    })
}

/// An error with its causes in one line: hyper's own text has only the outermost.
fn network(error: &(dyn std::error::Error + 'static)) -> StsError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    StsError::new(StsClass::Retry, "Network", text)
}
