//! Presigned URLs of Signature Version 2, where they are allowed.

use std::sync::Arc;

use http::request::Parts;

use super::{
    Authenticated, Identity, Tenants, content_sha256, decoded_path, unknown_key, wrong_signature,
};
use crate::error::S3Error;
use crate::payload::Mode;
use crate::s3::{ObjectKey, S3Request};
use crate::sign::sigv2;
use crate::timestamp::Timestamp;

impl Tenants {
    /// Checks a presigned URL of Signature Version 2. As in `Tenants::signed`, all but the body's
    /// mode is verified first.
    pub(super) fn presigned_v2(
        &self,
        head: &Parts,
        requested: &S3Request<'_>,
        claim: &sigv2::SigV2Claim<'_>,
        now: Timestamp,
    ) -> Result<Authenticated, S3Error> {
        claim.check_life(now, self.max_presign)?;
        let path = decoded_path(head)?;
        let key = requested.key.as_ref().map_or("", ObjectKey::as_str);
        // Where the host names the bucket, the path is the key and nothing else.
        let path_is_key = path.strip_prefix(b"/") == Some(key.as_bytes());
        let request = sigv2::SigV2Request {
            method: head.method.as_str(),
            bucket: requested.bucket.as_deref().filter(|_| path_is_key),
            path: head.uri.path(),
            raw_query: head.uri.query().unwrap_or_default(),
            query: requested.query.pairs(),
            headers: &head.headers,
        };
        let payload = content_sha256(&head.headers)?;

        let known = self.keys.get(claim.access_key);
        let verified = claim.verify(&request, &known.unwrap_or(&self.nobody).secret);
        let (key, tenant) = known
            .and_then(|key| Some((key, self.all.get(key.tenant)?)))
            .ok_or_else(unknown_key)?;
        if !verified {
            return Err(wrong_signature());
        }
        key.check_end(now)?;
        let identity = Identity::PresignedV2(Arc::clone(&key.id));
        let payload = payload.map_or(Ok(Mode::Unsigned), Mode::parse)?;
        Ok(Authenticated::new(tenant, identity, payload))
    }
}
