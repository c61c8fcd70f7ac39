//! Translation between the S3 that clients speak and COS. Pure.
//!
//! Toward COS a fresh head is built from the [`Permit`](crate::tenant::Permit)'s typed parts and an
//! allow-list; nothing of the client's head is forwarded as it came. On the way back, headers pass
//! an allow-list, and bodies that name the real bucket are rewritten while they stream.

mod attachment;
mod attributes;
mod configuration;
mod cos;
mod element;
pub mod listing;
mod names;
mod precheck;
mod range;
pub(crate) mod request;
mod response;
mod version_two;

pub(crate) use attachment::{as_attachment, is_attachment, not_sniffed};
pub use attributes::attributes;
pub(crate) use configuration::{configuration, configuration_for_cos};
pub(crate) use names::Unfit;
pub use precheck::{Precheck, Requirement, prechecks};
pub(crate) use precheck::{head_of_whole_read, no_such_part};
pub(crate) use range::check_range;
pub use request::{UpstreamRequest, request};
pub(crate) use response::{
    as_only_part, delete_marker, delete_result, error_code_of, is_clock_refusal,
    is_credential_refusal, is_damage, read_error, response_headers, upstream_error,
};

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use crate::config::{
        EndpointTemplate, PrefixPattern, StoredCheck, Upstream, UpstreamLimits, UpstreamSignature,
    };
    use crate::s3::{ObjectKey, Operation, Query, S3Request};
    use crate::tenant::{Grant, Tenant};

    /// A COS in the cloud, spoken to with `signature`.
    pub(super) fn upstream(signature: UpstreamSignature) -> Upstream {
        let endpoint = |authority: &str| EndpointTemplate {
            tls: true,
            authority: authority.into(),
            path: String::new(),
        };
        Upstream {
            endpoint: endpoint("{bucket}.cos.{region}.myqcloud.com"),
            service_endpoint: endpoint("service.cos.myqcloud.com"),
            signature,
            connect_to: None,
            ca_file: None::<PathBuf>,
            stored_check: StoredCheck::Crc64Ecma,
            spool_unknown_length: 0,
            limits: UpstreamLimits {
                connect_timeout: Duration::from_secs(3),
                tls_handshake_timeout: Duration::from_secs(5),
                head_timeout: Duration::from_secs(30),
                idle_timeout: Duration::from_secs(50),
                idle_connections: 1,
            },
        }
    }

    /// A tenant with all rights below `acme/` of the bucket `photos`, and reading all of `public`.
    pub(super) fn tenant() -> Tenant {
        let grant = |alias: &str, bucket: &str, region: &str, prefix| Grant {
            name: alias.into(),
            bucket: bucket.into(),
            region: region.into(),
            root: String::new(),
            prefixes: vec![prefix],
            actions: OPERATIONS.map(|o| o.action().into()).to_vec(),
            headers: Vec::new(),
            policy: None,
            attachment: false,
            cors: [].into(),
            session: None,
        };
        let folder = PrefixPattern::StartsWith("acme/".into());
        Tenant {
            index: 0,
            name: "acme".into(),
            grants: vec![
                grant("photos", "shared-1250000000", "ap-guangzhou", folder),
                grant(
                    "public",
                    "open-1250000001",
                    "ap-beijing",
                    PrefixPattern::Any,
                ),
            ],
            limits: None,
        }
    }

    pub(super) fn s3_request<'r>(
        operation: Operation,
        bucket: &'r str,
        key: &'r str,
        query: &'r str,
    ) -> S3Request<'r> {
        S3Request {
            operation,
            bucket: Some(bucket.into()),
            key: (!key.is_empty()).then(|| ObjectKey::from_decoded(key.into()).unwrap()),
            query: Query::parse(query).unwrap(),
            copy_source: None,
        }
    }

    /// Every operation that is forwarded, but for copies.
    pub(super) const OPERATIONS: [Operation; 17] = [
        Operation::AbortMultipartUpload,
        Operation::CompleteMultipartUpload,
        Operation::CreateMultipartUpload,
        Operation::DeleteObject,
        Operation::DeleteObjectTagging,
        Operation::DeleteObjects,
        Operation::GetObject,
        Operation::GetObjectTagging,
        Operation::HeadObject,
        Operation::ListMultipartUploads,
        Operation::ListObjectVersions,
        Operation::ListObjects,
        Operation::ListObjectsV2,
        Operation::ListParts,
        Operation::PutObject,
        Operation::PutObjectTagging,
        Operation::UploadPart,
    ];
}
