//! The metadata service of a CVM, which gives the key of the role that the machine has.
//!
//! <https://cloud.tencent.com/document/product/213/4934>

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Full;
use zeroize::Zeroizing;

use super::key_document::DOCUMENT_BYTES;
use crate::upstream::dial::Dialer;
use crate::upstream::one_shot::OneShotClient;

/// Limit of one request: the service is on this machine's own network.
const CALL_TIME: Duration = Duration::from_secs(3);

/// Where a role's key is requested.
#[derive(Debug)]
pub(super) struct Metadata {
    client: OneShotClient,
    path: String,
}

impl Metadata {
    pub(super) fn new(authority: &str, prefix: &str, role: &str) -> Self {
        let dialer = Dialer::new(None, None, CALL_TIME, CALL_TIME);
        Self {
            client: OneShotClient::new(authority, dialer, CALL_TIME, DOCUMENT_BYTES),
            path: format!("{prefix}/latest/meta-data/cam/security-credentials/{role}"),
        }
    }

    /// The response's body.
    pub(super) async fn get(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let (authority, path) = (self.client.authority(), &self.path);
        let body = self.exchange().await;
        body.map_err(|error| format!("http://{authority}{path}: {error}"))
    }

    async fn exchange(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let request = Request::get(&self.path).body(Full::default());
        let request = request.map_err(|error| error.to_string())?;
        let response = self.client.send(request).await;
        let response = response.map_err(|error| error.to_string())?;
        match response.status {
            StatusCode::OK => Ok(response.body),
            StatusCode::NOT_FOUND => {
                Err("this machine has no such role: bind it to the CVM in CAM".to_owned())
            }
            status => Err(format!("the response is {status}")),
        }
    }
}
