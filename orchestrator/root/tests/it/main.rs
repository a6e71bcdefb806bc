//! The root as clients and clusters meet it: real HTTP, real tunnel, real store.

mod cluster;
mod harness;
mod limits;
mod login;
mod oakestra;
mod restart;
mod streams;
mod v1;
