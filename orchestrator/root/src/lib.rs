//! The root: where operators' documents enter, and where the tree of clusters begins.
//!
//! ```text
//!  clients ──HTTP──► server ─► rest ──commands──► shell ──► store
//!                                │                  │ ▲
//!                                │ streams          ▼ │ events
//!                                └──────────► connections ◄══tunnel══ clusters
//! ```
//!
//! Rooms:
//! - [`config`]: what the operator says;
//! - [`root`]: puts the pieces together;
//! - [`server`] and [`rest`]: HTTP, in Oakestra's form and in the clean one;
//! - [`auth`]: users, passwords, tokens, ownership;
//! - [`catalog`]: applications and services;
//! - [`shell`]: the owner of the state, and the connections of clusters;
//! - [`view`]: what clients may see of it;
//! - [`storage`] and [`secret`]: what lies on disk.
//!
//! Invariants:
//! - what a client was told is done is on disk;
//! - whoever is not logged in learns nothing but the clusters' names and sizes, which
//!   Oakestra's clients ask for without a token, and whether the root is well.

pub mod auth;
pub mod catalog;
pub mod clock;
pub mod config;
pub mod rest;
pub mod root;
pub mod secret;
pub mod shell;
pub mod storage;
pub mod view;

pub use marram_rest::refusal;
