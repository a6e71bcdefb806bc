//! What a tier with children tells operators, the same at a cluster and at the root.
//!
//! Why apart from both: `marram --cluster` asks a cluster what it else asks the root, in the
//! same words. What only the root has, as applications and users, stays there.
//!
//! Rooms:
//! - [`server`], [`body`]: HTTP within limits of number, size and time;
//! - [`refusal`], [`problem`]: why something is not done, and how that is said;
//! - [`lines`]: children and explanations, one JSON object a line, as tiers ask each other.

pub mod body;
pub mod lines;
pub mod problem;
pub mod refusal;
pub mod server;
