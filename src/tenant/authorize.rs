//! Authorization: [`Authenticated::authorize`] checks a request against the caller's grants. It is the only maker of a
//! [`Permit`].

use std::borrow::Cow;

use super::listing::{self, ListingPage};
use super::{Authenticated, Grant, Tenant};
use crate::error::{Code, S3Error};
use crate::s3::address::{MAX_KEY_BYTES, begins_with_slash, no_such_key};
use crate::s3::{ObjectKey, Operation, Performer, S3Request, Target};

/// The proof that a request may be done: the only thing that can be rewritten for COS.
#[derive(Debug)]
pub struct Permit<'t, 'r> {
    request: S3Request<'r>,
    tenant: &'t Tenant,
    grant: Option<&'t Grant>,
    source: Option<&'t Grant>,
    page: ListingPage,
    reaches_cos: bool,
}

impl Authenticated {
    /// Checks `requested` against the caller's grants.
    pub fn authorize<'r>(&self, requested: S3Request<'r>) -> Result<Permit<'_, 'r>, S3Error> {
        Permit::check(self.tenant(), requested)
    }
}

impl<'t, 'r> Permit<'t, 'r> {
    /// Everything is refused that no grant names: there is no other way to a `Permit`.
    fn check(tenant: &'t Tenant, requested: S3Request<'r>) -> Result<Self, S3Error> {
        let (mut grant, mut source) = (None, None);
        let (mut page, mut reaches_cos) = (ListingPage::AsRequested, false);
        if requested.operation.target() != Target::Service {
            let granted = bucket_grant(tenant, &requested)?;
            page = judge(granted, &requested)?;
            reaches_cos = reaches_cos_within(granted, &requested);
            source = copy_source(tenant, &requested)?;
            grant = Some(granted);
        }
        Ok(Self {
            request: requested,
            tenant,
            grant,
            source,
            page,
            reaches_cos,
        })
    }

    /// The same caller's permit for something else, by the same check.
    pub(crate) fn besides<'q>(&self, requested: S3Request<'q>) -> Result<Permit<'t, 'q>, S3Error> {
        Permit::check(self.tenant, requested)
    }

    /// A permit without a caller, by the same check.
    #[cfg(test)]
    pub(crate) fn for_test(tenant: &'t Tenant, requested: S3Request<'r>) -> Result<Self, S3Error> {
        Self::check(tenant, requested)
    }

    /// What was requested.
    pub fn request(&self) -> &S3Request<'r> {
        &self.request
    }

    /// Whose request it is.
    pub fn tenant(&self) -> &'t Tenant {
        self.tenant
    }

    /// The grant of the bucket that the request names; `None` for `ListBuckets`.
    pub fn grant(&self) -> Option<&'t Grant> {
        self.grant
    }

    /// The grant that a copy reads from.
    pub fn source(&self) -> Option<&'t Grant> {
        self.source
    }

    /// Whether the request goes to COS. If not, cosgate responds itself.
    pub(crate) fn reaches_cos(&self) -> bool {
        self.reaches_cos
    }

    /// Where a listing's page comes from.
    pub(crate) fn listing_page(&self) -> &ListingPage {
        &self.page
    }

    /// Whether it is the HEAD of a folder that the grant names or that leads to one of these. It is shown as
    /// one even if COS has no object of its name.
    pub(crate) fn is_folder(&self) -> bool {
        is_head_of_latest(&self.request)
            && (self.grant.zip(self.request.key.as_ref()))
                .is_some_and(|(grant, key)| listing::shows_folder(grant, key.as_str()))
    }

    /// Whether a multi-delete may name `key`, or a version of it if it `names_version`. One that it may not
    /// gets an entry of its own in the response, as AWS does; the others proceed.
    pub(crate) fn may_delete(&self, key: &str, names_version: bool) -> bool {
        let action = Operation::DeleteObject.action();
        self.grant.is_some_and(|grant| {
            takes(grant, key) && grant.allows_on_version(action, key, names_version)
        })
    }

    /// The real name of the bucket `alias`, as a target for the logs of the requested one. Both must be in one region
    /// (436/17054), and the caller must have write access to all of the target.
    pub(crate) fn log_bucket(&self, alias: &str) -> Option<String> {
        let action = Operation::PutObject.action();
        let target = self.tenant.grant(alias)?;
        let is_near = (self.grant).is_some_and(|grant| grant.region == target.region);
        (is_near && target.allows_everywhere(action)).then(|| target.bucket.clone())
    }

    /// The caller's name for a real bucket in `region` (else in the requested bucket's region), if the caller has all of
    /// that bucket. The name in the request comes first, so that a client can send back what it read.
    pub(crate) fn alias_of(&self, region: Option<&str>, bucket: &str) -> Option<String> {
        let region = region.or_else(|| self.grant.map(|grant| &*grant.region))?;
        let mut own = (self.grant.into_iter()).chain(self.tenant.reached());
        let own =
            own.find(|grant| grant.is_all() && grant.bucket == bucket && grant.region == region);
        own.map(|grant| grant.name.clone())
    }

    /// What COS calls a key of the bucket that the request names.
    pub(crate) fn upstream_name<'n>(&self, key: &'n str) -> Cow<'n, str> {
        self.grant
            .map_or(Cow::Borrowed(key), |grant| grant.upstream_name(key))
    }
}

/// Refuses what the grant of the bucket does not cover, and says where a listing's page comes from.
fn judge(grant: &Grant, requested: &S3Request<'_>) -> Result<ListingPage, S3Error> {
    let action = requested.operation.action();
    let key = requested.key.as_ref().map(ObjectKey::as_str);
    match requested.operation.target() {
        // Its key is in the form: what is authorized is the PUT that the form stands for.
        Target::Form => return Err(form_itself()),
        // A caller may know of its own buckets, and cosgate serves these itself where it must.
        Target::Bucket | Target::Service => {}
        Target::WholeBucket => check_whole(grant, action)?,
        Target::Listing => {
            check_action(grant, action)?;
            return listing::page(grant, requested);
        }
        // Each key is judged when the body has been read.
        Target::KeysInBody => check_action(grant, action)?,
        Target::OwnKey => {
            let key = check_covered(grant, key)?;
            if !grant.reaches(key) {
                return Err(not_in_session(grant));
            }
        }
        Target::RealKey => {
            check_action(grant, action).map_err(|denied| acl_refusal(requested, denied))?;
            check_real(grant)?;
            check_own_key(grant, requested)?;
        }
        Target::Key => {
            check_action(grant, action)?;
            if leads_to_own(grant, requested)? {
                return Ok(ListingPage::Folder);
            }
            check_own_key(grant, requested)?;
        }
    }
    Ok(ListingPage::AsRequested)
}

/// Whether the request goes to COS. One for the configuration of a bucket does so only if the caller may know the
/// whole response.
fn reaches_cos_within(grant: &Grant, requested: &S3Request<'_>) -> bool {
    let action = requested.operation.action();
    match (requested.operation.performer(), &requested.key) {
        (Performer::Cosgate(_), _) => false,
        (Performer::CosIfGranted(_), None) => grant.allows_on_bucket(action),
        (Performer::CosIfGranted(_), Some(key)) => {
            grant.root.is_empty()
                && grant.allows_on_version(action, key.as_str(), names_version(requested))
        }
        _ => true,
    }
}

fn names_version(requested: &S3Request<'_>) -> bool {
    requested.query.get("versionId").is_some()
}

fn form_itself() -> S3Error {
    S3Error::new(
        Code::AccessDenied,
        "A form is judged by the object that it makes.",
    )
}

/// The grant of the requested bucket. A bucket that is not the caller's looks the same whether it
/// exists or not: absent to a probe, refused to anything else.
fn bucket_grant<'t>(tenant: &'t Tenant, requested: &S3Request<'_>) -> Result<&'t Grant, S3Error> {
    let granted = requested
        .bucket
        .as_deref()
        .and_then(|alias| tenant.grant(alias));
    granted.ok_or_else(|| match requested.operation.target() {
        Target::Bucket if requested.operation != Operation::CreateBucket => {
            S3Error::new(Code::NoSuchBucket, "You have no bucket of this name.")
        }
        _ => S3Error::new(
            Code::AccessDenied,
            "You have no bucket of this name; ListBuckets shows the buckets that are yours.",
        ),
    })
}

fn check_action(grant: &Grant, action: &str) -> Result<(), S3Error> {
    if grant.allows(action) {
        return Ok(());
    }
    Err(S3Error::new(
        Code::AccessDenied,
        format!(
            "Your access to bucket {} does not include {action}.",
            grant.name
        ),
    ))
}

/// The refusal of a change of an ACL. s3cmd sets an ACL after each copy, and reports the copy as failed on any refusal
/// except 501.
fn acl_refusal(requested: &S3Request<'_>, denied: S3Error) -> S3Error {
    if requested.operation != Operation::PutObjectAcl {
        return denied;
    }
    S3Error::new(
        Code::NotImplemented,
        "Objects have no ACLs of their own here: the grants decide who may read them.",
    )
    .detail(denied.message().to_owned())
}

/// What is configured holds for all of the real bucket, and so for what others have in it.
fn check_whole(grant: &Grant, action: &str) -> Result<(), S3Error> {
    check_action(grant, action)?;
    check_real(grant)?;
    if !grant.is_all() {
        return Err(S3Error::new(
            Code::AccessDenied,
            format!(
                "This applies to the whole bucket, and you have access only to parts of bucket {}. Ask the \
                 operator to do it.",
                grant.name
            ),
        ));
    }
    if grant.allows_on_bucket(action) {
        return Ok(());
    }
    match grant.session {
        Some(_) => Err(not_in_session(grant)),
        None => Err(S3Error::new(
            Code::AccessDenied,
            format!(
                "The policy of bucket {} does not allow {action} on it.",
                grant.name
            ),
        )),
    }
}

/// A virtual bucket is a folder of a real one, which has what is configured.
fn check_real(grant: &Grant) -> Result<(), S3Error> {
    if grant.root.is_empty() {
        return Ok(());
    }
    Err(S3Error::new(
        Code::AccessDenied,
        format!(
            "Bucket {} is a part of a larger one, so this cannot be done here. Ask the operator to do it.",
            grant.name
        ),
    ))
}

/// Gives the key, if the grant covers it and COS can have it.
fn check_covered<'k>(grant: &Grant, key: Option<&'k str>) -> Result<&'k str, S3Error> {
    if grant.root.is_empty() && key.is_some_and(begins_with_slash) {
        return Err(no_such_key());
    }
    key.filter(|key| grant.covers(key)).ok_or_else(|| {
        S3Error::new(
            Code::AccessDenied,
            format!(
                "The key is outside the prefixes that are yours in bucket {}.",
                grant.name
            ),
        )
    })
}

/// Whether this is the HEAD of a folder that leads to a granted one. Its name without the slash gets 404, as in S3:
/// after a 403, s3fs takes the name for a file.
fn leads_to_own(grant: &Grant, requested: &S3Request<'_>) -> Result<bool, S3Error> {
    let key = requested.key.as_ref().map_or("", ObjectKey::as_str);
    if !is_head_of_latest(requested) || grant.covers(key) {
        return Ok(false);
    }
    if listing::shows_folder(grant, &format!("{key}/")) {
        return Err(S3Error::new(
            Code::NoSuchKey,
            "The specified key does not exist. It is the name of a folder, without the / at its end.",
        ));
    }
    Ok(listing::shows_folder(grant, key))
}

fn is_head_of_latest(requested: &S3Request<'_>) -> bool {
    requested.operation == Operation::HeadObject && requested.query.get("versionId").is_none()
}

/// The refusal of what the caller may do, but not with the keys of this session.
fn not_in_session(grant: &Grant) -> S3Error {
    S3Error::new(
        Code::AccessDenied,
        format!(
            "The Policy that these session keys were requested with does not allow this in bucket {}.",
            grant.name
        ),
    )
}

fn check_own_key(grant: &Grant, requested: &S3Request<'_>) -> Result<(), S3Error> {
    let key = requested.key.as_ref().map(ObjectKey::as_str);
    check_key(
        grant,
        requested.operation.action(),
        key,
        names_version(requested),
    )
}

fn check_key(
    grant: &Grant,
    action: &str,
    key: Option<&str>,
    names_version: bool,
) -> Result<(), S3Error> {
    let key = check_covered(grant, key)?;
    if !grant.allows_on_version(action, key, names_version) {
        if grant.session.is_some() {
            return Err(not_in_session(grant));
        }
        return Err(S3Error::new(
            Code::AccessDenied,
            format!(
                "The policy of bucket {} does not allow {action} on this key.",
                grant.name
            ),
        ));
    }
    if room_for(grant, key) {
        return Ok(());
    }
    Err(S3Error::new(
        Code::KeyTooLongError,
        format!(
            "The key has {} bytes. Bucket {} accepts at most {}.",
            key.len(),
            grant.name,
            MAX_KEY_BYTES.saturating_sub(grant.root.len())
        ),
    ))
}

/// Whether the root and `key` together are a key that COS takes.
fn takes(grant: &Grant, key: &str) -> bool {
    let begins_well = !grant.root.is_empty() || !begins_with_slash(key);
    begins_well && room_for(grant, key)
}

/// Whether the root and `key` together are not too long.
fn room_for(grant: &Grant, key: &str) -> bool {
    grant.root.len() + key.len() <= MAX_KEY_BYTES
}

/// The grant that a copy reads from. The caller needs read access there, in addition to write access to the target.
fn copy_source<'t>(
    tenant: &'t Tenant,
    requested: &S3Request<'_>,
) -> Result<Option<&'t Grant>, S3Error> {
    let Some(action) = requested.operation.copy_source_action() else {
        return Ok(None);
    };
    let source = requested.copy_source.as_ref();
    let granted = source.and_then(|source| tenant.grant(&source.bucket));
    let (Some(source), Some(grant)) = (source, granted) else {
        return Err(S3Error::new(
            Code::AccessDenied,
            "You have no bucket of the copy source's name.",
        ));
    };
    check_action(grant, action)?;
    let names_version = source.version_id.is_some();
    check_key(grant, action, Some(source.key.as_str()), names_version)?;
    Ok(Some(grant))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PrefixPattern;
    use crate::s3::{CopySource, Query};

    const READ: &[&str] = &["name/cos:GetObject", "name/cos:HeadObject"];
    const LIST: &[&str] = &[
        "name/cos:GetBucket",
        "name/cos:GetBucketObjectVersions",
        "name/cos:ListMultipartUploads",
    ];
    const WRITE: &[&str] = &["name/cos:DeleteObject", "name/cos:PutObject"];

    fn grant(alias: &str, prefixes: &[PrefixPattern], actions: &[&[&str]]) -> Grant {
        Grant {
            name: alias.into(),
            bucket: format!("{alias}-1250000000"),
            region: "ap-guangzhou".into(),
            root: String::new(),
            prefixes: prefixes.to_vec(),
            actions: actions.concat().iter().map(ToString::to_string).collect(),
            headers: Vec::new(),
            policy: None,
            attachment: false,
            cors: [].into(),
            session: None,
        }
    }

    fn tenant() -> Tenant {
        let folder = PrefixPattern::StartsWith("acme/".into());
        Tenant {
            index: 0,
            name: "acme".into(),
            grants: vec![
                grant(
                    "photos",
                    std::slice::from_ref(&folder),
                    &[READ, LIST, WRITE],
                ),
                grant("inbox", std::slice::from_ref(&folder), &[WRITE]),
                grant("public", &[PrefixPattern::Any], &[READ, LIST]),
            ],
            limits: None,
        }
    }

    fn s3_request<'r>(
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

    fn copy(operation: Operation, from: &str, source: &str) -> S3Request<'static> {
        S3Request {
            copy_source: Some(CopySource {
                bucket: from.into(),
                key: ObjectKey::from_decoded(source.into()).unwrap(),
                version_id: None,
            }),
            ..s3_request(operation, "photos", "acme/copy", "")
        }
    }

    fn outcome(requested: S3Request<'_>) -> Option<Code> {
        Permit::for_test(&tenant(), requested)
            .err()
            .map(|error| error.code())
    }

    #[test]
    fn a_key_inside_with_a_granted_action_is_permitted() {
        let tenant = tenant();
        let requested = s3_request(Operation::PutObject, "photos", "acme/x", "");

        let permit = Permit::for_test(&tenant, requested).unwrap();

        assert_eq!(permit.grant().unwrap().bucket, "photos-1250000000");
        assert_eq!(permit.tenant().name, "acme");
        assert!(permit.source().is_none());
    }

    #[test]
    fn every_object_operation_is_fenced_by_key_and_action() {
        for operation in [
            Operation::AbortMultipartUpload,
            Operation::CompleteMultipartUpload,
            Operation::CreateMultipartUpload,
            Operation::DeleteObject,
            Operation::DeleteObjectTagging,
            Operation::GetObject,
            Operation::GetObjectTagging,
            Operation::HeadObject,
            Operation::ListParts,
            Operation::PutObject,
            Operation::PutObjectTagging,
            Operation::UploadPart,
        ] {
            let denied = Some(Code::AccessDenied);
            let mut all = tenant();
            all.grants[0].actions = vec![operation.action().into()];
            let inside = s3_request(operation, "photos", "acme/x", "");
            assert!(Permit::for_test(&all, inside).is_ok(), "{operation:?}");
            for key in ["other/x", "acme", "ac", "ACME/x", ""] {
                let outside = s3_request(operation, "photos", key, "");
                let refused = Permit::for_test(&all, outside).err().map(|e| e.code());
                assert_eq!(refused, denied, "{operation:?} {key}");
            }
            all.grants[0].actions = Vec::new();
            let refused =
                Permit::for_test(&all, s3_request(operation, "photos", "acme/x", "")).err();
            assert_eq!(
                refused.map(|e| e.code()),
                denied,
                "{operation:?} without its action"
            );
        }
    }

    #[test]
    fn a_foreign_bucket_is_absent_to_probes_and_refused_to_the_rest() {
        for probe in [Operation::HeadBucket, Operation::GetBucketLocation] {
            assert_eq!(
                outcome(s3_request(probe, "theirs", "", "")),
                Some(Code::NoSuchBucket)
            );
            assert_eq!(outcome(s3_request(probe, "inbox", "", "")), None);
        }
        for (operation, key) in [
            (Operation::CreateBucket, ""),
            (Operation::GetObject, "acme/x"),
            (Operation::DeleteObjects, ""),
            (Operation::ListObjects, ""),
        ] {
            let refused = outcome(s3_request(operation, "theirs", key, "prefix=acme/"));
            assert_eq!(refused, Some(Code::AccessDenied), "{operation:?}");
        }
        // The real name is no alias.
        let real = s3_request(Operation::GetObject, "photos-1250000000", "acme/x", "");
        assert_eq!(outcome(real), Some(Code::AccessDenied));
        assert_eq!(
            outcome(s3_request(Operation::CreateBucket, "photos", "", "")),
            None
        );
    }

    #[test]
    fn logs_go_to_a_whole_bucket_of_the_caller_in_the_same_region() {
        let target = |edit: &dyn Fn(&mut Grant)| {
            let mut all = tenant();
            let public = &mut all.grants[2];
            public.actions.push("name/cos:PutObject".into());
            edit(public);
            let requested = s3_request(Operation::HeadBucket, "photos", "", "");
            let permit = Permit::for_test(&all, requested).unwrap();
            assert_eq!(permit.log_bucket("photos"), None, "a part of a bucket");
            assert_eq!(permit.log_bucket("public-1250000000"), None, "no alias");
            permit.log_bucket("public")
        };
        assert_eq!(target(&|_| {}).as_deref(), Some("public-1250000000"));
        assert_eq!(target(&|grant| grant.root = "acme/".into()), None);
        assert_eq!(target(&|grant| grant.region = "ap-beijing".into()), None);
        assert_eq!(target(&|grant| _ = grant.actions.pop()), None);
    }

    #[test]
    fn a_real_bucket_has_the_callers_name_or_none() {
        let mut all = tenant();
        all.grants[1].root = "acme/".into();
        let again = Grant {
            name: "again".into(),
            ..all.grants[2].clone()
        };
        all.grants.push(again);
        let named = |from: &str, region: Option<&str>, bucket: &str| {
            let requested = s3_request(Operation::HeadBucket, from, "", "");
            let permit = Permit::for_test(&all, requested).unwrap();
            permit.alias_of(region, bucket)
        };
        for (from, region, bucket, alias) in [
            ("photos", None, "public-1250000000", Some("public")),
            ("public", None, "public-1250000000", Some("public")),
            ("again", None, "public-1250000000", Some("again")),
            (
                "photos",
                Some("ap-guangzhou"),
                "public-1250000000",
                Some("public"),
            ),
            ("photos", Some("ap-beijing"), "public-1250000000", None),
            // A part of it.
            ("photos", None, "photos-1250000000", None),
            ("photos", None, "inbox-1250000000", None),
            ("photos", None, "public", None),
        ] {
            assert_eq!(
                named(from, region, bucket).as_deref(),
                alias,
                "{from} {bucket}"
            );
        }
    }

    #[test]
    fn list_buckets_needs_no_grant() {
        let mut requested = s3_request(Operation::ListBuckets, "", "", "");
        requested.bucket = None;
        assert_eq!(outcome(requested), None);
    }

    #[test]
    fn all_four_listings_stay_inside_the_prefix() {
        for operation in [
            Operation::ListMultipartUploads,
            Operation::ListObjectVersions,
            Operation::ListObjects,
            Operation::ListObjectsV2,
        ] {
            for query in [
                "",
                "prefix=",
                "prefix=acme",
                "delimiter=/",
                "prefix=acme/",
                "prefixes=other/",
                "start-after=other/",
                "delimiter=/&prefix=acme/2026/&marker=x&start-after=zz",
            ] {
                assert_eq!(
                    outcome(s3_request(operation, "photos", "", query)),
                    None,
                    "{operation:?}"
                );
            }
            for query in ["prefix=other/", "prefix=acmes", "prefix=b", "prefix=/acme/"] {
                let refused = outcome(s3_request(operation, "photos", "", query));
                assert_eq!(refused, Some(Code::AccessDenied), "{operation:?} {query}");
            }
            assert_eq!(outcome(s3_request(operation, "public", "", "")), None);
            let unlisted = outcome(s3_request(operation, "inbox", "", "prefix=acme/"));
            assert_eq!(unlisted, Some(Code::AccessDenied));
        }
    }

    #[test]
    fn a_copy_needs_read_on_its_source_and_write_on_its_target() {
        let denied = Some(Code::AccessDenied);
        for operation in [Operation::CopyObject, Operation::UploadPartCopy] {
            assert_eq!(outcome(copy(operation, "photos", "acme/x")), None);
            assert_eq!(outcome(copy(operation, "public", "any/x")), None);
            assert_eq!(outcome(copy(operation, "photos", "other/x")), denied);
            assert_eq!(outcome(copy(operation, "inbox", "acme/x")), denied);
            assert_eq!(outcome(copy(operation, "theirs", "acme/x")), denied);

            let mut without = copy(operation, "photos", "acme/x");
            without.copy_source = None;
            assert_eq!(outcome(without), denied);

            let mut into_read_only = copy(operation, "public", "any/x");
            into_read_only.bucket = Some("public".into());
            assert_eq!(outcome(into_read_only), denied);
        }
    }

    #[test]
    fn a_root_takes_its_length_from_every_key() {
        let mut tenant = tenant();
        for grant in &mut tenant.grants {
            grant.root = "root/".into();
        }
        let fits = format!("acme/{}", "x".repeat(840));
        let long = format!("{fits}x");
        let outcome = |requested| {
            Permit::for_test(&tenant, requested)
                .err()
                .map(|error| error.code())
        };
        let put = |key| outcome(s3_request(Operation::PutObject, "photos", key, ""));
        assert_eq!(put(&fits), None);
        assert_eq!(put(&long), Some(Code::KeyTooLongError));
        let from = |key| outcome(copy(Operation::CopyObject, "photos", key));
        assert_eq!(from(&fits), None);
        assert_eq!(from(&long), Some(Code::KeyTooLongError));
        let requested = s3_request(Operation::DeleteObjects, "photos", "", "delete");
        let permit = Permit::for_test(&tenant, requested).unwrap();
        assert!(permit.may_delete(&fits, false));
        assert!(!permit.may_delete(&long, false));
        assert_eq!(permit.upstream_name("acme/x"), "root/acme/x");
    }

    #[test]
    fn a_key_may_begin_with_a_slash_below_a_root_alone() {
        let mut tenant = tenant();
        tenant.grants[0].prefixes = vec![PrefixPattern::Any];
        for key in ["/x", "//", "\\x"] {
            let outcome = |tenant: &Tenant, operation| {
                let permit = Permit::for_test(tenant, s3_request(operation, "photos", key, ""));
                permit.err().map(|error| error.code())
            };
            for operation in [Operation::PutObject, Operation::GetObjectAcl] {
                assert_eq!(outcome(&tenant, operation), Some(Code::InvalidURI), "{key}");
            }
            let source = copy(Operation::CopyObject, "photos", key);
            let refused = Permit::for_test(&tenant, source).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidURI, "{key}");
            let delete = || s3_request(Operation::DeleteObjects, "photos", "", "delete");
            let permit = Permit::for_test(&tenant, delete()).unwrap();
            assert!(!permit.may_delete(key, false), "{key}");

            tenant.grants[0].root = "root/".into();
            for operation in [Operation::PutObject, Operation::GetObjectAcl] {
                assert_eq!(outcome(&tenant, operation), None, "{key}");
            }
            let permit = Permit::for_test(&tenant, delete()).unwrap();
            assert!(permit.may_delete(key, false), "{key}");
            assert_eq!(permit.upstream_name(key), format!("root/{key}"));
            tenant.grants[0].root.clear();
        }
    }

    #[test]
    fn a_multi_delete_is_judged_key_by_key() {
        let tenant = tenant();
        let requested = s3_request(Operation::DeleteObjects, "photos", "", "delete");

        let permit = Permit::for_test(&tenant, requested).unwrap();

        assert!(permit.may_delete("acme/x", false));
        assert!(!permit.may_delete("other/x", false));
        let read_only = s3_request(Operation::DeleteObjects, "public", "", "delete");
        assert_eq!(outcome(read_only), Some(Code::AccessDenied));
    }

    #[test]
    fn refusals_do_not_name_the_real_bucket() {
        let tenant = tenant();
        let requested = s3_request(Operation::GetObject, "photos", "other/x", "");
        let refused = Permit::for_test(&tenant, requested).unwrap_err();
        assert!(!refused.to_string().contains("1250000000"));
    }

    /// Parses and checks a request as it comes; the tenant's address is `photos`, below `acme/`.
    fn judge(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<(), Code> {
        let mut head = http::Request::builder().method(method).uri(target);
        for (name, value) in headers.iter().chain(&[("host", "127.0.0.1:9000")]) {
            head = head.header(*name, *value);
        }
        let (head, ()) = head.body(()).unwrap().into_parts();
        let requested = S3Request::parse(&head, &[]).map_err(|error| error.code())?;
        Permit::check(&tenant(), requested)
            .map(drop)
            .map_err(|error| error.code())
    }

    #[test]
    fn no_spelling_of_a_path_leaves_the_prefix() {
        assert_eq!(judge("GET", "/photos/acme/x", &[]), Ok(()));
        for target in [
            "/photos/acme/../other/x",
            "/photos/acme/%2e%2e/other/x",
            "/photos/acme/..%2fother/x",
            "/photos/acme/%252e%252e/other/x",
            "/photos/acme/..\\other",
            "/photos//acme/x",
            "/photos/%2Facme/x",
            "/photos/acmes/x",
            "/photos/ACME/x",
            "/photos/acme%00/x",
            "/photos/acme%c0%ae/x",
            "/photos/%61cm%65s/x",
            "/photos/other/x?prefix=acme/",
            "/theirs/acme/x",
            "/photos%2Facme/x",
        ] {
            assert!(judge("GET", target, &[]).is_err(), "{target}");
        }
    }

    #[test]
    fn no_spelling_of_a_copy_source_leaves_the_grants() {
        let from = |source: &str| judge("PUT", "/photos/acme/x", &[("x-amz-copy-source", source)]);
        assert_eq!(from("photos/acme/y"), Ok(()));
        assert_eq!(from("/public/any%20key?versionId=v"), Ok(()));
        for source in [
            "",
            "/",
            "photos",
            "photos/other/y",
            "photos/acme/../other/y",
            "photos/acme%2F..%2Fother/y",
            "photos%2Fother/y",
            "theirs/acme/y",
            "photos-1250000000/acme/y",
            "photos-1250000000.cos.ap-guangzhou.myqcloud.com/acme/y",
            "arn:aws:s3:::photos/acme/y",
            "photos/acme/y?acl",
            "inbox/acme/y",
        ] {
            assert!(from(source).is_err(), "{source}");
        }
    }

    #[test]
    fn no_spelling_of_a_listing_leaves_the_prefix() {
        assert_eq!(
            judge("GET", "/photos?list-type=2&prefix=acme%2F", &[]),
            Ok(())
        );
        assert_eq!(judge("GET", "/photos?uploads", &[]), Ok(())); // of what is the tenant's
        for query in [
            "?prefix=other/",
            "?prefix=%2Facme/",
            "?Prefix=acme/",
            "?prefix[]=acme/",
            "?prefix=acme/&prefix=other/",
            "?prefix=acme/&%70refix=other/",
            "?versions&prefix=other/",
        ] {
            for bucket in ["/photos", "/photos/"] {
                assert!(
                    judge("GET", &format!("{bucket}{query}"), &[]).is_err(),
                    "{query}"
                );
            }
        }
    }
}
