//! The shape of a site: which programs it has and who is whose parent.
//!
//! ```text
//! 1x3x2     root, 3 clusters, 2 nodes each
//! 1x2x3x2   root, 2 clusters, 3 clusters below each, 2 nodes below each of those
//! ```
//!
//! Invariant: parts come after their parents, and no two have the same name.

use std::fmt;
use std::str::FromStr;

/// Programs of one site: all of them share this machine, and each has some megabytes, a state
/// directory and, on a first start, a moment of its own.
pub(crate) const PARTS_MAX: usize = 32;

/// Tiers from root to node: what the protocol allows.
const DEPTH_MAX: usize = marram_protocol::v1::DEPTH_MAX;

/// How many parts there are below each of the tier above, from the root (1) to nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape(Vec<usize>);

impl Shape {
    /// One of each.
    pub(crate) fn one() -> Self {
        Self(vec![1, 1, 1])
    }

    /// One of each?
    pub(super) fn is_one(&self) -> bool {
        *self == Self::one()
    }

    /// Columns of the longest title.
    pub(super) fn width(&self) -> usize {
        self.parts().iter().map(|part| part.title().len()).max().unwrap_or_default()
    }

    /// The programs, each behind its parent.
    pub(super) fn parts(&self) -> Vec<Part> {
        let mut all = vec![Part { tier: Tier::Root, name: Tier::Root.name().into(), parent: None }];
        let mut above = vec![(Tier::Root.name().to_owned(), String::new())];
        for (depth, factor) in self.0.iter().enumerate().skip(1) {
            let tier = if depth + 1 == self.0.len() { Tier::Node } else { Tier::Cluster };
            let mut level = Vec::new();
            for (parent, path) in &above {
                for number in 1..=*factor {
                    let path = match path.as_str() {
                        "" => number.to_string(),
                        path => format!("{path}-{number}"),
                    };
                    let name = match self.is_one() {
                        true => tier.name().to_owned(),
                        false => format!("{}-{path}", tier.name()),
                    };
                    all.push(Part { tier, name: name.clone(), parent: Some(parent.clone()) });
                    level.push((name, path));
                }
            }
            above = level;
        }
        all
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write 1xCLUSTERSxNODES, as 1x3x2, with a further number for each further \
                    tier of clusters";
        let numbers: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
        let numbers = numbers.map_err(|_| format!("{text:?} is no tree: {form}"))?;
        if !(3..=DEPTH_MAX).contains(&numbers.len()) {
            let tiers = numbers.len();
            return Err(format!("a tree has 3 to {DEPTH_MAX} tiers, got {tiers}: {form}"));
        }
        if numbers[0] != 1 || numbers.contains(&0) {
            return Err(format!("a tree has one root and no empty tier, got {text:?}: {form}"));
        }
        let mut level = 1_usize;
        let mut parts = 0_usize;
        for number in &numbers {
            level = level.saturating_mul(*number);
            parts = parts.saturating_add(level);
        }
        if parts > PARTS_MAX {
            return Err(format!(
                "{text} has {parts} programs, at most {PARTS_MAX} are started on one machine"
            ));
        }
        Ok(Self(numbers))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&numbers.join("x"))
    }
}

/// One of the three programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    /// Where clients go.
    Root,
    /// Where nodes go.
    Cluster,
    /// Where workloads run.
    Node,
}

impl Tier {
    /// As in file names.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Cluster => "cluster",
            Self::Node => "node",
        }
    }

    /// The program.
    pub(super) fn program(self) -> String {
        format!("marram-{}", self.name())
    }
}

/// A program of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Which program.
    pub(super) tier: Tier,
    /// As in file names; with more than one of a tier, also for people.
    pub(super) name: String,
    /// The name of the part above.
    pub(super) parent: Option<String>,
}

impl Part {
    /// As in what is shown.
    pub(super) fn title(&self) -> String {
        format!("marram-{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(shape: &str) -> Vec<String> {
        let shape: Shape = shape.parse().unwrap();
        assert_eq!(shape.to_string().parse::<Shape>().unwrap(), shape);
        let line = |part: Part| format!("{} < {}", part.name, part.parent.unwrap_or_default());
        shape.parts().into_iter().map(line).collect()
    }

    #[test]
    fn parts_stand_behind_their_parents() {
        assert_eq!(names("1x1x1"), ["root < ", "cluster < root", "node < cluster"]);
        assert_eq!(
            names("1x2x1x2"),
            [
                "root < ",
                "cluster-1 < root",
                "cluster-2 < root",
                "cluster-1-1 < cluster-1",
                "cluster-2-1 < cluster-2",
                "node-1-1-1 < cluster-1-1",
                "node-1-1-2 < cluster-1-1",
                "node-2-1-1 < cluster-2-1",
                "node-2-1-2 < cluster-2-1",
            ]
        );
        assert_eq!(names("1x3x2").len(), 10);
    }

    #[test]
    fn what_is_no_tree_or_too_large_is_refused() {
        for (text, word) in [
            ("", "is no tree"),
            ("1x", "is no tree"),
            ("1x-1x2", "is no tree"),
            ("1x2", "3 to 8 tiers, got 2"),
            ("1x1x1x1x1x1x1x1x1", "3 to 8 tiers, got 9"),
            ("2x1x1", "one root"),
            ("1x0x2", "no empty tier"),
            ("1x4x7", "has 33 programs, at most 32"),
            ("1x99999999999x99999999999", "at most 32"),
        ] {
            let error = text.parse::<Shape>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
