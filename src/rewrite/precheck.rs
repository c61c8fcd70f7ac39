//! [`prechecks`]: the HEAD requests that come before a request with a condition that COS is not documented
//! to keep.

use http::header::RANGE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method};

use super::request::{UpstreamRequest, request};
use crate::config::Upstream;
use crate::error::{Code, S3Error};
use crate::s3::conditions::{Handling, cannot_precheck, kept};
use crate::s3::{S3Request, conditions};
use crate::tenant::Permit;

const OF_SOURCE: &str = "x-amz-copy-source-";

/// A HEAD that comes before the request itself, and what it must find.
#[derive(Debug)]
pub struct Precheck<'t, 'r> {
    /// The permit of the HEAD: another right than that of the request.
    pub permit: Permit<'t, 'r>,
    /// The client's part of its head; its conditions are those that HEAD Object keeps (436/7745).
    pub head: Parts,
    /// The head that COS gets.
    pub request: UpstreamRequest,
    /// What it must find for the request to go on.
    pub required: Requirement,
}

/// What a precheck must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// No object.
    Absent,
    /// An object of which the conditions hold.
    Hold,
    /// Nothing: no object has the part that is read.
    Fail,
}

/// The prechecks of the request of `permit`; most have none. Refused where the caller has no right to
/// HEAD the object: nothing would then keep the condition.
pub fn prechecks<'t, 'r>(
    permit: &Permit<'t, 'r>,
    client: &Parts,
    upstream: &Upstream,
) -> Result<Vec<Precheck<'t, 'r>>, S3Error> {
    let requested = permit.request();
    let mut creates = false;
    let mut of_source = HeaderMap::new();
    for (name, value, handling) in kept(requested.operation, &client.headers, upstream.signature)? {
        if handling != Handling::CheckedFirst {
            continue;
        }
        match name.as_str().strip_prefix(OF_SOURCE) {
            None => creates = true,
            Some(own) => {
                let own = HeaderName::try_from(own)
                    .map_err(|_| S3Error::internal("a condition's name"))?;
                of_source.insert(own, value.clone());
            }
        }
    }
    let mut prechecks = Vec::new();
    if requested.part_read().is_some_and(|part| part > 1) {
        // A caller without the right to HEAD it learns of no object.
        let permit = permit.besides(requested.head_of_read());
        let permit = permit.map_err(|_| no_such_part(requested))?;
        let head = head_of_whole_read(&client.headers)?;
        prechecks.push(Precheck::new(permit, head, Requirement::Fail, upstream)?);
    }
    if !of_source.is_empty()
        && let Some(source) = requested.head_of_source()
    {
        let permit = may_head(permit, source, "x-amz-copy-source-if-*")?;
        prechecks.push(Precheck::new(
            permit,
            head(of_source)?,
            Requirement::Hold,
            upstream,
        )?);
    }
    if creates {
        let permit = may_head(permit, requested.head_of_target(), "if-none-match")?;
        let head = head(HeaderMap::new())?;
        prechecks.push(Precheck::new(permit, head, Requirement::Absent, upstream)?);
    }
    Ok(prechecks)
}

impl<'t, 'r> Precheck<'t, 'r> {
    fn new(
        permit: Permit<'t, 'r>,
        head: Parts,
        required: Requirement,
        upstream: &Upstream,
    ) -> Result<Self, S3Error> {
        Ok(Self {
            request: request(&permit, &head, upstream)?,
            permit,
            head,
            required,
        })
    }
}

/// The head of a HEAD of the object that a request with these headers reads: of all of it, whatever its
/// conditions, but with the key that the client encrypted it with.
pub(crate) fn head_of_whole_read(client: &HeaderMap) -> Result<Parts, S3Error> {
    let mut headers = client.clone();
    headers.remove(RANGE);
    for name in conditions::PLAIN {
        headers.remove(name);
    }
    head(headers)
}

/// S3's refusal of a part that the object has not: here, and at COS, each is one part.
pub(crate) fn no_such_part(requested: &S3Request<'_>) -> S3Error {
    let part = requested.part_read().unwrap_or_default();
    S3Error::new(
        Code::InvalidPartNumber,
        "The requested partnumber is not satisfiable",
    )
    .element("PartNumberRequested", part.to_string())
    .element("ActualPartCount", "1")
}

fn may_head<'t, 'r>(
    permit: &Permit<'t, '_>,
    head: S3Request<'r>,
    condition: &str,
) -> Result<Permit<'t, 'r>, S3Error> {
    let may = permit.besides(head);
    may.map_err(|_| cannot_precheck(permit.request().operation, condition))
}

fn head(headers: HeaderMap) -> Result<Parts, S3Error> {
    let request = http::Request::builder().method(Method::HEAD).body(());
    let (mut head, ()) = request
        .map_err(|_| S3Error::internal("a head of nothing"))?
        .into_parts();
    head.headers = headers;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamSignature;
    use crate::rewrite::tests::{s3_request, tenant, upstream};
    use crate::s3::{CopySource, ObjectKey, Operation};

    fn client(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn copy() -> S3Request<'static> {
        S3Request {
            copy_source: Some(CopySource {
                bucket: "public".into(),
                key: ObjectKey::from_decoded("from".into()).unwrap(),
                version_id: Some("v=1&x".into()),
            }),
            ..s3_request(Operation::CopyObject, "photos", "acme/x", "")
        }
    }

    #[test]
    fn a_create_only_write_checks_that_its_object_is_absent() {
        let tenant = tenant();
        let put = s3_request(Operation::PutObject, "photos", "acme/x", "");
        let permit = Permit::for_test(&tenant, put).unwrap();
        let head = client(&[("if-none-match", "*")]);

        let found = prechecks(&permit, &head, &upstream(UpstreamSignature::S3)).unwrap();

        assert_eq!(found.len(), 1);
        assert_eq!(found[0].required, Requirement::Absent);
        let checked = found[0].permit.request();
        assert_eq!(checked.operation, Operation::HeadObject);
        assert_eq!(checked.key.as_ref().unwrap().as_str(), "acme/x");
        assert!(
            prechecks(&permit, &head, &upstream(UpstreamSignature::Cos))
                .unwrap()
                .is_empty()
        );
        assert!(
            prechecks(&permit, &client(&[]), &upstream(UpstreamSignature::S3))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn conditions_of_a_copys_source_are_checked_at_the_source() {
        let tenant = tenant();
        let permit = Permit::for_test(&tenant, copy()).unwrap();
        let head = client(&[
            ("x-amz-copy-source-if-match", "\"e\""),
            (
                "x-amz-copy-source-if-unmodified-since",
                "Sun, 06 Nov 1994 08:49:37 GMT",
            ),
            ("if-none-match", "*"),
        ]);

        let found = prechecks(&permit, &head, &upstream(UpstreamSignature::S3)).unwrap();

        let required: Vec<Requirement> = found.iter().map(|precheck| precheck.required).collect();
        assert_eq!(required, [Requirement::Hold, Requirement::Absent]);
        let source = found[0].permit.request();
        assert_eq!(
            (source.bucket.as_deref(), source.query.get("versionId")),
            (Some("public"), Some("v=1&x"))
        );
        assert_eq!(found[0].head.headers.len(), 2);
        assert_eq!(found[0].head.headers["if-match"], "\"e\"");
        assert_eq!(found[1].permit.request().bucket.as_deref(), Some("photos"));
        assert!(found[1].head.headers.is_empty());
    }

    #[test]
    fn who_may_not_look_is_refused_by_name() {
        let mut tenant = tenant();
        for grant in &mut tenant.grants {
            grant
                .actions
                .retain(|action| action != "name/cos:HeadObject");
        }
        let permit = Permit::for_test(&tenant, copy()).unwrap();
        for (name, value) in [("if-none-match", "*"), ("x-amz-copy-source-if-match", "e")] {
            let refused = prechecks(
                &permit,
                &client(&[(name, value)]),
                &upstream(UpstreamSignature::S3),
            );
            let refused = refused.unwrap_err();
            assert_eq!(refused.code(), Code::NotImplemented);
            assert!(
                refused.message().contains("name/cos:HeadObject"),
                "{}",
                refused.message()
            );
            let kept = prechecks(
                &permit,
                &client(&[(name, value)]),
                &upstream(UpstreamSignature::Cos),
            );
            assert!(kept.unwrap().is_empty());
        }
    }
}
