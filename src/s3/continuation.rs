//! The continuation tokens that cosgate makes: a key marker in base64.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::error::{Code, S3Error};

/// The marker that a continuation token of ours stands for.
pub(crate) fn marker_of_token(token: &str) -> Result<String, S3Error> {
    let marker = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
    marker
        .and_then(|marker| String::from_utf8(marker).ok())
        .ok_or_else(|| {
            let text = "The continuation token provided is incorrect: send back the last NextContinuationToken as it was.";
            S3Error::new(Code::InvalidArgument, text)
        })
}

/// The continuation token for a listing that goes on after `marker`.
pub(crate) fn token_of_marker(marker: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(marker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_marker() {
        for marker in ["acme/b & c", "中", ""] {
            assert_eq!(marker_of_token(&token_of_marker(marker)).unwrap(), marker);
        }
    }

    #[test]
    fn a_made_up_token_is_refused() {
        for token in ["*", "YQ==", "_w"] {
            assert_eq!(
                marker_of_token(token).unwrap_err().code(),
                Code::InvalidArgument
            );
        }
    }
}
