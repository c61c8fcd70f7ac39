//! Streams as bytes: counted, bounded and paced, and the one scanner of lines.

pub mod descriptors;
mod gauge;
pub(crate) mod line;
mod pace;
mod stream;

pub(crate) use gauge::{BodyInFlight, Phase};
pub use gauge::{CoreLoad, Gauge};
pub(crate) use pace::{Pace, Side};
pub(crate) use stream::Counted;

/// The largest frame of HTTP/2, both ways; RFC 9113's least. Larger ones would make every stream wait longer for
/// the others, and gain nothing that a profile shows.
pub(crate) const FRAME: usize = 16 * 1024;
