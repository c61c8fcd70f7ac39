//! The keys that tenants' clients sign with.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::sigv4::SERVICE;
use crate::error::{Code, S3Error};
use crate::secret::Secret;
use crate::sign::Signable;
use crate::sign::form::FormClaim;
use crate::sign::sigv4::{CredentialScope, SigV4Claim, SigningKey};
use crate::tenant::session::Trust;
use crate::timestamp::Timestamp;

/// One of a tenant's access keys.
pub(in crate::tenant) struct LocalKey {
    pub(in crate::tenant) id: Arc<str>,
    pub(in crate::tenant) tenant: usize,
    pub(super) secret: Secret,
    /// What it signs is refused after this time.
    pub(super) not_after: Option<Timestamp>,
    /// The signing key of the day and region that this key was last used for.
    at_hand: ArcSwapOption<DayKey>,
}

struct DayKey {
    date: String,
    region: String,
    key: SigningKey,
}

impl LocalKey {
    pub(super) fn new(id: &str, tenant: usize, secret: Secret) -> Self {
        Self {
            id: id.into(),
            tenant,
            secret,
            not_after: None,
            at_hand: ArcSwapOption::empty(),
        }
    }

    /// The same key with an end.
    #[must_use]
    pub(super) fn until(self, not_after: Option<Timestamp>) -> Self {
        Self { not_after, ..self }
    }

    /// Whether it is past its end.
    pub(super) fn has_ended(&self, now: Timestamp) -> bool {
        self.not_after.is_some_and(|end| now > end)
    }

    /// Refuses a key that is past its end. To be called once the signature is known to be good: nobody
    /// else learns of the end.
    pub(in crate::tenant) fn check_end(&self, now: Timestamp) -> Result<(), S3Error> {
        match self.not_after {
            Some(end) if now > end => Err(S3Error::new(
                Code::InvalidAccessKeyId,
                format!(
                    "The access key ended at {}: use a newer key.",
                    end.iso8601()
                ),
            )),
            _ => Ok(()),
        }
    }

    /// What a session rests on that was got with this key.
    pub(super) fn trust(&self) -> Trust<'_> {
        Trust::AccessKey {
            id: &self.id,
            secret: &self.secret,
        }
    }

    /// Whether `claim` is signed with this key. A signing key that has proved good today is kept:
    /// neither an old presigned URL nor a stranger who knows the id can push it out.
    pub(super) fn verify(
        &self,
        claim: &SigV4Claim<'_>,
        request: &Signable<'_>,
        payload: &str,
        now: Timestamp,
    ) -> bool {
        let CredentialScope { date, region, .. } = claim.scope;
        if let Some(kept) = &*self.at_hand.load()
            && kept.date == date
            && kept.region == region
        {
            return claim.verify(request, &kept.key, payload);
        }
        let key = SigningKey::derive(&self.secret, date, region, SERVICE);
        let verified = claim.verify(request, &key, payload);
        if verified && now.date() == date {
            let day_key = DayKey {
                date: date.to_owned(),
                region: region.to_owned(),
                key,
            };
            self.at_hand.store(Some(Arc::new(day_key)));
        }
        verified
    }

    /// Whether the form's policy is signed with this key.
    pub(in crate::tenant) fn verify_form(&self, claim: &FormClaim<'_>) -> bool {
        claim.verify(&self.secret, |scope| self.signing_key(scope))
    }

    /// The signing key of `scope`: the one at hand, or a fresh one.
    pub(super) fn signing_key(&self, scope: &CredentialScope<'_>) -> SigningKey {
        let kept = self.at_hand.load();
        match &*kept {
            Some(kept) if kept.date == scope.date && kept.region == scope.region => {
                kept.key.clone()
            }
            _ => SigningKey::derive(&self.secret, scope.date, scope.region, SERVICE),
        }
    }
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
