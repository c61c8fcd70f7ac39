//! The admin listener: liveness, readiness, metrics, reloads, the admin API and the status page. Never on the
//! data port.

mod access;
mod documents;
mod status;
mod status_page;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::clock::wall_clock;
use crate::downstream::live::LiveConfig;
use crate::downstream::readiness::ReadinessCheck;
use crate::downstream::reloads::Reloads;
use crate::observe::admin::{self, json_page, other_page, page, read_only, readyz, reloaded};
use crate::observe::{MetricsView, RateHistory, TextFormat};
use crate::proxy::Shared;
use documents::{DocumentError, Parameters};

/// Connections at once: a scraper or two, and someone who looks. The next one takes the place of the
/// oldest, so that nobody who sends nothing keeps a probe from its response.
const CONNECTIONS: usize = 64;
/// The longest that one connection is kept.
const CONNECTION_TIME: Duration = Duration::from_mins(1);
/// After a failed accept the listener rests this long.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How often the counters are looked at for the charts.
const SAMPLE: Duration = Duration::from_secs(5);

/// What the pages are made of.
struct AdminPages {
    live: Arc<LiveConfig>,
    readiness: ReadinessCheck,
    reloads: Option<Reloads>,
    history: Mutex<RateHistory>,
}

/// A connection to the admin listener. It ends when this is dropped.
struct AdminConnection(AbortHandle);

impl Drop for AdminConnection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves the admin pages on `listener`, until this future is dropped. `reloads` takes what `POST /reload` requests.
pub async fn run(
    listener: StdListener,
    live: Arc<LiveConfig>,
    reloads: Option<Reloads>,
) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let history = RateHistory::new(live.shared().metrics().totals());
    let pages = Arc::new(AdminPages {
        live,
        readiness: ReadinessCheck::default(),
        reloads,
        history: Mutex::new(history),
    });
    tokio::select! {
        never = sample(&pages) => match never {},
        never = accept(&listener, &pages) => match never {},
    }
}

/// Looks at the counters again and again.
async fn sample(pages: &AdminPages) -> Infallible {
    let mut last = Instant::now();
    loop {
        sleep(SAMPLE).await;
        let (now, totals) = (Instant::now(), pages.live.shared().metrics().totals());
        let mut history = pages.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.take(wall_clock(), now - last, totals);
        last = now;
    }
}

async fn accept(listener: &TcpListener, pages: &Arc<AdminPages>) -> Infallible {
    let mut open: VecDeque<AdminConnection> = VecDeque::with_capacity(CONNECTIONS);
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            sleep(ACCEPT_REST).await;
            continue;
        };
        open.retain(|AdminConnection(task)| !task.is_finished());
        if open.len() >= CONNECTIONS {
            open.pop_front();
        }
        let pages = Arc::clone(pages);
        let connection = tokio::spawn(async move {
            let service = service_fn(async |request: Request<hyper::body::Incoming>| {
                let response = guarded(respond(&pages, &request).await);
                Ok::<_, Infallible>(response.map(|text| Full::new(Bytes::from(text))))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(socket), service);
            // A broken or slow scraper is not worth a word.
            let _ = timeout(CONNECTION_TIME, connection).await;
        });
        open.push_back(AdminConnection(connection.abort_handle()));
    }
}

async fn respond<B>(pages: &Arc<AdminPages>, request: &Request<B>) -> Response<String> {
    let shared = pages.live.shared();
    if let Some(refusal) = access::refusal(request, &shared.config().server) {
        return refusal;
    }
    let (method, path) = (request.method(), request.uri().path());
    match path {
        "/reload" => {
            drop(shared); // it may be replaced
            match access::change_refusal(request) {
                None => reload(pages.reloads.as_ref()).await,
                Some(refusal) => refusal,
            }
        }
        "/keys/refresh" => match access::change_refusal(request) {
            None => document(pages, request, StatusCode::ACCEPTED).await,
            Some(refusal) => refusal,
        },
        "/readyz" => {
            let query = request.uri().query().unwrap_or_default();
            let is_verbose = query.split('&').any(|part| part == "verbose");
            let readiness = pages.readiness.readiness(&shared, is_verbose).await;
            readyz(method, is_verbose, &readiness)
        }
        "/" | "/config" | "/keys" | "/status.json" | "/tenants" => match read_only(method) {
            None => document(pages, request, StatusCode::OK).await,
            Some(refusal) => refusal,
        },
        "/status.css" => asset(request, "text/css; charset=utf-8", status_page::STYLE),
        "/status.js" => asset(
            request,
            "text/javascript; charset=utf-8",
            status_page::SCRIPT,
        ),
        path => {
            let metrics = || {
                let accept = request.headers().get(ACCEPT);
                let accept = accept.and_then(|accept| accept.to_str().ok());
                let format = TextFormat::accepted(accept);
                let view = metrics_view(&pages.live, &shared);
                (shared.metrics().render(&view, format), format)
            };
            other_page(method, path, metrics)
        }
    }
}

/// A document that may be made of thousands of things: on a thread of its own, since this one accepts clients.
async fn document<B>(
    pages: &Arc<AdminPages>,
    request: &Request<B>,
    status: StatusCode,
) -> Response<String> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().map(str::to_owned);
    let pages = Arc::clone(pages);
    let made = spawn_blocking(move || match make(&pages, &path, query.as_deref()) {
        Ok(AdminDocument::Page(text)) => typed(status, "text/html; charset=utf-8", text),
        Ok(AdminDocument::Json(value)) => json_page(status, lines(&value)),
        Err(error) => {
            let (status, why) = match error {
                DocumentError::Invalid(why) => (StatusCode::BAD_REQUEST, why),
                DocumentError::Conflict(why) => (StatusCode::CONFLICT, why),
                DocumentError::Unknown(why) => (StatusCode::NOT_FOUND, why),
            };
            admin::error(status, &why)
        }
    });
    made.await.unwrap_or_else(|_| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        admin::error(status, "this page failed")
    })
}

/// What a page is.
enum AdminDocument {
    Json(Value),
    Page(String),
}

fn make(
    pages: &AdminPages,
    path: &str,
    query: Option<&str>,
) -> Result<AdminDocument, DocumentError> {
    const RANGE: [&str; 2] = ["after", "limit"];
    let shared = pages.live.shared();
    let json = match path {
        "/config" => documents::configuration(&shared, &Parameters::read(query, &RANGE)?),
        "/keys" => documents::keys(&shared, &Parameters::read(query, &RANGE)?),
        "/keys/refresh" => documents::refresh(&shared, &Parameters::read(query, &["tenant"])?),
        "/status.json" => {
            Parameters::read(query, &[])?;
            Ok(status::document(pages, &shared))
        }
        "/tenants" => {
            let known = ["after", "limit", "search"];
            documents::tenants(&shared, &Parameters::read(query, &known)?)
        }
        _ => {
            let parameters = Parameters::read(query, &["after", "search"])?;
            return Ok(AdminDocument::Page(status_page::html(
                pages,
                &shared,
                &parameters,
            )));
        }
    };
    json.map(AdminDocument::Json)
}

/// JSON as a person reads it.
fn lines(value: &Value) -> String {
    format!("{value:#}\n")
}

fn asset<B>(
    request: &Request<B>,
    content_type: &'static str,
    text: &'static str,
) -> Response<String> {
    match read_only(request.method()) {
        None => typed(StatusCode::OK, content_type, text),
        Some(refusal) => refusal,
    }
}

fn typed(
    status: StatusCode,
    content_type: &'static str,
    text: impl Into<String>,
) -> Response<String> {
    let mut response = page(status, text);
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Whatever a page shows, a browser runs nothing but the script of the status page, and no other site embeds it.
fn guarded(mut response: Response<String>) -> Response<String> {
    const GUARDS: [(&str, &str); 5] = [
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ];
    for (name, value) in GUARDS {
        let name = HeaderName::from_static(name);
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What is found out for the metrics.
fn metrics_view(live: &LiveConfig, shared: &Shared) -> MetricsView {
    let (credentials, now) = (shared.credentials(), wall_clock());
    MetricsView {
        identities: shared.tenants().key_states(now),
        issuers: credentials.issuer_states(),
        live_keys: credentials.live_keys() as u64,
        first_key_end: credentials.first_key_end(),
        scopes: credentials.scopes(),
        ending_keys: shared.tenants().ending_keys(now),
        certificate_end: live.rules().certificate_end(),
        shared_limits: shared.shared_limits().map(|limits| limits.view()),
    }
}

/// Requests a reload, and waits for its end.
async fn reload(reloads: Option<&Reloads>) -> Response<String> {
    let requested = reloads.and_then(Reloads::request);
    match requested {
        Some(requested) => reloaded(requested.await.ok()),
        None => reloaded(None),
    }
}
