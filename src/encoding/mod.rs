//! Percent-encoding, hexadecimal, HTML, hidden characters and splitting, each in one place.

pub mod hex;
pub(crate) mod html;
pub mod percent;
pub mod split;
pub(crate) mod visible;
