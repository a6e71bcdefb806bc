//! How patient a child is with its parents: what an operator can change.

/// How long the present parent may be unreachable, or without a way to the root, before
/// another one is looked for: most outages are restarts and are over sooner.
pub const FAILOVER_PATIENCE_MS: u64 = 60_000;

/// How long the preferred parent has to be well before the child goes back: a link that comes
/// and goes must not carry a subtree to and fro.
pub const FAILBACK_HYSTERESIS_MS: u64 = 300_000;

/// How a child goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// [`FAILOVER_PATIENCE_MS`], or what the operator says.
    pub patience_ms: u64,
    /// [`FAILBACK_HYSTERESIS_MS`], or what the operator says.
    pub hysteresis_ms: u64,
    /// The first pause after a failure, not 0; they double from there.
    pub pause_ms: u64,
    /// A parent without a way to the root is not well. Not so for nodes: their cluster serves
    /// them alone too.
    pub needs_root: bool,
}
