//! Percent-encoding, hexadecimal and splitting, each in one place.

pub mod hex;
pub mod percent;
pub mod split;
