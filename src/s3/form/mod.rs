//! Browser forms (`POST Object`): their framing, their fields and their policy, as AWS documents them.
//!
//! 1. [`FormReader`] takes `multipart/form-data` apart, up to the first byte of the file: a [`Form`];
//! 2. [`FormPolicy`] limits what a signed form may request;
//! 3. [`FormPut`] is what it requests, in the terms of a PUT of its file, and the response that a success gets.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html>

mod fields;
mod multipart;
mod policy;
mod put;

pub use fields::Form;
pub use multipart::{Boundary, FormReader, MAX_FORM_BYTES};
pub use policy::FormPolicy;
pub use policy::LengthRange;
pub use put::FormPut;
pub use put::SuccessAction;
pub(crate) use put::redirect_target;

use std::borrow::Cow;

use crate::error::{Code, S3Error};

/// The refusal of a body that is not the form it claims to be.
fn malformed(why: impl Into<Cow<'static, str>>) -> S3Error {
    let why = why.into();
    let text =
        format!("The body of your POST request is not well-formed multipart/form-data: {why}.");
    S3Error::new(Code::MalformedPOSTRequest, text).close()
}
