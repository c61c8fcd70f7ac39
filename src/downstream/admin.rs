//! The admin listener: liveness, readiness, metrics, reloads. Never on the data port.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;

use bytes::Bytes;
use http::header::ACCEPT;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::{Duration, sleep, timeout};

use crate::clock::wall_clock;
use crate::downstream::live::LiveConfig;
use crate::downstream::readiness::ReadinessCheck;
use crate::downstream::reloads::Reloads;
use crate::observe::admin::{
    answer, is_misdirected, misdirected, readyz, reload_refusal, reloaded,
};
use crate::observe::{MetricsView, TextFormat};
use crate::proxy::Shared;

/// Connections at once: a scraper or two, and someone who looks. The next one takes the place of the
/// oldest, so that nobody who says nothing keeps a probe from its response.
const CONNECTIONS: usize = 64;
/// The longest that one connection is kept.
const CONNECTION_TIME: Duration = Duration::from_mins(1);
/// After a failed accept the listener rests this long.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves the admin pages on `listener`, for ever. `reloads` takes what `POST /reload` requests.
pub async fn run(
    listener: StdListener,
    live: Arc<LiveConfig>,
    reloads: Option<Reloads>,
) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let readiness = Arc::new(ReadinessCheck::default());
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS);
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            sleep(ACCEPT_REST).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let (live, reloads) = (Arc::clone(&live), reloads.clone());
        let readiness = Arc::clone(&readiness);
        let connection = tokio::spawn(async move {
            let service = service_fn(async |request: http::Request<hyper::body::Incoming>| {
                let page = page(&live, &readiness, reloads.as_ref(), &request).await;
                Ok::<_, Infallible>(page.map(|text| Full::new(Bytes::from(text))))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(socket), service);
            // A broken or slow scraper is not worth a word.
            let _ = timeout(CONNECTION_TIME, connection).await;
        });
        open.push_back(connection.abort_handle());
    }
}

async fn page<B>(
    live: &LiveConfig,
    readiness: &ReadinessCheck,
    reloads: Option<&Reloads>,
    request: &http::Request<B>,
) -> http::Response<String> {
    let shared = live.shared();
    if is_misdirected(request.headers(), &shared.config().server) {
        return misdirected();
    }
    if request.uri().path() == "/reload" {
        drop(shared); // it may be replaced
        return match reload_refusal(request.method(), request.headers()) {
            None => reload(reloads).await,
            Some(refusal) => refusal,
        };
    }
    if request.uri().path() == "/readyz" {
        let query = request.uri().query().unwrap_or_default();
        let is_verbose = query.split('&').any(|part| part == "verbose");
        let readiness = readiness.readiness(&shared, is_verbose).await;
        return readyz(request.method(), is_verbose, &readiness);
    }
    let metrics = || {
        let accept = request.headers().get(ACCEPT);
        let format = TextFormat::accepted(accept.and_then(|accept| accept.to_str().ok()));
        let view = metrics_view(live, &shared);
        (shared.metrics().render(&view, format), format)
    };
    answer(request.method(), request.uri().path(), metrics)
}

/// What is found out for the metrics.
fn metrics_view(live: &LiveConfig, shared: &Shared) -> MetricsView {
    let (credentials, now) = (shared.credentials(), wall_clock());
    MetricsView {
        identities: shared.tenants().key_states(now),
        issuers: credentials.issuer_states(),
        live_keys: credentials.live_keys() as u64,
        scopes: credentials.scopes(),
        ending_keys: shared.tenants().ending_keys(now),
        certificate_end: live.rules().certificate_end(),
    }
}

/// Requests a reload, and waits for its end.
async fn reload(reloads: Option<&Reloads>) -> http::Response<String> {
    let requested = reloads.and_then(Reloads::request);
    match requested {
        Some(answer) => reloaded(answer.await.ok()),
        None => reloaded(None),
    }
}
