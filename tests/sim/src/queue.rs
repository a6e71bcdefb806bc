//! Virtual time: what will happen, and when.
//!
//! Why a heap with dead entries and not a scan of everybody: a world of ten thousand nodes has
//! as many timers, and only the next one matters. A timer that was set anew leaves its old
//! entry behind, which its owner ignores.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// What will happen, in order of time, then of being said.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    now_ms: u64,
    sequence: u64,
    /// Events that have happened at the present moment.
    at_this_moment: u32,
    heap: BinaryHeap<Entry<E>>,
}

#[derive(Debug)]
struct Entry<E> {
    at_ms: u64,
    sequence: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self { now_ms, sequence: 0, at_this_moment: 0, heap: BinaryHeap::new() }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Many at one moment are a loop in which nobody waits.
    pub(crate) fn at_this_moment(&self) -> u32 {
        self.at_this_moment
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn push(&mut self, at_ms: u64, event: E) {
        self.sequence += 1;
        let at_ms = at_ms.max(self.now_ms);
        self.heap.push(Entry { at_ms, sequence: self.sequence, event });
    }

    /// The next event; time goes on to it.
    pub(crate) fn pop(&mut self) -> Option<E> {
        let entry = self.heap.pop()?;
        self.at_this_moment = if entry.at_ms > self.now_ms { 0 } else { self.at_this_moment + 1 };
        self.now_ms = entry.at_ms;
        Some(entry.event)
    }
}

impl<E> Ord for Entry<E> {
    /// The greatest is the next.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ms, other.sequence).cmp(&(self.at_ms, self.sequence))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_as_they_were_said() {
        let mut queue = Queue::new(10);
        for (at, event) in [(30, 'c'), (20, 'a'), (20, 'b'), (5, '0')] {
            queue.push(at, event);
        }
        let all: Vec<(char, u64, u32)> = std::iter::from_fn(|| {
            queue.pop().map(|event| (event, queue.now_ms(), queue.at_this_moment()))
        })
        .collect();
        assert_eq!(all, [('0', 10, 1), ('a', 20, 0), ('b', 20, 1), ('c', 30, 0)]);
    }
}
