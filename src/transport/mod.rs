//! Streams as bytes: counted, bounded and paced, and the one scanner of lines.

pub mod descriptors;
mod gauge;
pub mod line;
mod pace;
mod stream;

pub use gauge::{BodyInFlight, CoreLoad, Gauge, Phase, READ_BUDGET};
pub use pace::{Pace, Side};
pub use stream::Counted;

/// The largest frame of HTTP/2, both ways; RFC 9113's least. Larger ones would make every stream wait longer for
/// the others, and gain nothing that a profile shows.
pub const FRAME: usize = 16 * 1024;
