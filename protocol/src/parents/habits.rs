//! How patient a child is with its parents, and what an operator can say of that.
//!
//! Why the form in a configuration file is here: clusters and nodes have the same.

use crate::v1::ALTERNATES_MAX;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

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

/// What an operator says of the way up: a URL alone, or a table with more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WayUp {
    /// The preferred parent.
    pub url: Option<String>,
    /// Others, the best first.
    pub alternates: Vec<String>,
    /// In place of [`FAILOVER_PATIENCE_MS`].
    pub failover_patience_s: Option<u32>,
    /// In place of [`FAILBACK_HYSTERESIS_MS`].
    pub failback_hysteresis_s: Option<u32>,
}

/// Longest patience or hysteresis: who waits for longer than a day wants none.
const WAIT_S_MAX: u32 = 86_400;

impl WayUp {
    /// How the child goes about it.
    pub fn habits(&self, pause_ms: u64, needs_root: bool) -> Habits {
        let ms = |said: Option<u32>, usual| said.map_or(usual, |s| u64::from(s) * 1_000);
        Habits {
            patience_ms: ms(self.failover_patience_s, FAILOVER_PATIENCE_MS),
            hysteresis_ms: ms(self.failback_hysteresis_s, FAILBACK_HYSTERESIS_MS),
            pause_ms,
            needs_root,
        }
    }
}

/// The form of the table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "WayUp")]
struct Table {
    url: Option<String>,
    #[serde(default)]
    alternates: Vec<String>,
    failover_patience_s: Option<u32>,
    failback_hysteresis_s: Option<u32>,
}

impl Table {
    fn check(self) -> Result<WayUp, String> {
        let Self { url, alternates, failover_patience_s, failback_hysteresis_s } = self;
        if alternates.len() > ALTERNATES_MAX {
            return Err(format!("at most {ALTERNATES_MAX} alternates, got {}", alternates.len()));
        }
        for (key, said) in [
            ("failover_patience_s", failover_patience_s),
            ("failback_hysteresis_s", failback_hysteresis_s),
        ] {
            if let Some(s) = said.filter(|s| !(1..=WAIT_S_MAX).contains(s)) {
                return Err(format!("{key} is 1 to {WAIT_S_MAX} seconds, got {s}"));
            }
        }
        Ok(WayUp { url, alternates, failover_patience_s, failback_hysteresis_s })
    }
}

impl<'de> Deserialize<'de> for WayUp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Either)
    }
}

/// Told apart by hand, so that an error names the key that is wrong.
struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = WayUp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL, or a table with `url`")
    }

    fn visit_str<E: Error>(self, url: &str) -> Result<WayUp, E> {
        Ok(WayUp { url: Some(url.to_owned()), ..WayUp::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WayUp, A::Error> {
        Table::deserialize(MapAccessDeserializer::new(map))?.check().map_err(A::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<WayUp, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_or_a_table() {
        let way = read("\"http://a:1\"").unwrap();
        assert_eq!(way.url.as_deref(), Some("http://a:1"));
        assert_eq!(way.habits(500, true).patience_ms, FAILOVER_PATIENCE_MS);
        let way = read(r#"{"alternates": ["http://b:1"], "failback_hysteresis_s": 7}"#).unwrap();
        assert_eq!((way.url.clone(), way.alternates.len()), (None, 1));
        assert_eq!(way.habits(500, true).hysteresis_ms, 7_000);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, word) in [
            (r#"{"uri": "x"}"#, "unknown field `uri`"),
            (r#"{"failover_patience_s": 0}"#, "1 to 86400 seconds, got 0"),
            (r#"{"failback_hysteresis_s": 86401}"#, "failback_hysteresis_s"),
            (r#"{"failback_hysteresis_s": -1}"#, "-1"),
            (r#"{"alternates": ["","","","","","","","",""]}"#, "at most 8 alternates, got 9"),
            ("7", "a URL, or a table"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
    }
}
