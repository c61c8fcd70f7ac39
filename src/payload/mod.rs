//! An upload's body as clients frame it: distinguished by its head, decoded, checked as it passes, and
//! its end held back until every check has passed.
//!
//! 1. [`Mode`] is what `x-amz-content-sha256` says; [`Declared`] is all that the head declares of the body;
//! 2. [`chunked::Decoder`] takes `aws-chunked` framing off and checks the chunk signatures;
//!    [`FormFile`] takes the file out of a browser's form;
//! 3. [`checksum::Checks`] digests the decoded bytes and compares at the end;
//! 4. [`HoldBack`] keeps the object's last bytes until then;
//! 5. [`Intake`] is those three in one;
//! 6. [`compare_stored`] holds COS's response against what was sent.

pub mod checksum;
pub mod chunked;
mod declared;
mod error;
mod form_file;
mod hold_back;
mod intake;
mod signature;
mod stored;
mod trailer;

pub use declared::{Declared, Framing, Mode};
pub use error::PayloadError;
pub use form_file::FormFile;
pub(crate) use hold_back::HoldBack;
pub use intake::Intake;
pub(crate) use intake::unsigned_chunks;
pub use signature::ChunkSignatures;
pub(crate) use stored::compare_stored;
