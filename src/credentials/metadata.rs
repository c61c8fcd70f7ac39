//! The metadata service of a CVM, which gives the key of the role that the machine has.
//!
//! <https://cloud.tencent.com/document/product/213/4934>

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::issuer::chain;
use super::key_document::DOCUMENT_BYTES;
use crate::upstream::dial::Dialer;

/// One call, connect to last byte: the service is on this machine's own network.
const CALL_TIME: Duration = Duration::from_secs(3);
/// Bytes of an answer's head at most.
const HEAD_BYTES: usize = 16 * 1024;

/// Where a role's key is asked for.
#[derive(Debug)]
pub(super) struct Metadata {
    authority: String,
    path: String,
    dialer: Dialer,
}

impl Metadata {
    pub(super) fn new(authority: &str, prefix: &str, role: &str) -> Self {
        Self {
            authority: authority.to_owned(),
            path: format!("{prefix}/latest/meta-data/cam/security-credentials/{role}"),
            dialer: Dialer::new(None, None, CALL_TIME, CALL_TIME),
        }
    }

    /// The answer's body. Redirects are not followed.
    pub(super) async fn get(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        timeout(CALL_TIME, self.exchange())
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {CALL_TIME:?}")))
            .map_err(|error| format!("http://{}{}: {error}", self.authority, self.path))
    }

    async fn exchange(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let dialled = self.dialer.dial(&self.authority).await;
        let stream = dialled.map_err(|error| chain(&error))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| chain(&error))?;
        let mut driver = JoinSet::new(); // ends the connection when this call ends, however it does
        driver.spawn(connection);
        let request = Request::get(&self.path)
            .header(header::HOST, &self.authority)
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| chain(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err("this machine has no such role: bind it to the CVM in CAM".to_owned());
            }
            status => return Err(format!("the answer is {status}")),
        }
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES);
        let body = body.collect().await.map_err(|error| error.to_string())?;
        Ok(Zeroizing::new(body.to_bytes().to_vec()))
    }
}
