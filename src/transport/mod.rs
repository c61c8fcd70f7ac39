//! Streams as bytes: counting, bounding, pacing and inspecting, the line scanner and the framing rules.

pub mod descriptors;
pub mod framing;
pub mod inspected;
pub mod line;
mod pace;
mod stream;
mod stream_state;

pub use pace::{Side, TransferPace};
pub use stream::CountedStream;
pub use stream_state::{BodyInFlight, CoreLoad, Phase, READ_BUDGET, StreamState};

/// The largest frame of HTTP/2, both ways; RFC 9113's least. Larger ones would make every stream wait longer for
/// the others, and gain nothing that a profile shows.
pub const FRAME: usize = 16 * 1024;
