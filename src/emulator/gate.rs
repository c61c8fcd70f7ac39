//! Authorization: the identity that `s3s` verifies, and the policy that is enforced on it.

use std::sync::Arc;

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::{
    CopyObjectInput, CopySource, DeleteObjectsInput, PostObjectInput, UploadPartCopyInput,
};
use s3s::host::{S3Host, VirtualHost};
use s3s::path::S3Path;
use s3s::{S3Request, S3Result, s3_error};

use crate::emulator::address::HostKind;
use crate::emulator::behaviour::{Behaviours, CosBehaviour};
use crate::emulator::cam::Attempt;
use crate::emulator::keys::{AccountKeys, TemporaryKey};

/// The caller and the target of a request, as its head gives them. It travels with the request through `s3s`.
#[derive(Clone, Debug)]
pub(super) struct RequestFacts {
    /// `None` means the account itself, which may do everything.
    pub(super) key: Option<Arc<TemporaryKey>>,
    /// The signature was a native one and is already verified.
    pub(super) verified: bool,
    /// Accounts other than the caller's.
    pub(super) other_accounts: Vec<String>,
    /// The Host header.
    pub(super) host: String,
    /// The bucket that the request is for.
    pub(super) bucket: Option<String>,
    pub(super) region: String,
    /// The region of the bucket that a copy reads from.
    pub(super) source_region: String,
    pub(super) appid: String,
    pub(super) prefix: String,
    /// Maximum entries on a page of a listing, in place of the requested number.
    pub(super) page: Option<u32>,
    pub(super) behaviours: Behaviours,
    /// The condition keys that the request has.
    pub(super) facts: Vec<(&'static str, String)>,
}

impl RequestFacts {
    /// Whether the caller may do `action` on `path`, which is `bucket/key`; `None` means the service.
    fn may(&self, action: &str, path: Option<&str>) -> bool {
        let bucket = path.map(|path| path.split('/').next().unwrap_or(path));
        let owner = bucket.and_then(|bucket| Some(bucket.rsplit_once('-')?.1));
        if owner.is_some_and(|owner| self.other_accounts.iter().any(|other| other == owner)) {
            return false;
        }
        let attempt = Attempt {
            action,
            region: &self.region,
            appid: &self.appid,
            path,
            facts: &self.facts,
        };
        self.key
            .as_ref()
            .and_then(|key| key.policy.as_ref())
            .is_none_or(|policy| policy.allows(&attempt))
    }

    /// The bucket of a copy's source, whose first part is `named`.
    pub(super) fn source_bucket<'n>(&self, named: &'n str) -> &'n str {
        let is_read = self.behaviours.has(CosBehaviour::AcceptsEitherCopySource);
        let bucket = named.split_once(".cos.").map(|(bucket, _)| bucket);
        bucket.filter(|_| is_read).unwrap_or(named)
    }

    pub(super) fn check(&self, action: &str, path: Option<&str>) -> S3Result<()> {
        if self.may(action, path) {
            Ok(())
        } else {
            Err(s3_error!(AccessDenied, "Access Denied."))
        }
    }
}

/// Keys of a multi-delete that the policy denies, kept for the response.
#[derive(Clone, Debug, Default)]
pub(super) struct DeniedKeys(pub(super) Vec<String>);

const DELETE_OBJECT: &str = "name/cos:DeleteObject";
const DELETE_OBJECTS: &str = "DeleteObjects";
const POST_OBJECT: &str = "PostObject";
const GET_OBJECT: &str = "name/cos:GetObject";

/// Each S3 operation with its CAM action (436/31923).
const ACTIONS: [(&str, &str); 25] = [
    ("AbortMultipartUpload", "name/cos:AbortMultipartUpload"),
    (
        "CompleteMultipartUpload",
        "name/cos:CompleteMultipartUpload",
    ),
    ("CopyObject", "name/cos:PutObject"),
    ("CreateBucket", "name/cos:PutBucket"),
    ("DeleteBucket", "name/cos:DeleteBucket"),
    ("CreateMultipartUpload", "name/cos:InitiateMultipartUpload"),
    ("DeleteObject", DELETE_OBJECT),
    ("DeleteObjectTagging", "name/cos:DeleteObjectTagging"),
    (DELETE_OBJECTS, DELETE_OBJECT),
    ("GetBucketLocation", "name/cos:GetBucketLocation"),
    ("GetObject", GET_OBJECT),
    ("GetObjectTagging", "name/cos:GetObjectTagging"),
    ("HeadBucket", "name/cos:HeadBucket"),
    ("HeadObject", "name/cos:HeadObject"),
    ("ListBuckets", "name/cos:GetService"),
    ("ListMultipartUploads", "name/cos:ListMultipartUploads"),
    ("ListObjectVersions", "name/cos:GetBucketObjectVersions"),
    ("ListObjects", "name/cos:GetBucket"),
    ("ListObjectsV2", "name/cos:GetBucket"),
    ("ListParts", "name/cos:ListParts"),
    (POST_OBJECT, "name/cos:PostObject"),
    ("PutObject", "name/cos:PutObject"),
    ("PutObjectTagging", "name/cos:PutObjectTagging"),
    ("UploadPart", "name/cos:UploadPart"),
    ("UploadPartCopy", "name/cos:PutObject"),
];

/// Gives `s3s` the secret key with which it verifies SigV4.
#[derive(Debug)]
pub(super) struct SecretLookup(pub(super) Arc<AccountKeys>);

#[async_trait::async_trait]
impl S3Auth for SecretLookup {
    async fn get_secret_key(&self, id: &str) -> S3Result<SecretKey> {
        let key = self
            .0
            .find(id)
            .ok_or_else(|| s3_error!(InvalidAccessKeyId))?;
        Ok(SecretKey::from(key.secret().expose()))
    }
}

/// Finds for `s3s` the bucket that a Host names.
#[derive(Debug)]
pub(super) struct Hosts {
    pub(super) suffix: String,
    /// Whether any other Host is accepted as path style: the path names the bucket.
    pub(super) path_style: bool,
}

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        match HostKind::parse(host, &self.suffix) {
            Some(HostKind::Bucket { name, region }) => {
                Ok(VirtualHost::new(host).with_bucket(name).with_region(region))
            }
            Some(HostKind::Region(region)) => Ok(VirtualHost::new(host).with_region(region)),
            Some(HostKind::Service) => Ok(VirtualHost::new(host)),
            None if self.path_style => Ok(VirtualHost::new(host)),
            None => Err(s3_error!(NoSuchBucket)),
        }
    }
}

/// Decides for `s3s` whether a verified caller may continue.
#[derive(Debug)]
pub(super) struct Policies;

#[async_trait::async_trait]
impl S3Access for Policies {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let facts = cx
            .extensions_mut()
            .get::<RequestFacts>()
            .cloned()
            .ok_or_else(|| s3_error!(InternalError))?;
        if cx.credentials().is_none() && !facts.verified {
            return Err(s3_error!(AccessDenied, "Access Denied."));
        }
        let operation = cx.s3_op().name();
        let action = action_of(operation).ok_or_else(|| s3_error!(NotImplemented))?;
        if [DELETE_OBJECTS, POST_OBJECT].contains(&operation) {
            return Ok(()); // each key is checked below
        }
        let path = match cx.s3_path() {
            S3Path::Root => None,
            // Not documented: official SDKs request listings with the prefix as the key (436/31923).
            S3Path::Bucket { bucket } if operation.starts_with("List") => {
                Some(format!("{bucket}/{}", facts.prefix))
            }
            S3Path::Bucket { bucket } => Some(format!("{bucket}/")),
            S3Path::Object { bucket, key } => Some(format!("{bucket}/{key}")),
        };
        facts.check(action, path.as_deref())
    }

    async fn copy_object(&self, req: &mut S3Request<CopyObjectInput>) -> S3Result<()> {
        check_source(req, &req.input.copy_source)
    }

    async fn upload_part_copy(&self, req: &mut S3Request<UploadPartCopyInput>) -> S3Result<()> {
        check_source(req, &req.input.copy_source)
    }

    async fn post_object(&self, req: &mut S3Request<PostObjectInput>) -> S3Result<()> {
        let path = format!("{}/{}", req.input.bucket, req.input.key);
        request_facts(req)?.check("name/cos:PostObject", Some(&path))
    }

    async fn delete_objects(&self, req: &mut S3Request<DeleteObjectsInput>) -> S3Result<()> {
        let facts = request_facts(req)?;
        let bucket = req.input.bucket.clone();
        let objects = std::mem::take(&mut req.input.delete.objects);
        let may = |key: &str| facts.may(DELETE_OBJECT, Some(&format!("{bucket}/{key}")));
        let (allowed, denied): (Vec<_>, Vec<_>) =
            objects.into_iter().partition(|object| may(&object.key));
        req.input.delete.objects = allowed;
        req.extensions.insert(DeniedKeys(
            denied.into_iter().map(|object| object.key).collect(),
        ));
        Ok(())
    }
}

/// The action of an S3 operation; `None` when the emulator does not support it.
pub(super) fn action_of(operation: &str) -> Option<&'static str> {
    ACTIONS
        .iter()
        .find(|(name, _)| *name == operation)
        .map(|(_, action)| *action)
}

fn check_source<T>(req: &S3Request<T>, source: &CopySource) -> S3Result<()> {
    match source {
        CopySource::Bucket { bucket, key, .. } => {
            let mut facts = request_facts(req)?;
            facts.region = std::mem::take(&mut facts.source_region);
            let bucket = facts.source_bucket(bucket);
            facts.check(GET_OBJECT, Some(&format!("{bucket}/{key}")))
        }
        _ => Err(s3_error!(InvalidArgument, "Copy source is not bucket/key.")),
    }
}

fn request_facts<T>(req: &S3Request<T>) -> S3Result<RequestFacts> {
    req.extensions
        .get::<RequestFacts>()
        .cloned()
        .ok_or_else(|| s3_error!(InternalError))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_match_the_published_table() {
        let table = include_str!("../../tests/vectors/cos-actions.json");
        let table: serde_json::Value = serde_json::from_str(table).unwrap();
        for (operation, action) in ACTIONS {
            let mut rows = table["rows"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|r| r["s3_operation"] == operation);
            assert!(rows.any(|r| r["cos_action"] == action), "{operation}");
        }
    }
}
