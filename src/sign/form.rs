//! The signature of a browser's form: it signs the policy in the form.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-authentication-HTTPPOST.html>

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::sigv4::{ALGORITHM, CredentialScope, SigningKey, credential_parts};
use crate::encoding::hex::parse_hex32;
use crate::error::{Code, S3Error};
use crate::s3::form::Form;
use crate::secret::Secret;
use crate::timestamp::Timestamp;

/// What a form says of its signature, read strictly but not yet believed.
#[derive(Clone, Debug)]
pub struct FormClaim<'f> {
    /// The access key id.
    pub access_key: &'f str,
    /// The policy as it was sent: the text that is signed.
    pub policy: &'f str,
    /// The signature.
    pub signature: FormSignature<'f>,
}

/// The signature, by its version.
#[derive(Clone, Debug)]
pub enum FormSignature<'f> {
    /// Signature Version 2: HMAC-SHA1 under the secret itself.
    Two([u8; 20]),
    /// Signature Version 4.
    Four {
        /// The credential scope; its day is that of `time`.
        scope: CredentialScope<'f>,
        /// When it was signed.
        time: Timestamp,
        /// The signature.
        signature: [u8; 32],
    },
}

/// The fields of Signature Version 4, the policy aside, and that of a token.
const OF_FOUR: [&str; 5] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-signature",
];
const OF_TWO: [&str; 2] = ["awsaccesskeyid", "signature"];

impl<'f> FormClaim<'f> {
    /// Reads it; `None` when the form has no field of a signature.
    pub fn read(form: &'f Form) -> Result<Option<Self>, S3Error> {
        if !form.is_signed() {
            return Ok(None);
        }
        let two = OF_TWO.iter().any(|name| form.get(name).is_some());
        if two && OF_FOUR.iter().any(|name| form.get(name).is_some()) {
            return Err(super::one_mechanism());
        }
        let policy = form.need("policy")?;
        if two {
            let signature = BASE64_STANDARD.decode(form.need("signature")?);
            let signature = signature.ok().and_then(|bytes| bytes.try_into().ok());
            return Ok(Some(Self {
                access_key: form.need("awsaccesskeyid")?,
                policy,
                signature: FormSignature::Two(
                    signature.ok_or_else(|| invalid("signature must be base64 of 20 bytes"))?,
                ),
            }));
        }
        if form.need("x-amz-algorithm")? != ALGORITHM {
            return Err(invalid("x-amz-algorithm only supports AWS4-HMAC-SHA256"));
        }
        let (access_key, scope) =
            credential_parts(form.need("x-amz-credential")?).ok_or_else(|| {
                invalid("x-amz-credential must be ACCESS-KEY/YYYYMMDD/REGION/s3/aws4_request")
            })?;
        let time = Timestamp::parse_amz(form.need("x-amz-date")?)
            .ok_or_else(|| invalid("x-amz-date must be written 20260115T123045Z"))?;
        if time.date() != scope.date {
            return Err(invalid(
                "the day in x-amz-credential is not the day of x-amz-date",
            ));
        }
        let signature = parse_hex32(form.need("x-amz-signature")?)
            .ok_or_else(|| invalid("x-amz-signature must be 64 lower-case hex digits"))?;
        Ok(Some(Self {
            access_key,
            policy,
            signature: FormSignature::Four {
                scope,
                time,
                signature,
            },
        }))
    }

    /// The fields that need no condition in the policy, being what proves it.
    pub fn unlisted(&self) -> &'static [&'static str] {
        match self.signature {
            FormSignature::Two(_) => &["awsaccesskeyid", "policy", "signature"],
            FormSignature::Four { .. } => &["policy", "x-amz-signature"],
        }
    }

    /// Whether the signature is that of the policy, in constant time. `key` gives the signing key of a
    /// scope, derived from `secret`.
    pub fn verify(
        &self,
        secret: &Secret,
        key: impl FnOnce(&CredentialScope<'_>) -> SigningKey,
    ) -> bool {
        match &self.signature {
            FormSignature::Two(signature) => {
                super::sigv2::verify_text(self.policy, signature, secret)
            }
            FormSignature::Four {
                scope, signature, ..
            } => key(scope).verify(self.policy.as_bytes(), signature),
        }
    }
}

fn invalid(why: &'static str) -> S3Error {
    S3Error::new(Code::InvalidArgument, why)
}
