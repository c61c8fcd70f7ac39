//! Bytes and a time in, a value out: vectors, the configuration, who calls and what CAM is told. No socket.

mod authenticate;
mod aws_chunked;
mod config;
mod s3_clients;
mod sign_vectors;
mod sts_policy;
