//! Pure tests: vectors, the configuration, authentication and CAM policies, without sockets.

mod authenticate;
mod aws_chunked;
mod config;
mod s3_clients;
mod sign_vectors;
mod sts_policy;
