//! Toward clients: listeners, server and cores, TLS, HTTP/1.1, HTTP/2, and the admin listener.

pub mod admin;
mod certificate;
mod client_verifier;
mod connection_limit;
mod frames;
mod handshake;
pub mod header_block;
pub mod health;
mod http1;
mod http2;
pub mod listen;
pub mod live;
mod on_wake;
pub mod proxy_header;
mod proxy_protocol;
mod readiness;
pub mod reloads;
mod request_body;
mod request_guard;
mod request_head;
pub mod server;
pub mod tls;
mod transport_rules;
