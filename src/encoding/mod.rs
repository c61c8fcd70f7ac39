//! Percent-encoding, hexadecimal, HTML and splitting, each in one place.

pub mod hex;
pub(crate) mod html;
pub mod percent;
pub mod split;
