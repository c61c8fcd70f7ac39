//! The configuration of a bucket, and the access rights and the restoration of an object: documents that are
//! stored and returned as they arrived. `s3s` passes these requests on when it has verified the caller.

use std::sync::Arc;

use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use quick_xml::Reader;
use quick_xml::events::Event;
use s3s::route::S3Route;
use s3s::{Body, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::emulator::document::{XML_LIMIT, has_parameter};
use crate::emulator::gate::RequestFacts;
use crate::emulator::head::path_in_bucket;
use crate::emulator::s3::request_facts;
use crate::emulator::store::{Attributes, BucketAbout, Store};

/// The namespace of the grantee's type.
const OWNER: &str = "qcs::cam::uin/100000000001:uin/100000000001";
const XSI: &str = "xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"";
const ALL_USERS: &str = "http://cam.qcloud.com/groups/global/AllUsers";

/// One kind of setting, as COS's pages document it.
struct Setting {
    /// The parameter that selects it.
    parameter: &'static str,
    root: &'static str,
    /// The actions that read, set and remove it; empty where COS has no such action.
    actions: [&'static str; 3],
    /// The error code when nothing is set; empty when COS responds with an empty document.
    absent: &'static str,
    /// Every element that its document may contain.
    elements: &'static [&'static str],
}

const ACL_ELEMENTS: &[&str] = &[
    "AccessControlList",
    "DisplayName",
    "Grant",
    "Grantee",
    "ID",
    "Owner",
    "Permission",
    "URI",
];

/// 436/33411, 436/7737, 436/8279, 436/40136, 436/8280, 436/17054, 436/40133, 436/19223, 436/34838, 436/19889,
/// 436/31930.
const OF_BUCKETS: [Setting; 11] = [
    Setting {
        parameter: "accelerate",
        root: "AccelerateConfiguration",
        actions: ["GetBucketAccelerate", "PutBucketAccelerate", ""],
        absent: "",
        elements: &["Status", "Type"],
    },
    Setting {
        parameter: "acl",
        root: "AccessControlPolicy",
        actions: ["GetBucketACL", "PutBucketACL", ""],
        absent: "",
        elements: ACL_ELEMENTS,
    },
    Setting {
        parameter: "cors",
        root: "CORSConfiguration",
        actions: ["GetBucketCORS", "PutBucketCORS", "DeleteBucketCORS"],
        absent: "NoSuchCORSConfiguration",
        elements: &[
            "AllowedHeader",
            "AllowedMethod",
            "AllowedOrigin",
            "CORSRule",
            "ExposeHeader",
            "ID",
            "MaxAgeSeconds",
            "ResponseVary",
        ],
    },
    Setting {
        parameter: "encryption",
        root: "ServerSideEncryptionConfiguration",
        actions: [
            "GetBucketEncryption",
            "PutBucketEncryption",
            "DeleteBucketEncryption",
        ],
        absent: "NoSuchEncryptionConfiguration",
        elements: &[
            "ApplyServerSideEncryptionByDefault",
            "KMSMasterKeyID",
            "Rule",
            "SSEAlgorithm",
        ],
    },
    Setting {
        parameter: "lifecycle",
        root: "LifecycleConfiguration",
        actions: [
            "GetBucketLifecycle",
            "PutBucketLifecycle",
            "DeleteBucketLifecycle",
        ],
        absent: "NoSuchLifecycleConfiguration",
        elements: &[
            "AbortIncompleteMultipartUpload",
            "And",
            "Date",
            "Days",
            "DaysAfterInitiation",
            "Expiration",
            "ExpiredObjectDeleteMarker",
            "Filter",
            "ID",
            "Key",
            "NoncurrentDays",
            "NoncurrentVersionExpiration",
            "NoncurrentVersionTransition",
            "ObjectSizeGreaterThan",
            "ObjectSizeLessThan",
            "Prefix",
            "PrefixNotEquals",
            "Rule",
            "Status",
            "StorageClass",
            "Tag",
            "Transition",
            "Value",
        ],
    },
    Setting {
        parameter: "logging",
        root: "BucketLoggingStatus",
        actions: ["GetBucketLogging", "PutBucketLogging", ""],
        absent: "",
        elements: &["LoggingEnabled", "TargetBucket", "TargetPrefix"],
    },
    Setting {
        parameter: "object-lock",
        root: "ObjectLockConfiguration",
        actions: [
            "GetBucketObjectLockConfiguration",
            "PutBucketObjectLockConfiguration",
            "",
        ],
        absent: "ObjectLockConfigurationNotFoundError",
        elements: &[
            "Days",
            "DefaultRetention",
            "Mode",
            "ObjectLockEnabled",
            "Rule",
        ],
    },
    Setting {
        parameter: "replication",
        root: "ReplicationConfiguration",
        actions: [
            "GetBucketReplication",
            "PutBucketReplication",
            "DeleteBucketReplication",
        ],
        // As in COS's SDK for Node.js.
        absent: "ReplicationConfigurationnotFoundError",
        elements: &[
            "Bucket",
            "DeleteMarkerReplication",
            "Destination",
            "ID",
            "Prefix",
            "Role",
            "Rule",
            "Status",
            "StorageClass",
        ],
    },
    Setting {
        parameter: "tagging",
        root: "Tagging",
        actions: [
            "GetBucketTagging",
            "PutBucketTagging",
            "DeleteBucketTagging",
        ],
        absent: "NoSuchTagSet",
        elements: &["Key", "Tag", "TagSet", "Value"],
    },
    Setting {
        parameter: "versioning",
        root: "VersioningConfiguration",
        actions: ["GetBucketVersioning", "PutBucketVersioning", ""],
        absent: "",
        elements: &["Status"],
    },
    Setting {
        parameter: "website",
        root: "WebsiteConfiguration",
        actions: [
            "GetBucketWebsite",
            "PutBucketWebsite",
            "DeleteBucketWebsite",
        ],
        absent: "NoSuchWebsiteConfiguration",
        elements: &[
            "AutoAddressing",
            "Condition",
            "ErrorDocument",
            "HttpErrorCodeReturnedEquals",
            "IndexDocument",
            "Key",
            "KeyPrefixEquals",
            "OriginalHttpStatus",
            "Protocol",
            "Redirect",
            "RedirectAllRequestsTo",
            "ReplaceKeyPrefixWith",
            "ReplaceKeyWith",
            "RoutingRule",
            "RoutingRules",
            "Status",
            "Suffix",
        ],
    },
];

/// 436/7748, 436/12633, 436/58039.
const OF_OBJECTS: [Setting; 3] = [
    Setting {
        parameter: "acl",
        root: "AccessControlPolicy",
        actions: ["GetObjectACL", "PutObjectACL", ""],
        absent: "",
        elements: ACL_ELEMENTS,
    },
    Setting {
        parameter: "restore",
        root: "RestoreRequest",
        actions: ["", "PostObjectRestore", ""],
        absent: "",
        elements: &["CASJobParameters", "Days", "Tier"],
    },
    Setting {
        parameter: "retention",
        root: "Retention",
        actions: ["GetObjectRetention", "PutObjectRetention", ""],
        absent: "NoSuchObjectLockConfiguration",
        elements: &["Mode", "RetainUntilDate"],
    },
];

/// The route of `s3s` to the settings.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) store: Arc<Store>,
}

impl Setting {
    /// The requested setting, if the request names one, and its action.
    fn of(
        method: &Method,
        uri: &Uri,
        extensions: &Extensions,
    ) -> Option<(&'static Self, &'static str)> {
        let query = uri.query().unwrap_or_default();
        let settings: &[Self] = if path_in_bucket(extensions, uri) == "/" {
            &OF_BUCKETS
        } else {
            &OF_OBJECTS
        };
        let mut settings = settings.iter();
        let setting = settings.find(|setting| has_parameter(query, setting.parameter))?;
        let [reads, sets, removes] = setting.actions;
        let restores = setting.parameter == "restore";
        let action = match *method {
            Method::GET => reads,
            Method::PUT if !restores => sets,
            Method::POST if restores => sets,
            Method::DELETE => removes,
            _ => "",
        };
        (!action.is_empty()).then_some((setting, action))
    }

    /// Refuses a document whose elements are not on COS's page.
    fn check(&self, document: &str) -> S3Result<()> {
        let malformed = || s3_error!(MalformedXML, "The XML is not well-formed.");
        let mut reader = Reader::from_str(document);
        let (mut depth, mut has_root) = (0_usize, false);
        loop {
            match reader.read_event().map_err(|_| malformed())? {
                Event::Start(start) => {
                    self.check_name(start.name().into_inner(), depth)?;
                    has_root = true;
                    depth += 1;
                }
                Event::Empty(start) => {
                    self.check_name(start.name().into_inner(), depth)?;
                    has_root = true;
                }
                Event::End(_) => depth = depth.saturating_sub(1),
                Event::Eof if has_root && depth == 0 => return Ok(()),
                Event::Eof => return Err(malformed()),
                _ => {}
            }
        }
    }

    fn check_name(&self, name: &str, depth: usize) -> S3Result<()> {
        let is_known = match depth {
            0 => name == self.root,
            _ => self.elements.contains(&name),
        };
        if is_known {
            return Ok(());
        }
        let message = format!("The element {name} is not allowed there.");
        Err(S3Error::with_message(S3ErrorCode::MalformedXML, message))
    }
}

/// Whether `action` is the action of a setting.
#[cfg(test)]
pub(super) fn is_action(action: &str) -> bool {
    let mut settings = OF_BUCKETS.iter().chain(&OF_OBJECTS);
    let action = action.strip_prefix("name/cos:").unwrap_or(action);
    settings.any(|setting| setting.actions.contains(&action))
}

#[async_trait::async_trait]
impl S3Route for Settings {
    fn is_match(
        &self,
        method: &Method,
        uri: &Uri,
        _: &HeaderMap,
        extensions: &mut Extensions,
    ) -> bool {
        Setting::of(method, uri, extensions).is_some()
    }

    async fn check_access(&self, req: &mut S3Request<Body>) -> S3Result<()> {
        let facts = request_facts(req)?;
        if req.credentials.is_none() && !facts.verified {
            return Err(s3_error!(AccessDenied, "Access Denied."));
        }
        let (_, action) = Setting::of(&req.method, &req.uri, &req.extensions)
            .ok_or_else(|| s3_error!(NotImplemented))?;
        let (bucket, key) = Self::target(req)?;
        facts.check(
            &format!("name/cos:{action}"),
            Some(&format!("{bucket}/{key}")),
        )
    }

    async fn call(&self, req: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let (setting, _) = Setting::of(&req.method, &req.uri, &req.extensions)
            .ok_or_else(|| s3_error!(NotImplemented))?;
        let (bucket, key) = Self::target(&req)?;
        let in_headers = match setting.parameter {
            "acl" => rights_in_headers(&req.headers)?,
            _ => None,
        };
        let is_read = req.method == Method::GET;
        let is_removal = req.method == Method::DELETE;
        // The document has been read whole before; `s3s` may have wrapped it since.
        let document = Limited::new(req.input, XML_LIMIT).collect().await;
        let document = document.map_err(|_| s3_error!(IncompleteBody))?.to_bytes();
        let document = String::from_utf8(document.to_vec());
        let document = document.map_err(|_| s3_error!(MalformedXML))?;
        let new = match in_headers {
            Some(rights) if document.is_empty() => Some(rights),
            _ if is_read || is_removal => None,
            _ => {
                setting.check(&document)?;
                Some(document)
            }
        };
        if setting.parameter == "restore" {
            return self.restore(&bucket, &key);
        }
        if is_read {
            return self.read(setting, &bucket, &key);
        }
        if key.is_empty() {
            self.store
                .change_bucket(&bucket, |about| about.set(setting.parameter, new))?;
        } else {
            let change = |attributes: &mut Attributes| match setting.parameter {
                "retention" => attributes.retention = new,
                _ => attributes.acl = new,
            };
            self.store.change_object(&bucket, &key, change)?;
        }
        Ok(empty(if is_removal {
            StatusCode::NO_CONTENT
        } else {
            StatusCode::OK
        }))
    }
}

impl Settings {
    /// The bucket and the key that a request names. The key is empty for a bucket.
    pub(super) fn target<T>(req: &S3Request<T>) -> S3Result<(String, String)> {
        let RequestFacts { bucket, .. } = request_facts(req)?;
        let name = bucket.clone().ok_or_else(|| s3_error!(NoSuchBucket))?;
        let path = path_in_bucket(&req.extensions, &req.uri);
        let path = path.strip_prefix('/').unwrap_or_default();
        let key = crate::encoding::percent::percent_decode(path);
        let key = key.and_then(|key| String::from_utf8(key.into_owned()).ok());
        let key = key.ok_or_else(|| s3_error!(InvalidURI))?;
        Ok((name, key))
    }

    fn read(&self, setting: &Setting, bucket: &str, key: &str) -> S3Result<S3Response<Body>> {
        let stored = if key.is_empty() {
            let about: BucketAbout = self
                .store
                .bucket(bucket)
                .ok_or_else(|| s3_error!(NoSuchBucket))?;
            about.settings.get(setting.parameter).cloned()
        } else {
            let object = self.store.object(bucket, key)?;
            match setting.parameter {
                "retention" => object.attributes.retention.clone(),
                _ => object.attributes.acl.clone(),
            }
        };
        let document = match stored {
            Some(stored) => stored,
            None if setting.parameter == "acl" => acl_document("private")?,
            None if setting.absent.is_empty() => format!("<{}></{}>", setting.root, setting.root),
            None => {
                let code = S3ErrorCode::Custom(setting.absent.into());
                let mut error = S3Error::with_message(code, "It is not configured.");
                error.set_status_code(StatusCode::NOT_FOUND);
                return Err(error);
            }
        };
        let mut response = S3Response::new(Body::from(document));
        let xml = HeaderValue::from_static("application/xml");
        response.headers.insert("content-type", xml);
        Ok(response)
    }

    /// The emulator restores nothing: objects in cold storage can be read at once.
    fn restore(&self, bucket: &str, key: &str) -> S3Result<S3Response<Body>> {
        let object = self.store.object(bucket, key)?;
        let class = object.attributes.storage_class.as_deref();
        if !matches!(class, Some("ARCHIVE" | "DEEP_ARCHIVE" | "GLACIER")) {
            let code = S3ErrorCode::Custom("RestoreNonArchiveObject".into());
            let mut error = S3Error::with_message(code, "The object is not in cold storage.");
            error.set_status_code(StatusCode::METHOD_NOT_ALLOWED);
            return Err(error);
        }
        Ok(empty(StatusCode::ACCEPTED))
    }
}

impl BucketAbout {
    /// Stores or removes the document of `parameter`.
    fn set(&mut self, parameter: &str, document: Option<String>) {
        match document {
            Some(document) => _ = self.settings.insert(parameter.to_owned(), document),
            None => _ = self.settings.remove(parameter),
        }
    }
}

/// The rights in a request's headers: one preset, or account by account (436/7737, 436/7748).
fn rights_in_headers(headers: &HeaderMap) -> S3Result<Option<String>> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(canned) = header("x-amz-acl") {
        return acl_document(canned).map(Some);
    }
    let mut grants = String::new();
    for (name, permission) in [
        ("x-amz-grant-full-control", "FULL_CONTROL"),
        ("x-amz-grant-read", "READ"),
        ("x-amz-grant-read-acp", "READ_ACP"),
        ("x-amz-grant-write", "WRITE"),
        ("x-amz-grant-write-acp", "WRITE_ACP"),
    ] {
        for grantee in header(name).into_iter().flat_map(|value| value.split(',')) {
            let id = grantee.trim().strip_prefix("id=\"");
            let id = id.and_then(|id| id.strip_suffix('"'));
            let id = id.ok_or_else(|| s3_error!(InvalidArgument, "The account is invalid."))?;
            let (owner, user) = id.split_once('/').unwrap_or((id, id));
            let id = format!("qcs::cam::uin/{owner}:uin/{user}");
            let id = format!("<ID>{id}</ID><DisplayName>{id}</DisplayName>");
            let grantee = format!("<Grantee {XSI} xsi:type=\"CanonicalUser\">{id}</Grantee>");
            let permission = format!("<Permission>{permission}</Permission>");
            grants.extend(["<Grant>", &grantee, &permission, "</Grant>"]);
        }
    }
    Ok((!grants.is_empty()).then(|| rights_document(&grants)))
}

/// The rights of a preset (436/30752).
fn acl_document(canned: &str) -> S3Result<String> {
    let everybody: &[&str] = match canned {
        "private" | "default" => &[],
        "public-read" => &["READ"],
        "public-read-write" => &["READ", "WRITE"],
        _ => {
            return Err(s3_error!(
                InvalidArgument,
                "The preset of access rights is unknown."
            ));
        }
    };
    let everybody = everybody.iter().map(|permission| {
        format!(
            "<Grant><Grantee {XSI} xsi:type=\"Group\"><URI>{ALL_USERS}</URI></Grantee>\
             <Permission>{permission}</Permission></Grant>"
        )
    });
    Ok(rights_document(&everybody.collect::<String>()))
}

/// The document of these rights and of the owner's own.
fn rights_document(others: &str) -> String {
    let owner = format!("<ID>{OWNER}</ID><DisplayName>{OWNER}</DisplayName>");
    format!(
        "<AccessControlPolicy><Owner>{owner}</Owner><AccessControlList>{others}<Grant>\
         <Grantee {XSI} xsi:type=\"CanonicalUser\">{owner}</Grantee>\
         <Permission>FULL_CONTROL</Permission></Grant></AccessControlList></AccessControlPolicy>"
    )
}

fn empty(status: StatusCode) -> S3Response<Body> {
    S3Response::with_status(Body::empty(), status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_match_the_published_table() {
        let table = include_str!("../../tests/vectors/cos-actions.json");
        for setting in OF_BUCKETS.iter().chain(&OF_OBJECTS) {
            for action in setting.actions.iter().filter(|action| !action.is_empty()) {
                assert!(
                    table.contains(&format!("\"name/cos:{action}\"")),
                    "{action}"
                );
            }
        }
    }
}
