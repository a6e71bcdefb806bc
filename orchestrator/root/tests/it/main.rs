//! The root as clients and clusters meet it: real HTTP, real tunnel, real store.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod harness;
mod limits;
mod login;
mod oakestra;
mod program;
mod restart;
mod scale;
mod streams;
mod tree;
mod v1;
