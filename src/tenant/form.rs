//! Who posted a form, and what its policy lets it request.

use std::sync::Arc;

use http::request::Parts;

use super::authenticate::{LocalKey, MAX_SKEW, OpenSession, SERVICE, unknown_key, wrong_signature};
use super::{Authenticated, Connection, Identified, Identity, Tenant, Tenants};
use crate::error::{Code, S3Error};
use crate::payload::Mode;
use crate::s3::conditions::is_condition;
use crate::s3::form::{Form, FormPolicy, LengthRange};
use crate::s3::headers::{Disposition, disposition, must_be_signed};
use crate::s3::{Operation, S3Request, native};
use crate::sign::form::{FormClaim, FormSignature};
use crate::sign::{sigv2, sigv4};
use crate::timestamp::Timestamp;

/// The sender of a form, which met its policy.
#[derive(Debug)]
pub(crate) struct FormCaller {
    /// Who it is.
    pub caller: Identified,
    /// How long the file may be.
    pub length: LengthRange,
}

impl Tenants {
    /// Finds out who signed `form`, posted with `head`, and holds it to its policy. Any field of a
    /// signature makes the form one that must be signed well; without one it is the anonymous tenant's.
    pub(crate) fn identify_form(
        &self,
        head: &Parts,
        form: &Form,
        requested: &S3Request<'_>,
        connection: Connection,
        now: Timestamp,
    ) -> Result<FormCaller, S3Error> {
        check_head(head, requested)?;
        let Some(claim) = FormClaim::read(form)? else {
            let (tenant, identity) = self.unsigned(head, requested, connection, now)?;
            form.check_all_known()?;
            return Ok(FormCaller {
                caller: Identified(Authenticated::new(tenant, identity, Mode::Unsigned)),
                length: LengthRange::ANY,
            });
        };
        let session = form.get("x-amz-security-token");
        let session = session.map(|token| self.session(token, now)).transpose()?;
        let session = session.as_deref();
        let (key, tenant) = self.signer_of_form(&claim, session, now)?;
        let policy = FormPolicy::parse(claim.policy)?;
        let bucket = requested.bucket.as_deref().unwrap_or_default();
        let length = policy.check(form, bucket, claim.unlisted(), now)?;
        self.check_form_life(&claim, &policy, now)?;
        let identity = session.map_or_else(
            || Identity::Form(Arc::clone(&key.id)),
            OpenSession::identity,
        );
        Ok(FormCaller {
            caller: Identified(Authenticated::new(tenant, identity, Mode::Unsigned)),
            length,
        })
    }

    /// Whose key signed the form, and whose key that is. An unknown key costs the time of a known one.
    fn signer_of_form<'a>(
        &'a self,
        claim: &FormClaim<'_>,
        session: Option<&'a OpenSession>,
        now: Timestamp,
    ) -> Result<(&'a LocalKey, &'a Arc<Tenant>), S3Error> {
        match &claim.signature {
            FormSignature::Two(_) if !self.allow_sigv2_presign => {
                return Err(S3Error::new(
                    Code::InvalidRequest,
                    "The authorization mechanism you have provided is not supported. Please use \
                     AWS4-HMAC-SHA256, or ask the operator to set [server] allow_sigv2_presign = true.",
                ));
            }
            FormSignature::Two(_) => {}
            FormSignature::Four { scope, .. } => self.check_scope(scope, SERVICE, |why| {
                let text = format!("Error parsing the x-amz-credential field; {why}");
                S3Error::new(Code::InvalidArgument, text)
            })?,
        }
        let known = self.known(claim.access_key, session);
        let verified = known
            .map_or(&self.nobody, |(key, _)| key)
            .verify_form(claim);
        let (key, tenant) = known.ok_or_else(unknown_key)?;
        if !verified {
            return Err(wrong_signature());
        }
        key.check_end(now)?;
        Ok((key, tenant))
    }

    /// A form is good for no longer than a presigned URL may be.
    fn check_form_life(
        &self,
        claim: &FormClaim<'_>,
        policy: &FormPolicy,
        now: Timestamp,
    ) -> Result<(), S3Error> {
        let start = match claim.signature {
            FormSignature::Two(_) => now,
            FormSignature::Four { time, .. } => time,
        };
        if start.since(now) > MAX_SKEW {
            return Err(S3Error::new(
                Code::AccessDenied,
                "Invalid according to Policy: x-amz-date is in the future.",
            ));
        }
        // A form of version 2 does not say when it was signed, so that its end alone can be looked at.
        let life = match claim.signature {
            FormSignature::Two(_) => policy.expiration().since(now),
            FormSignature::Four { .. } => now.since(start),
        };
        if u64::try_from(life).is_ok_and(|life| life > self.max_presign) {
            let text = format!(
                "Invalid according to Policy: a form can be valid for at most {} seconds.",
                self.max_presign
            );
            return Err(S3Error::new(Code::AccessDenied, text));
        }
        Ok(())
    }
}

/// A form is signed by its own fields, and has in them alone what it requests: a header or parameter that
/// would mean something in a PUT is refused, not lost.
fn check_head(head: &Parts, requested: &S3Request<'_>) -> Result<(), S3Error> {
    let query = requested.query.pairs();
    if head.headers.contains_key(http::header::AUTHORIZATION)
        || sigv4::SigV4Claim::is_in_query(query)
        || sigv2::SigV2Claim::is_in_query(query)
        || native::is_native(head)
    {
        return Err(S3Error::new(
            Code::InvalidArgument,
            "A form is signed by its own fields alone; send it without a signature in the head or the URL.",
        ));
    }
    for (name, value) in &head.headers {
        // Browsers send these of their own accord.
        let of_browser = ["cache-control", "content-type"].contains(&name.as_str());
        let means = || disposition(Operation::PutObject, name.as_str(), value.as_bytes());
        let is_condition = is_condition(name.as_str());
        if must_be_signed(name.as_str())
            || is_condition
            || (!of_browser && !matches!(means()?, Disposition::Drop | Disposition::Read))
        {
            return Err(S3Error::new(
                Code::InvalidArgument,
                format!("The header {name} does not belong to a form; send it as a field."),
            ));
        }
    }
    Ok(())
}
