//! Topics and filters: which are valid, and which filter matches which topic.
//!
//! Total functions over strings; the tree and the retained store are built on them, and tests
//! hold both against [`matches`].

use crate::config::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};

/// A filter taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed<'a> {
    /// The group of a shared subscription.
    pub(crate) group: Option<&'a str>,
    /// The filter without the `$share/group/` prefix.
    pub(crate) filter: &'a str,
}

/// Whether a message may carry this topic.
pub(crate) fn is_topic(topic: &str) -> bool {
    fits(topic) && !topic.contains(['+', '#'])
}

/// Takes a filter apart; none if it breaks the standard or a limit.
pub(crate) fn parse_filter(text: &str) -> Option<Parsed<'_>> {
    if !fits(text) {
        return None;
    }
    let (group, filter) = match text.strip_prefix("$share/") {
        None => (None, text),
        Some(rest) => {
            let (group, filter) = rest.split_once('/')?;
            if group.is_empty() || group.contains(['+', '#']) {
                return None;
            }
            (Some(group), filter)
        }
    };
    if filter.is_empty() {
        return None;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        let valid = match level {
            "#" => last,
            "+" => true,
            _ => !level.contains(['+', '#']),
        };
        if !valid {
            return None;
        }
    }
    Some(Parsed { group, filter })
}

/// Whether a filter (without share prefix) matches a topic. A wildcard in the first level never
/// matches topics that begin with `$`.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut filter = filter.split('/');
    let mut topic = topic.split('/');
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(f), Some(t)) if f == t => {}
            _ => return false,
        }
    }
}

/// The part that every topic matched by the filter begins with.
pub(crate) fn literal_prefix(filter: &str) -> &str {
    match filter.find(['+', '#']) {
        None => filter,
        // `a/#` matches `a` too, so the separator before the wildcard is not part of it.
        Some(at) => filter.get(..at.saturating_sub(1)).unwrap_or_default(),
    }
}

fn fits(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= TOPIC_BYTES_MAX
        && !text.contains('\0')
        && text.split('/').count() <= TOPIC_LEVELS_MAX
}
