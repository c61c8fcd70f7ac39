//! The emulator over sockets: what it does, and everything that it must refuse.
#![cfg(feature = "emulator")]

mod client;
mod cos;
mod faults;
mod multipart;
mod refusals;
mod sts;
