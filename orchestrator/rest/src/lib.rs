//! What a tier with children tells operators, the same at a cluster and at the root.
//!
//! Why apart from both: `marram --cluster` asks a cluster what it else asks the root, in the
//! same words. What only the root has, as applications and users, stays there.
//!
//! Rooms:
//! - [`lines`]: children and explanations, one JSON object a line, as tiers ask each other.

pub mod lines;
