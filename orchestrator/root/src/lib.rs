//! The root: where operators' documents enter, and where the tree of clusters begins.
pub mod auth;
pub mod catalog;
pub mod config;
pub mod refusal;
pub mod secret;
pub mod storage;
