//! [`request`]: the head that COS gets.

use std::borrow::Cow;

use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use super::attributes::check_attributes;
use super::cos::cos_header;
use super::listing::rewrites;
use super::version_two::is_translated;
use crate::config::{EndpointTemplate, Upstream, UpstreamSignature};
use crate::encoding::percent::{push_encoded, push_encoded_path};
use crate::encoding::split::split_once;
use crate::error::{Code, S3Error};
use crate::s3::conditions::{self, FORBID_OVERWRITE, Handling};
use crate::s3::continuation::marker_of_token;
use crate::s3::headers::strip_aws_chunked;
use crate::s3::query::is_sub_resource;
use crate::s3::{Operation, Performer, S3Request, headers};
use crate::tenant::{Grant, ListingPage, Permit};

/// The head of a request to COS, in the two forms that must agree: as sent and as signed.
///
/// `Content-Length`, and what belongs to a body that the sender makes itself, is added by the sender.
#[derive(Clone, Debug)]
pub struct UpstreamRequest {
    /// The method.
    pub method: Method,
    /// HTTPS, or plain HTTP.
    pub tls: bool,
    /// The host, with its port if it is not the scheme's own: exactly the `Host` sent and signed.
    pub authority: String,
    /// The target as sent, in origin form: percent-encoded path and query.
    pub target: String,
    /// The path as signed: decoded, with its leading `/`.
    pub path: String,
    /// The query as signed: decoded, in the order sent, the sub-resource first.
    pub query: Pairs,
    /// The headers, `host` included, the signature not yet.
    pub headers: HeaderMap,
}

/// Names and values, as [`Signable`](crate::sign::Signable) borrows them.
type Pairs = Vec<(Cow<'static, str>, Cow<'static, str>)>;

/// Builds what COS gets for a permitted request. `client` is the client's head, of which only
/// headers on the operation's allow-list are used.
pub fn request(
    permit: &Permit<'_, '_>,
    client: &Parts,
    upstream: &Upstream,
) -> Result<UpstreamRequest, S3Error> {
    let requested = permit.request();
    headers::check_owners(&client.headers, &permit.tenant().name)?;
    if requested.operation.performer() == Performer::CosByHead {
        check_attributes(&client.headers)?;
    }
    let (Some(grant), Some(method), false) = (
        permit.grant(),
        requested.operation.upstream_method(),
        *permit.listing_page() == ListingPage::Folder,
    ) else {
        return Err(S3Error::internal(
            "an operation that is served here reached the rewriting",
        ));
    };
    let key = match &requested.key {
        Some(key) => grant.upstream_name(key.as_str()),
        None => Cow::Borrowed(""),
    };
    let endpoint = &upstream.endpoint;
    let authority = authority(upstream, grant);
    let query = query(permit, grant, upstream.signature)?;
    let mut path = fill(&endpoint.path, grant);
    path.push('/');
    path.push_str(&key);
    let target = target(&path, &query);

    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(header::HOST, value(&authority)?);
    add_conditions(
        &mut headers,
        requested.operation,
        client,
        upstream.signature,
    )?;
    add_forwarded(&mut headers, requested, grant, client, upstream.signature)?;
    check_source_region(permit, grant, upstream)?;
    if let Some((name, source)) = copy_source(permit, upstream) {
        headers.insert(HeaderName::from_static(name), value(&source)?);
    }

    Ok(UpstreamRequest {
        method,
        tls: endpoint.tls,
        authority,
        target,
        path,
        query,
        headers,
    })
}

/// Adds the conditions that COS keeps.
fn add_conditions(
    headers: &mut HeaderMap,
    operation: Operation,
    client: &Parts,
    signature: UpstreamSignature,
) -> Result<(), S3Error> {
    for (name, value, handling) in conditions::kept(operation, &client.headers, signature)? {
        let (name, value) = match (handling, signature) {
            (Handling::ForbidsOverwrite, _) => (
                HeaderName::from_static(FORBID_OVERWRITE),
                HeaderValue::from_static("true"),
            ),
            (_, UpstreamSignature::Cos) => cos_header(name, value)?,
            (_, UpstreamSignature::S3) => (name.clone(), value.clone()),
        };
        headers.insert(name, value);
    }
    Ok(())
}

/// Adds the client's headers that pass.
fn add_forwarded(
    headers: &mut HeaderMap,
    requested: &S3Request<'_>,
    grant: &Grant,
    client: &Parts,
    signature: UpstreamSignature,
) -> Result<(), S3Error> {
    let key = requested.key.as_ref().map_or("", |key| key.as_str());
    let forwarded = headers::forwarded(
        requested.operation,
        &client.headers,
        &grant.actions_on(key),
        &grant.headers,
    )?;
    for (name, value) in forwarded {
        if is_ours(name, requested.operation) {
            continue;
        }
        let (name, value) = match signature {
            UpstreamSignature::Cos => cos_header(name, &value)?,
            UpstreamSignature::S3 => (name.clone(), value.into_owned()),
        };
        headers.append(name, value);
    }
    // COS gets the object's plain bytes, so its head must not declare that they are framed.
    if let (stripped, true) = strip_aws_chunked(&client.headers)? {
        headers.remove(header::CONTENT_ENCODING);
        headers.extend(stripped.map(|encoding| (header::CONTENT_ENCODING, encoding)));
    }
    Ok(())
}

/// The query for COS: the operation's own parameters alone, none of a presigned URL's, with the keys
/// in them as COS calls them.
fn query(
    permit: &Permit<'_, '_>,
    grant: &Grant,
    signature: UpstreamSignature,
) -> Result<Pairs, S3Error> {
    let requested = permit.request();
    let mut own = requested.upstream_query();
    let mut marker = None;
    if requested.operation == Operation::ListMultipartUploads
        && requested.query.get("key-marker").is_none_or(str::is_empty)
    {
        own.retain(|(name, _)| *name != "upload-id-marker"); // as S3 does; a virtual bucket adds a key marker
    }
    if is_translated(permit, grant, signature) {
        let first_version = Operation::ListObjects.parameters();
        own.retain(|(name, _)| first_version.contains(name));
        marker = match requested.query.get("continuation-token") {
            Some(token) => Some(marker_of_token(token)?),
            None => requested.query.get("start-after").map(str::to_owned),
        };
    }
    let mut prefix = requested.query.get("prefix").unwrap_or_default();
    if let ListingPage::Below {
        prefix: granted,
        marker: within,
        ..
    } = permit.listing_page()
    {
        prefix = granted;
        own.retain(|(name, _)| within.is_some() || !name.ends_with("marker"));
        marker = marker.and_then(|_| within.clone());
    }
    let mut pairs: Pairs = Vec::with_capacity(own.len() + 2);
    for (name, value) in own {
        let value = match name {
            "key-marker" | "marker" => grant.upstream_name(value),
            "prefix" => grant.upstream_name(prefix),
            _ => Cow::Borrowed(value),
        };
        pairs.push((name.into(), value.into_owned().into()));
    }
    if let Some(marker) = marker {
        let marker = grant.upstream_name(&marker).into_owned();
        pairs.push(("marker".into(), marker.into()));
    }
    if let Some(marker) = marker_name(requested.operation) {
        check_id_marker(permit, grant)?;
        let prefix = grant.upstream_name(prefix);
        // The marker leaves out an object named as the root itself, which has no name here.
        for (name, value) in [("prefix", &*prefix), (marker, &grant.root)] {
            if !value.is_empty() && !pairs.iter().any(|(there, _)| there == name) {
                pairs.push((name.into(), value.to_owned().into()));
            }
        }
    }
    Ok(pairs)
}

/// The parameter that says after which key a listing begins.
fn marker_name(operation: Operation) -> Option<&'static str> {
    match operation {
        Operation::ListMultipartUploads | Operation::ListObjectVersions => Some("key-marker"),
        Operation::ListObjects | Operation::ListObjectsV2 => Some("marker"),
        _ => None,
    }
}

/// In a virtual bucket every listing has a key marker, to which an id alone would then belong. One below
/// a granted prefix may leave out the client's.
fn check_id_marker(permit: &Permit<'_, '_>, grant: &Grant) -> Result<(), S3Error> {
    let is_own = grant.root.is_empty() && *permit.listing_page() == ListingPage::AsRequested;
    let query = &permit.request().query;
    let has = |name| query.get(name).is_some_and(|value| !value.is_empty());
    if has("version-id-marker") && !is_own && !has("key-marker") {
        return Err(S3Error::new(
            Code::InvalidArgument,
            "version-id-marker cannot be given without key-marker.",
        ));
    }
    Ok(())
}

/// The origin-form target. Built by hand, since any URL type would normalise it.
fn target(path: &str, query: &Pairs) -> String {
    let mut target = String::with_capacity(path.len() + 32);
    push_encoded_path(&mut target, path.as_bytes());
    let mut separator = '?';
    for (name, value) in query {
        target.push(separator);
        push_encoded(&mut target, name.as_bytes());
        if !(value.is_empty() && is_sub_resource(name)) {
            target.push('=');
            push_encoded(&mut target, value.as_bytes());
        }
        separator = '&';
    }
    target
}

/// The host of the bucket of `grant` at COS, with its port if the endpoint has one.
pub(crate) fn authority(upstream: &Upstream, grant: &Grant) -> String {
    fill(&upstream.endpoint.authority, grant)
}

/// `template` with the bucket and region of `grant` in it.
pub(crate) fn fill(template: &str, grant: &Grant) -> String {
    let mut text = String::with_capacity(template.len() + grant.bucket.len() + grant.region.len());
    let mut rest = template;
    while let Some((before, after)) = split_once(rest, b'{') {
        text.push_str(before);
        let (name, after) = split_once(after, b'}').unwrap_or((after, ""));
        text.push_str(if name == "bucket" {
            &grant.bucket
        } else {
            &grant.region
        });
        rest = after;
    }
    text.push_str(rest);
    text
}

/// Headers that cosgate writes itself, or that end at this hop (RFC 9110 section 7.6.1), whatever
/// the allow-list says.
fn is_ours(name: &HeaderName, operation: Operation) -> bool {
    let rebuilt = operation.has_xml_body();
    match name.as_str() {
        "authorization"
        | "connection"
        | "content-length"
        | "expect"
        | "host"
        | "keep-alive"
        | "proxy-authorization"
        | "proxy-connection"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade"
        | "x-amz-content-sha256"
        | "x-amz-copy-source"
        | "x-amz-date"
        | "x-amz-decoded-content-length"
        | "x-amz-security-token"
        | "x-amz-trailer" => true,
        "accept-encoding" => rewrites(operation), // its response must be read
        // They speak of the body that the client sent, not of the one written from its parts.
        "content-encoding" | "content-md5" | "content-type" => rebuilt,
        _ => false,
    }
}

/// SigV4's form of a copy's source names a bucket and no region, and COS looks for it in the target's;
/// only `x-cos-copy-source` can say another (436/10881). A store without regions in its endpoint has one.
fn check_source_region(
    permit: &Permit<'_, '_>,
    target: &Grant,
    upstream: &Upstream,
) -> Result<(), S3Error> {
    let EndpointTemplate {
        authority, path, ..
    } = &upstream.endpoint;
    let names_region = || authority.contains("{region}") || path.contains("{region}");
    let elsewhere = permit
        .source()
        .is_some_and(|source| source.region != target.region);
    if upstream.signature == UpstreamSignature::S3 && elsewhere && names_region() {
        return Err(S3Error::new(
            Code::NotImplemented,
            "cosgate cannot copy from a bucket in another region with this configuration. Read the object and upload it, \
             or ask the operator to set [upstream] signature = \"cos\".",
        ));
    }
    Ok(())
}

/// The header that names a copy's source: the real bucket of the source grant and the encoded key.
fn copy_source(permit: &Permit<'_, '_>, upstream: &Upstream) -> Option<(&'static str, String)> {
    let (grant, source) = (permit.source()?, permit.request().copy_source.as_ref()?);
    let EndpointTemplate {
        authority, path, ..
    } = &upstream.endpoint;
    let (name, mut text) = match upstream.signature {
        UpstreamSignature::Cos => {
            let text = fill(authority, grant) + &fill(path, grant) + "/";
            ("x-cos-copy-source", text)
        }
        UpstreamSignature::S3 => ("x-amz-copy-source", format!("/{}/", grant.bucket)),
    };
    let key = grant.upstream_name(source.key.as_str());
    push_encoded_path(&mut text, key.as_bytes());
    if let Some(version) = &source.version_id {
        text.push_str("?versionId=");
        push_encoded(&mut text, version.as_bytes());
    }
    Some((name, text))
}

fn value(text: &str) -> Result<HeaderValue, S3Error> {
    HeaderValue::try_from(text)
        .map_err(|_| S3Error::internal("an endpoint that is no header value"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::PrefixPattern;
    use crate::encoding::percent::percent_decode;
    use crate::rewrite::tests::{OPERATIONS, s3_request, tenant, upstream};
    use crate::s3::{CopySource, ObjectKey, S3Request};

    fn rewrite(
        requested: S3Request<'_>,
        headers: &[(&str, &str)],
        upstream: &Upstream,
    ) -> Result<UpstreamRequest, S3Error> {
        let tenant = tenant();
        let permit = Permit::for_test(&tenant, requested).unwrap();
        let mut client = http::Request::builder().uri("/ignored?also=ignored");
        for (name, value) in headers {
            client = client.header(*name, *value);
        }
        request(&permit, &client.body(()).unwrap().into_parts().0, upstream)
    }

    fn s3(requested: S3Request<'_>, headers: &[(&str, &str)]) -> UpstreamRequest {
        rewrite(requested, headers, &upstream(UpstreamSignature::S3)).unwrap()
    }

    fn cos(requested: S3Request<'_>, headers: &[(&str, &str)]) -> Result<UpstreamRequest, S3Error> {
        rewrite(requested, headers, &upstream(UpstreamSignature::Cos))
    }

    fn put() -> S3Request<'static> {
        s3_request(Operation::PutObject, "photos", "acme/x", "")
    }

    fn copy() -> S3Request<'static> {
        S3Request {
            copy_source: Some(CopySource {
                bucket: "public".into(),
                key: ObjectKey::from_decoded("a b/中+".into()).unwrap(),
                version_id: Some("v=1".into()),
            }),
            ..s3_request(Operation::CopyObject, "photos", "acme/x", "")
        }
    }

    #[test]
    fn keys_arrive_as_the_client_meant_them() {
        for (key, target) in [
            ("acme/a b", "/acme/a%20b"),
            ("acme/a%20b", "/acme/a%2520b"),
            ("acme/a+b", "/acme/a%2Bb"),
            ("acme/a//b/", "/acme/a//b/"),
            ("acme/中文", "/acme/%E4%B8%AD%E6%96%87"),
            ("acme/'()*~!", "/acme/%27%28%29%2A~%21"),
            ("acme/?x#y", "/acme/%3Fx%23y"),
        ] {
            let sent = s3(s3_request(Operation::GetObject, "photos", key, ""), &[]);

            assert_eq!(sent.target, target);
            assert_eq!(sent.path, format!("/{key}"));
            assert_eq!(
                sent.authority,
                "shared-1250000000.cos.ap-guangzhou.myqcloud.com"
            );
            assert_eq!(sent.headers[header::HOST], sent.authority.as_str());
        }
    }

    /// What COS gets from a tenant whose buckets are below `ro ot/`.
    fn rooted(
        requested: S3Request<'_>,
        signature: UpstreamSignature,
    ) -> Result<UpstreamRequest, S3Error> {
        let mut tenant = tenant();
        for grant in &mut tenant.grants {
            grant.root = "ro ot/".into();
            grant.prefixes = vec![PrefixPattern::Any];
            if signature == UpstreamSignature::S3 {
                grant.region = "ap-guangzhou".into(); // its copies stay in one
            }
        }
        let permit = Permit::for_test(&tenant, requested).unwrap();
        let client = http::Request::builder().body(()).unwrap().into_parts().0;
        request(&permit, &client, &upstream(signature))
    }

    #[test]
    fn a_virtual_buckets_keys_stand_below_its_root() {
        let get = s3_request(Operation::GetObject, "photos", "a b", "");
        let sent = rooted(get, UpstreamSignature::S3).unwrap();
        assert_eq!(sent.target, "/ro%20ot/a%20b");
        assert_eq!(sent.path, "/ro ot/a b");
        for (signature, header, source) in [
            (
                UpstreamSignature::S3,
                "x-amz-copy-source",
                "/open-1250000001/ro%20ot/a%20b/%E4%B8%AD%2B?versionId=v%3D1",
            ),
            (
                UpstreamSignature::Cos,
                "x-cos-copy-source",
                "open-1250000001.cos.ap-beijing.myqcloud.com/ro%20ot/a%20b/%E4%B8%AD%2B?versionId=v%3D1",
            ),
        ] {
            let sent = rooted(copy(), signature).unwrap();
            assert_eq!(sent.target, "/ro%20ot/acme/x");
            assert_eq!(sent.headers[header], source);
        }
    }

    #[test]
    fn a_virtual_buckets_listings_stay_below_its_root() {
        let token = crate::s3::continuation::token_of_marker("k");
        let query = format!("list-type=2&continuation-token={token}&start-after=z&prefix=");
        for (operation, query, target) in [
            (
                Operation::ListObjects,
                "",
                "/?prefix=ro%20ot%2F&marker=ro%20ot%2F",
            ),
            (
                Operation::ListObjects,
                "prefix=a&marker=a/b&delimiter=/",
                "/?prefix=ro%20ot%2Fa&delimiter=%2F&marker=ro%20ot%2Fa%2Fb",
            ),
            (
                Operation::ListObjectsV2,
                "list-type=2&fetch-owner=true",
                "/?prefix=ro%20ot%2F&marker=ro%20ot%2F",
            ),
            (
                Operation::ListObjectsV2,
                "list-type=2&start-after=b",
                "/?marker=ro%20ot%2Fb&prefix=ro%20ot%2F",
            ),
            (
                Operation::ListObjectsV2,
                &query,
                "/?prefix=ro%20ot%2F&marker=ro%20ot%2Fk",
            ),
            (
                Operation::ListObjectVersions,
                "versions&key-marker=a&version-id-marker=v",
                "/?versions&key-marker=ro%20ot%2Fa&version-id-marker=v&prefix=ro%20ot%2F",
            ),
            (
                Operation::ListMultipartUploads,
                "uploads&upload-id-marker=",
                "/?uploads&prefix=ro%20ot%2F&key-marker=ro%20ot%2F",
            ),
        ] {
            for signature in [UpstreamSignature::Cos, UpstreamSignature::S3] {
                let sent = rooted(s3_request(operation, "photos", "", query), signature).unwrap();
                assert_eq!(sent.target, target, "{operation:?}");
            }
        }
        let lone = "versions&version-id-marker=v";
        let lone = s3_request(Operation::ListObjectVersions, "photos", "", lone);
        let refused = rooted(lone, UpstreamSignature::S3).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }

    #[test]
    fn a_listing_of_an_ancestor_is_one_of_the_granted_prefix() {
        let token = crate::s3::continuation::token_of_marker("acme/k");
        let v2 = format!("list-type=2&prefix=a&continuation-token={token}&start-after=z");
        for (operation, query, target) in [
            (Operation::ListObjects, "", "/?prefix=acme%2F"),
            (Operation::ListObjects, "prefix=", "/?prefix=acme%2F"),
            (Operation::ListObjects, "marker=a", "/?prefix=acme%2F"),
            (
                Operation::ListObjects,
                "marker=acme/k&max-keys=7&encoding-type=url",
                "/?marker=acme%2Fk&max-keys=7&encoding-type=url&prefix=acme%2F",
            ),
            (
                Operation::ListObjectsV2,
                &v2,
                "/?prefix=acme%2F&marker=acme%2Fk",
            ),
            (
                Operation::ListObjectVersions,
                "versions&key-marker=a&version-id-marker=v",
                "/?versions&prefix=acme%2F",
            ),
            (
                Operation::ListMultipartUploads,
                "uploads&key-marker=acme/k&upload-id-marker=u&delimiter=m",
                "",
            ),
            (
                Operation::ListMultipartUploads,
                "uploads&key-marker=acme/k&upload-id-marker=u&delimiter=x",
                "/?uploads&delimiter=x&key-marker=acme%2Fk&upload-id-marker=u&prefix=acme%2F",
            ),
        ] {
            for signature in [UpstreamSignature::Cos, UpstreamSignature::S3] {
                let tenant = tenant();
                let permit =
                    Permit::for_test(&tenant, s3_request(operation, "photos", "", query)).unwrap();
                if target.is_empty() {
                    let page = permit.listing_page();
                    assert!(matches!(page, ListingPage::CommonPrefixes { .. }));
                    continue; // made here
                }
                let client = http::Request::builder().body(()).unwrap().into_parts().0;
                let sent = request(&permit, &client, &upstream(signature)).unwrap();
                assert_eq!(sent.target, target, "{operation:?} {query}");
            }
        }
    }

    #[test]
    fn the_bucket_may_stand_in_the_path() {
        let mut upstream = upstream(UpstreamSignature::S3);
        upstream.endpoint.authority = "127.0.0.1:7480".into();
        upstream.endpoint.path = "/{bucket}".into();

        let object = rewrite(put(), &[], &upstream).unwrap();
        let listing = s3_request(Operation::ListObjects, "photos", "", "prefix=acme/");
        let listing = rewrite(listing, &[], &upstream).unwrap();

        assert_eq!(object.target, "/shared-1250000000/acme/x");
        assert_eq!(object.path, "/shared-1250000000/acme/x");
        assert_eq!(object.authority, "127.0.0.1:7480");
        assert_eq!(listing.target, "/shared-1250000000/?prefix=acme%2F");
    }

    #[test]
    fn every_forwarded_operation_gets_its_own_query_alone() {
        let query = "X-Amz-Signature=s&acl=&x-id=y&uploadId=u&partNumber=1&prefix=acme/&versionId=v\
            &list-type=2&uploads=&tagging=&versions=&delete=&response-content-type=text/css&policy=";
        for operation in OPERATIONS {
            let sent = s3(s3_request(operation, "photos", "acme/x", query), &[]);
            let foreign = ["X-Amz-Signature", "acl", "x-id", "policy"];
            assert!(
                sent.query
                    .iter()
                    .all(|(name, _)| !foreign.contains(&name.as_ref())),
                "{operation:?}"
            );
            let (first, rest) = sent
                .target
                .split_once('?')
                .map_or(("", ""), |(_, q)| q.split_at(4));
            let subresource = match operation {
                Operation::AbortMultipartUpload
                | Operation::CompleteMultipartUpload
                | Operation::CreateMultipartUpload
                | Operation::ListMultipartUploads
                | Operation::ListParts => "uplo",
                Operation::DeleteObjects => "dele",
                Operation::DeleteObjectTagging
                | Operation::GetObjectTagging
                | Operation::PutObjectTagging => "tagg",
                Operation::ListObjectsV2 => "list",
                Operation::ListObjectVersions => "vers",
                _ => continue,
            };
            assert_eq!(first, subresource, "{operation:?} {rest}");
        }
        let get = s3(
            s3_request(Operation::GetObject, "photos", "acme/x", query),
            &[],
        );
        assert_eq!(
            get.target,
            "/acme/x?versionId=v&response-content-type=text%2Fcss"
        );
        let uploads = s3(
            s3_request(
                Operation::CreateMultipartUpload,
                "photos",
                "acme/x",
                "uploads",
            ),
            &[],
        );
        assert_eq!(uploads.target, "/acme/x?uploads");
        assert_eq!(uploads.query, [("uploads".into(), "".into())]);
    }

    #[test]
    fn what_ends_at_this_hop_never_passes() {
        let own = [
            ("authorization", "AWS4-HMAC-SHA256 x"),
            ("connection", "close"),
            ("content-length", "3"),
            ("expect", "100-continue"),
            ("host", "localhost"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-amz-content-sha256", "x"),
            ("x-amz-copy-source", "/theirs/x"),
            ("x-amz-date", "x"),
            ("x-amz-decoded-content-length", "3"),
        ];
        let kept = [("content-type", "text/css"), ("x-amz-meta-a", "b")];

        let sent = s3(put(), &[&own[..], &kept[..]].concat());

        assert_eq!(sent.headers.len(), 3);
        assert_eq!(sent.headers["x-amz-meta-a"], "b");
        assert_eq!(sent.headers["content-type"], "text/css");
    }

    #[test]
    fn a_rebuilt_body_does_not_keep_the_clients_digest() {
        let headers = [
            ("content-md5", "x"),
            ("content-type", "y"),
            ("accept-encoding", "gzip"),
        ];
        let delete = s3(
            s3_request(Operation::DeleteObjects, "photos", "", "delete"),
            &headers,
        );
        assert_eq!(delete.headers.len(), 1);
        assert_eq!(s3(put(), &headers).headers.len(), 3);
    }

    #[test]
    fn a_copy_names_the_real_source() {
        // S3's terms have no region: they are for the same one, or for a store that has none.
        let refused = rewrite(copy(), &[], &upstream(UpstreamSignature::S3)).unwrap_err();
        assert_eq!(refused.code(), Code::NotImplemented);
        assert!(refused.message().contains("signature = \"cos\""));
        let mut store = upstream(UpstreamSignature::S3);
        store.endpoint.authority = "{bucket}.store.example".into();
        let s3_copy = rewrite(copy(), &[], &store).unwrap();
        assert_eq!(
            s3_copy.headers["x-amz-copy-source"],
            "/open-1250000001/a%20b/%E4%B8%AD%2B?versionId=v%3D1"
        );

        let cos_copy = cos(copy(), &[("x-amz-metadata-directive", "REPLACE")]).unwrap();
        assert_eq!(
            cos_copy.headers["x-cos-copy-source"],
            "open-1250000001.cos.ap-beijing.myqcloud.com/a%20b/%E4%B8%AD%2B?versionId=v%3D1"
        );
        assert_eq!(cos_copy.headers["x-cos-metadata-directive"], "Replaced");
        assert!(!cos_copy.headers.contains_key("x-amz-copy-source"));
    }

    #[test]
    fn a_version_two_listing_becomes_one_that_cos_knows() {
        let list = |query| {
            cos(
                s3_request(Operation::ListObjectsV2, "photos", "", query),
                &[],
            )
        };

        let first = list("list-type=2&prefix=acme/&fetch-owner=true&start-after=acme/a").unwrap();
        assert_eq!(first.target, "/?prefix=acme%2F&marker=acme%2Fa");

        let next = list("list-type=2&prefix=acme/&start-after=acme/a&continuation-token=YWNtZS9i")
            .unwrap();
        assert_eq!(next.target, "/?prefix=acme%2F&marker=acme%2Fb");

        let refused = list("list-type=2&prefix=acme/&continuation-token=*").unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }

    #[test]
    fn what_cosgate_serves_itself_is_not_rewritten() {
        let head = s3_request(Operation::HeadBucket, "photos", "", "");
        let refused = rewrite(head, &[], &upstream(UpstreamSignature::S3)).unwrap_err();
        assert_eq!(refused.code(), Code::InternalError);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// What is signed is what is sent: no byte of the target needs a second reading.
        #[test]
        fn the_target_decodes_to_the_signed_path_and_query(path in "/.{0,40}", value in ".{0,40}") {
            let sent = target(&path, &vec![("uploads".into(), "".into()), ("prefix".into(), value.clone().into())]);

            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/%?&=".contains(&byte);
            prop_assert!(sent.bytes().all(plain));
            let decoded = |text| String::from_utf8(percent_decode(text).unwrap().into_owned()).unwrap();
            let (sent_path, sent_query) = sent.split_once('?').unwrap();
            prop_assert_eq!(decoded(sent_path), path);
            let sent_value = sent_query.strip_prefix("uploads&prefix=").unwrap();
            prop_assert_eq!(decoded(sent_value), value);
        }
    }
}
