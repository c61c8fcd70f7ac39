//! May they: [`Authenticated::authorize`] is the only maker of a [`Permit`].

use super::{Authenticated, Grant, Tenant};
use crate::s3::{S3Error, S3Request};

/// The proof that a request may be done: the only thing that can be rewritten for COS.
#[derive(Debug)]
pub struct Permit<'t, 'r> {
    request: S3Request<'r>,
    tenant: &'t Tenant,
    grant: Option<&'t Grant>,
    source: Option<&'t Grant>,
}

impl<'t> Authenticated<'t> {
    /// Checks `asked` against the caller's grants.
    pub fn authorize<'r>(&self, _asked: S3Request<'r>) -> Result<Permit<'t, 'r>, S3Error> {
        todo!()
    }
}

impl<'t, 'r> Permit<'t, 'r> {
    /// What was asked.
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
}
