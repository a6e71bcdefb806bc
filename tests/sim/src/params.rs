//! What a world is like, as words on a command line.

use std::fmt;

/// Size of a world and how bad its days are. With the seed it says all there is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Clusters in all.
    pub clusters: u32,
    /// Most clusters on the way from the root to a node.
    pub depth: u32,
    /// Nodes in all; each cluster that can has one.
    pub nodes: u32,
    /// Things that are done to the world in the first phase, by operators and by bad luck.
    pub fates: u32,
    /// Of a hundred fates, so many are faults. With 0 nothing ever goes wrong.
    pub faults: u32,
    /// Instances that operators want at most; 0 is one for each node.
    pub instances: u32,
    /// Nodes send telemetry.
    pub telemetry: u32,
    /// Machines may come up as a copy of another.
    pub clones: u32,
    /// Children take other parents by the rules of `marram_protocol::parents`.
    pub failover: u32,
    /// Operators cordon, drain and so on.
    pub operations: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            clusters: 2,
            depth: 1,
            nodes: 6,
            fates: 60,
            faults: 50,
            instances: 0,
            telemetry: 0,
            clones: 0,
            failover: 0,
            operations: 1,
        }
    }
}

impl Params {
    /// Reads `name=number` words; what is not named is as usual.
    ///
    /// # Errors
    /// A word that is none of these.
    pub fn read<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut params = Self::default();
        for word in words {
            let names: Vec<&str> = params.fields().iter().map(|(name, _)| *name).collect();
            let read = word.split_once('=').and_then(|(name, number)| {
                let (_, field) = params.fields().into_iter().find(|(known, _)| *known == name)?;
                *field = number.parse().ok()?;
                Some(())
            });
            read.ok_or_else(|| format!("{word:?} is none of {}", names.join("=N, ") + "=N"))?;
        }
        if params.clusters == 0 || params.depth == 0 || params.nodes == 0 {
            return Err("a world has at least one cluster, one tier of them, and one node".into());
        }
        Ok(params)
    }

    fn fields(&mut self) -> [(&'static str, &mut u32); 10] {
        let Self { clusters, depth, nodes, fates, faults, .. } = self;
        let Self { instances, telemetry, clones, failover, operations, .. } = self;
        [
            ("clusters", clusters),
            ("depth", depth),
            ("nodes", nodes),
            ("fates", fates),
            ("faults", faults),
            ("instances", instances),
            ("telemetry", telemetry),
            ("clones", clones),
            ("failover", failover),
            ("operations", operations),
        ]
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut own, mut usual) = (*self, Self::default());
        let mut words = Vec::new();
        for ((name, number), (_, known)) in own.fields().into_iter().zip(usual.fields()) {
            if number != known {
                words.push(format!("{name}={number}"));
            }
        }
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        let params = Params { nodes: 9, clones: 1, ..Params::default() };
        assert_eq!(params.to_string(), "nodes=9 clones=1");
        assert_eq!(Params::read(["nodes=9", "clones=1"]), Ok(params));
        assert!(Params::read(["nodes=x"]).is_err());
        assert!(Params::read(["clusters=0"]).is_err());
    }
}
