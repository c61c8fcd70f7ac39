//! STS as text: the calls that make keys, its response and its errors. Pure.

mod error;
mod request;
mod response;

pub use error::{StsClass, StsError};
pub use request::{ACTION, ASSUME_ROLE, StsCall, StsCaller, StsEndpoint, VERSION, WEB_IDENTITY};
pub use response::{Issued, parse_response};
