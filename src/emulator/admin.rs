//! Faults and counters over HTTP, for a person or a test in another process.
//!
//! On loopback the Host must be an address or `localhost`. Otherwise a web page could let a browser set faults
//! through a name of its own (DNS rebinding).
//!
//! | request | does |
//! |---|---|
//! | `GET /faults` | the faults in force, as JSON |
//! | `PUT /faults` | puts the faults of the JSON body in force; `{}` clears them |
//! | `DELETE /faults` | clears them |
//! | `GET /faults/met` | how many requests have met each fault of the list |
//! | `GET /counters` | the numbers, as JSON; `DELETE` resets them |
//! | `GET /heads` | the heads of the last requests to COS |
//! | `POST /snapshot` | saves the state of all buckets |
//! | `POST /reset` | restores the saved state |
//! | `GET /health` | responds while the emulator runs |
//! | `DELETE /keys`, `DELETE /keys/ID` | revokes all temporary keys, or one |

use std::io;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use s3s::Body;
use serde::Serialize;

use super::faults::check_count;
use super::store::Store;
use super::wire::ArrivingBody;
use super::{EmulatorShared, Faults};
use crate::s3::host;

/// Maximum size of a body in bytes.
const BODY_LIMIT: usize = 1024 * 1024;

pub(super) async fn respond(
    shared: &EmulatorShared,
    is_loopback: bool,
    request: Request<ArrivingBody>,
) -> Response<Body> {
    if let Some(fault) = host::host_fault(&request) {
        return plain(StatusCode::BAD_REQUEST, format!("{fault}\n"));
    }
    let is_misdirected = host::is_misdirected(&request, &[]);
    let (head, body) = request.into_parts();
    if is_loopback && is_misdirected {
        return plain(
            StatusCode::MISDIRECTED_REQUEST,
            "unknown Host: use the address of this listener or localhost\n".into(),
        );
    }
    let path = head.uri.path();
    match (&head.method, path) {
        (&Method::GET, "/faults") => json(&shared.faults.current()),
        (&Method::PUT, "/faults") => put_faults(shared, body).await,
        (&Method::GET, "/health") => plain(StatusCode::OK, "ok\n".into()),
        (&Method::POST, "/snapshot") => change_state(&shared.store, |store| store.snapshot().map(|()| true)).await,
        (&Method::POST, "/reset") => change_state(&shared.store, Store::reset).await,
        (&Method::GET, "/faults/met") => json(&shared.faults.met()),
        (&Method::DELETE, "/faults") => {
            shared.faults.clear();
            json(&shared.faults.current())
        }
        (&Method::GET, "/counters") => json(&shared.counters.counts()),
        (&Method::DELETE, "/counters") => {
            shared.counters.reset();
            json(&shared.counters.counts())
        }
        (&Method::GET, "/heads") => json(&shared.counters.heads()),
        (&Method::DELETE, "/keys") => {
            shared.keys.revoke_all();
            plain(StatusCode::OK, "revoked\n".into())
        }
        (&Method::DELETE, _)
            if path
                .strip_prefix("/keys/")
                .is_some_and(|id| shared.keys.revoke(id)) =>
        {
            plain(StatusCode::OK, "revoked\n".into())
        }
        _ => plain(
            StatusCode::NOT_FOUND,
            "try GET /health, GET or PUT /faults, GET /counters, GET /heads, POST /snapshot, POST /reset, DELETE /keys\n".into(),
        ),
    }
}

/// Saves or restores the state on a thread that may block.
async fn change_state(store: &Arc<Store>, act: fn(&Store) -> io::Result<bool>) -> Response<Body> {
    let store = Arc::clone(store);
    let done = tokio::task::spawn_blocking(move || act(&store)).await;
    match done.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(true) => plain(StatusCode::OK, "done\n".into()),
        Ok(false) => plain(
            StatusCode::CONFLICT,
            "there is no snapshot: take one with POST /snapshot first\n".into(),
        ),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

async fn put_faults(shared: &EmulatorShared, body: ArrivingBody) -> Response<Body> {
    let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
        return plain(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is larger than 1 MiB\n".into(),
        );
    };
    let read = serde_json::from_slice::<Faults>(&body.to_bytes());
    let read = read.map_err(|error| error.to_string());
    match read.and_then(|read| check_count(&read.faults).map(|()| read)) {
        Ok(faults) => {
            shared.faults.set(faults);
            json(&shared.faults.current())
        }
        Err(error) => plain(
            StatusCode::BAD_REQUEST,
            format!("invalid faults: {error}\n"),
        ),
    }
}

fn json(value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut response = plain(StatusCode::OK, text + "\n");
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}
