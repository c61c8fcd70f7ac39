//! `POST Object`: a browser's form, done as the PUT of its file.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use super::Proxy;
use super::gather_budget::{GatherHold, no_room};
use super::in_flight::InFlight;
use super::payload::Arriving;
use super::stranger_memory::StrangerRead;
use crate::body::{ResponseBody, UploadFailure};
use crate::decision::{Step, document};
use crate::error::S3Error;
use crate::payload::FormFile;
use crate::s3::form::{
    Boundary, Form, FormPut, FormReader, MAX_FORM_BYTES, SuccessAction, redirect_target,
};
use crate::s3::request::content_length;
use crate::s3::{ObjectKey, Operation, Query, S3Request, xml};
use crate::tenant::Connection;

/// What follows the fields is read whole up to this many bytes: the end of such a form is seen before
/// COS gets the file's length.
const SMALL: u64 = 64 * 1024;
/// The same for `fetch` of Node.js, which before version 23 left out the line end after the last boundary.
/// <https://github.com/nodejs/undici/pull/3625>
const SMALL_OF_NODE: u64 = 1024 * 1024;
/// What its boundaries begin with.
const BOUNDARY_OF_NODE: &str = "----formdata-undici-";

impl Proxy {
    /// A form's life, beside that of all other requests in [`Proxy::forward`]: its fields are read
    /// first, and name the caller and what is requested.
    pub(super) async fn post_object(
        &self,
        head: &Parts,
        requested: S3Request<'_>,
        mut arriving: Arriving,
        connection: Connection,
        in_flight: &mut InFlight,
    ) -> Result<Response<ResponseBody>, S3Error> {
        let boundary = Boundary::read(&head.headers)?;
        let (tenants, now) = (&self.shared.tenants, in_flight.record.time);
        let mut stranger = self.strangers.begin_read(head, tenants, connection, now)?;
        let reading = self.in_time(read_form(&mut arriving, &boundary, &stranger));
        let (form, read) = stranger.unless_evicted(reading).await?; // what is in it
        stranger.finish();
        in_flight.record.key = form.get("key").map(str::to_owned);
        let identify = || {
            let sender = tenants.identify_form(head, &form, &requested, connection, now)?;
            Ok((sender.caller, sender.length))
        };
        let admitted = self.admit(None, identify, connection, in_flight).await?;
        let (caller, length) = admitted;
        drop(stranger); // from here on it is the tenant's memory
        let mut hold = self.hold(&caller);
        charge(&mut hold, 2 * form.file_at())?;
        in_flight.record.step = Step::Authorize;
        let bucket = requested.bucket.as_deref().unwrap_or_default();
        let put = FormPut::read(&form, bucket)?; // as a PUT
        let put_head = head_of_put(put.headers)?;
        let decided = self.decide(&put_head, put_of(&requested, &put.key)?, &caller, in_flight)?;
        let forward = match decided {
            ControlFlow::Break(response) => return Ok(response),
            ControlFlow::Continue(forward) => forward,
        };
        in_flight.record.step = Step::Payload;
        let rest = content_length(head).and_then(|length| length.checked_sub(form.file_at()));
        let rest = rest.ok_or_else(FormReader::ended)?;
        length.check_most(rest.saturating_sub(boundary.end_bytes()))?; // before any of it is held
        let arriving = file(arriving, read, rest, &boundary, &mut hold);
        let arriving = self.in_time(arriving).await?;
        length.check(arriving.length())?; // as long as the policy lets it be
        let stored = self.carry_out(forward, &put_head, arriving, &caller, in_flight);
        Ok(response(
            &put.success,
            &stored.await?,
            &self.location(head, connection.tls, put.key.as_str()),
            bucket,
            &put.key,
        ))
    }

    /// What must be read before a body streams, within the pace's window.
    async fn in_time<T>(
        &self,
        reading: impl Future<Output = Result<T, S3Error>>,
    ) -> Result<T, S3Error> {
        let window = self.config().server.limits.body_window;
        let read = timeout(window, reading).await;
        read.unwrap_or_else(|_| Err(UploadFailure::ClientSlow.into()))
    }
}

/// Charges `bytes` of a form to its sender.
fn charge(hold: &mut GatherHold, bytes: u64) -> Result<(), S3Error> {
    let fits = usize::try_from(bytes).is_ok_and(|bytes| hold.grow(bytes));
    fits.then_some(()).ok_or_else(no_room)
}

/// Reads the fields, and what came of the file along with them.
async fn read_form(
    arriving: &mut Arriving,
    boundary: &Boundary,
    stranger: &StrangerRead,
) -> Result<(Form, Bytes), S3Error> {
    let mut reader = FormReader::new(boundary);
    loop {
        let mut bytes = arriving.next().await?.ok_or_else(FormReader::ended)?;
        // They are held twice: as they came, and as fields.
        if !stranger.grow(2 * bytes.len().min(MAX_FORM_BYTES)) {
            return Err(no_room());
        }
        if let Some(form) = reader.push(&mut bytes)? {
            return Ok((form, bytes));
        }
    }
}

/// The file, of which `read` is there: the last `rest` bytes of the body are it and its boundary.
async fn file(
    mut arriving: Arriving,
    read: Bytes,
    rest: u64,
    boundary: &Boundary,
    hold: &mut GatherHold,
) -> Result<Arriving, S3Error> {
    let is_of_node = boundary.as_str().starts_with(BOUNDARY_OF_NODE);
    if rest > if is_of_node { SMALL_OF_NODE } else { SMALL } {
        let file = FormFile::new(boundary.as_str(), rest, None)?;
        return Ok(arriving.form(read, file));
    }
    let mut whole = BytesMut::from(&*read);
    charge(hold, whole.len() as u64)?;
    while let Some(bytes) = arriving.next().await? {
        charge(hold, bytes.len() as u64)?;
        whole.extend_from_slice(&bytes);
    }
    let file = FormFile::new(boundary.as_str(), rest, Some(&whole))?;
    Ok(arriving.form(whole.freeze(), file))
}

/// The PUT of the form's file.
fn put_of<'r>(requested: &S3Request<'r>, key: &ObjectKey<'r>) -> Result<S3Request<'r>, S3Error> {
    Ok(S3Request {
        operation: Operation::PutObject,
        bucket: requested.bucket.clone(),
        key: Some(key.clone()),
        query: Query::parse("")?,
        copy_source: None,
    })
}

/// The head that a PUT of the form's file would have: all that later steps look at.
fn head_of_put(headers: HeaderMap) -> Result<Parts, S3Error> {
    let request = Request::builder().method(Method::PUT).body(());
    let (mut head, ()) = request.map_err(S3Error::internal)?.into_parts();
    head.headers = headers;
    Ok(head)
}

/// The response for the client: its object, in the names that it knows.
fn response(
    success: &SuccessAction,
    stored: &Response<ResponseBody>,
    location: &str,
    bucket: &str,
    key: &ObjectKey<'_>,
) -> Response<ResponseBody> {
    let etag = stored
        .headers()
        .get(ETAG)
        .and_then(|etag| etag.to_str().ok());
    let etag = etag.unwrap_or_default();
    let (mut response, location) = match success {
        SuccessAction::Document => {
            let mut response = document(xml::post_response(location, bucket, key.as_str(), etag))
                .map(ResponseBody::text);
            *response.status_mut() = StatusCode::CREATED;
            (response, location.to_owned())
        }
        SuccessAction::Empty(status) => (empty(*status), location.to_owned()),
        SuccessAction::Redirect(url) => {
            let target = redirect_target(url, bucket, key.as_str(), etag);
            (empty(StatusCode::SEE_OTHER), target)
        }
    };
    for (name, value) in stored.headers() {
        if ![CONTENT_LENGTH, CONTENT_TYPE].contains(name) {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = status;
    response
}
