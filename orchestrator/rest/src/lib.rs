//! What a tier with children tells operators, the same at a cluster and at the root.
//!
//! Why apart from both: `marram --cluster` asks a cluster what it else asks the root, in the
//! same words. What only the root has, as applications and users, stays there.
//!
//! Rooms:
//! - [`server`], [`body`]: HTTP within limits of number, size and time;
//! - [`refusal`], [`problem`]: why something is not done, and how that is said;
//! - [`front`]: what a tier lends to the calls;
//! - [`calls`]: instances, logs, exec, explanations, the tree, operations;
//! - [`link`]: the way of streams to who answers them;
//! - [`tree`], [`targets`], [`view`]: clusters by name, what operators mean by a name, and what
//!   clients see;
//! - [`lines`]: children and explanations, one JSON object a line, as tiers ask each other.

pub mod body;
pub mod calls;
pub mod front;
pub mod lines;
pub mod link;
pub mod problem;
pub mod refusal;
pub mod server;
pub mod targets;
pub mod tree;
pub mod view;
