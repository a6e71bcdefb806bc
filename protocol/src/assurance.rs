//! Whether what a child holds is what the root desires of it now.
//!
//! Why here: a node and a cluster find out by the same rule. A parent that is connected may be
//! without a way to the root itself, and a child may not have heard yet what was decided
//! meanwhile; who may only run with the root's word waits for both. The parent says that its
//! way up is whole; from then on the child asks for the list, and what it holds is sure once
//! a list that came after the question is in force.
//!
//! Invariant: nothing is sure of which a tier above may have decided otherwise before the way
//! was whole again: each tier says that its way is whole only when its own list is in force.

use crate::v1::Generation;

/// A question without an answer is asked again after so long.
const ASK_INTERVAL_MS: u64 = 30_000;

/// What is known of the way to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Assurance {
    /// It is broken somewhere.
    #[default]
    None,
    /// It is whole, and the list was asked for.
    Asked {
        /// When to ask again.
        again_ms: u64,
    },
    /// The list has come and is not in force yet.
    Named {
        /// Of the list.
        generation: Generation,
        /// When to ask again.
        again_ms: u64,
    },
    /// What is held is what the root desires.
    Sure,
}

impl Assurance {
    /// The way to the parent is broken.
    pub fn lose(&mut self) {
        *self = Self::None;
    }

    /// The parent tells whether its own way is whole. `matters` says whether anything held
    /// depends on it. Whether to ask for the list.
    pub fn hear(&mut self, rooted: bool, matters: bool, now_ms: u64) -> bool {
        if !rooted {
            *self = Self::None;
        } else if *self == Self::None {
            let again_ms = now_ms.saturating_add(ASK_INTERVAL_MS);
            *self = if matters { Self::Asked { again_ms } } else { Self::Sure };
            return matters;
        }
        false
    }

    /// The parent has sent the list of this generation.
    pub fn name(&mut self, generation: Generation) {
        if let Self::Asked { again_ms } | Self::Named { again_ms, .. } = *self {
            *self = Self::Named { generation, again_ms };
        }
    }

    /// A whole list is in force.
    pub fn apply(&mut self, held: Generation) {
        if let Self::Named { generation, .. } = *self
            && held.epoch == generation.epoch
            && held.number >= generation.number
        {
            *self = Self::Sure;
        }
    }

    /// Whether what is held is what the root desires.
    pub fn is_sure(&self) -> bool {
        *self == Self::Sure
    }

    /// When to ask again.
    pub fn due_ms(&self) -> Option<u64> {
        match self {
            Self::Asked { again_ms } | Self::Named { again_ms, .. } => Some(*again_ms),
            Self::None | Self::Sure => None,
        }
    }

    /// Whether to ask again now.
    pub fn ask_again(&mut self, now_ms: u64) -> bool {
        let is_due = self.due_ms().is_some_and(|at| at <= now_ms);
        if is_due {
            *self = Self::Asked { again_ms: now_ms.saturating_add(ASK_INTERVAL_MS) };
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(number: u64) -> Generation {
        Generation { epoch: 7, number }
    }

    #[test]
    fn only_a_list_that_was_sent_after_the_question_counts() {
        let mut assurance = Assurance::default();
        assurance.name(generation(3));
        assert!(assurance.hear(true, true, 0));
        assert!(!assurance.hear(true, true, 0), "asked once");
        assurance.apply(generation(3));
        assert!(!assurance.is_sure());
        assurance.name(generation(4));
        assurance.apply(generation(3));
        assert!(!assurance.is_sure());
        assurance.apply(generation(4));
        assert!(assurance.is_sure());
        assert!(!assurance.hear(true, true, 0) && assurance.is_sure());
        assurance.hear(false, true, 0);
        assert!(!assurance.is_sure());
    }

    #[test]
    fn what_depends_on_nothing_asks_nothing() {
        let mut assurance = Assurance::default();
        assert!(!assurance.hear(true, false, 0));
        assert!(assurance.is_sure());
        assurance.lose();
        assert!(!assurance.is_sure());
    }

    #[test]
    fn a_lost_question_is_asked_again() {
        let mut assurance = Assurance::default();
        assurance.hear(true, true, 0);
        assert!(!assurance.ask_again(ASK_INTERVAL_MS - 1));
        assert!(assurance.ask_again(ASK_INTERVAL_MS));
        assert_eq!(assurance.due_ms(), Some(2 * ASK_INTERVAL_MS));
    }
}
