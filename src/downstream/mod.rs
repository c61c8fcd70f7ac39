//! The side of the clients: listeners, cores, TLS, HTTP/1 and HTTP/2, and the admin listener.

pub mod admin;
mod certificate;
mod client_verifier;
mod connection_limit;
mod frames;
mod handshake;
pub mod header_block;
mod http2;
pub mod listen;
pub mod proxy_header;
mod proxy_protocol;
mod request_guard;
pub mod server;
pub mod tls;
