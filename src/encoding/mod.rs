//! Percent-encoding and hexadecimal, each in one place.

pub mod hex;
pub mod percent;
