//! Streams as bytes: counting, bounding, pacing and inspecting, the line scanner and the framing rules.

pub(crate) mod bounded_file;
pub mod descriptors;
pub mod file_state;
pub mod framing;
pub(crate) mod inspected;
pub mod line;
mod pace;
mod stream;
mod stream_state;

pub(crate) use pace::{Side, TransferPace};
pub(crate) use stream::CountedStream;
pub use stream_state::BodyInFlight;
pub use stream_state::CoreLoad;
pub use stream_state::Phase;
pub(crate) use stream_state::StreamState;

/// The largest frame of HTTP/2, both ways; RFC 9113's least. Larger ones would make every stream wait longer for
/// the others, and gain nothing that a profile shows.
pub(crate) const FRAME: usize = 16 * 1024;
