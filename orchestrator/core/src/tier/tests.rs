//! Tests of a tier.
