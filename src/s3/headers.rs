//! headers

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Operation, S3Error};

/// Stand-in.
pub fn forwardable(
    _operation: Operation,
    headers: &HeaderMap,
    _actions: &[String],
    _granted: &[String],
) -> Result<Vec<(HeaderName, HeaderValue)>, S3Error> {
    Ok(headers
        .iter()
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect())
}
