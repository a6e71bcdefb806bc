//! The words of the stories, and the words for what a tier does.
//!
//! Instances are numbers, children are letters. The parent's side (its desired state and
//! generation) is kept here so that a story only names what changes.

mod show;

use marram_orchestrator_core::{Effect, Foreign, Identity, Input, Now, Tier};
use marram_protocol::id::{ChildId, InstanceId, ServiceId};
use marram_protocol::port::{PortMapping, Transport};
use marram_protocol::state::InstanceState;
use marram_protocol::v1::{
    Ancestor, ChildKind, Claim, Down, Generation, Hello, InstanceStatus, Kin, ManifestEntry,
    MovePolicy, NodeRef, OperationEnd, OperationId, Resources, Scope, ServiceSpec, Summary,
    Telemetry, Up, Verb, Workload, WorkloadUsage,
};
use std::collections::BTreeMap;

/// Of the tier that the story is about.
const EPOCH: u64 = 7;

/// Of its parent.
const PARENT_EPOCH: u64 = 5;

/// A story as far as it has been told.
#[derive(Default)]
pub(crate) struct Script {
    tier: Option<Tier>,
    is_root: bool,
    mono_ms: u64,
    disk: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What the parent desires.
    number: u64,
    desired: BTreeMap<u32, Workload>,
}

impl Script {
    /// Does what a line says; the effects in words.
    pub(crate) fn run(&mut self, line: &str) -> Vec<String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let input = match word {
            "root" | "cluster" => {
                self.is_root = word == "root";
                self.disk.clear();
                return self.restore();
            }
            "restart" => return self.restore(),
            "wait" => return self.wait(rest.parse().unwrap()),
            "missed" => {
                self.edit(&words);
                return Vec::new();
            }
            "up" => return self.up(&words),
            "books" => return self.books(),
            "foreign" => return self.foreign(),
            "deploy" => Input::Deploy(workload(words[0].parse().unwrap(), &words[1..])),
            "remove" => Input::Remove(instance(words[0])),
            "parent-up" => Input::ParentUp { preferred: None },
            "parent-gone" => Input::ParentGone,
            "welcome" => Input::Parent(Down::Welcome { epoch: PARENT_EPOCH, unix_ms: 0 }),
            "kin" => Input::Parent(kin(&words)),
            "disown" => {
                Input::Parent(Down::Disown(words.iter().map(|word| instance(word)).collect()))
            }
            "adopt" => Input::Adopt(child(words[0])),
            "change" => Input::Parent(self.change(&words)),
            "manifest" => Input::Parent(self.manifest()),
            "specs" => Input::Parent(self.specs(&words)),
            "gone" => Input::ChildGone(child(words[0]), None),
            "apply" => {
                let (upserts, removes) = self.edit(&words);
                let upserts = upserts.iter().map(|number| self.desired[number].clone()).collect();
                let removes = removes.iter().map(|n| instance(&n.to_string())).collect();
                Input::Apply { upserts, removes }
            }
            "operate" => {
                let (cluster, of, verb) = operation(&words);
                Input::Operate { operation: OperationId(1), cluster, child: of, verb }
            }
            "parent-operate" => {
                let (cluster, of, verb) = operation(&words);
                Input::Parent(Down::Operate { operation: OperationId(1), cluster, child: of, verb })
            }
            other => Input::Child(child(words[0]), up(other, words[0], &words[1..])),
        };
        self.give(input)
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.mono_ms, unix_ms: 1_800_000_000_000 + self.mono_ms }
    }

    fn tier(&mut self) -> &mut Tier {
        self.tier.as_mut().expect("the story begins with root or cluster")
    }

    fn give(&mut self, input: Input) -> Vec<String> {
        let now = self.now();
        self.tier().handle(now, input);
        self.drain()
    }

    fn restore(&mut self) -> Vec<String> {
        let identity = Identity {
            id: ChildId([b'T'; 12]),
            name: "tier".into(),
            location: String::new(),
            version: "0".into(),
            incarnation: 1,
            labels: Vec::new(),
            address: String::new(),
            node_address: String::new(),
        };
        let records = self.disk.clone();
        let tier = Tier::restore(identity, self.is_root, EPOCH, records, self.now());
        self.tier = Some(tier.unwrap());
        self.drain()
    }

    fn drain(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(effect) = self.tier().poll_effect() {
            lines.push(show::effect(&effect));
            let Effect::Persist(records) = effect else { continue };
            for (key, value) in records {
                match value {
                    Some(value) => drop(self.disk.insert(key, value)),
                    None => drop(self.disk.remove(&key)),
                }
            }
        }
        lines
    }

    /// Lets time pass, and says when something was due.
    fn wait(&mut self, ms: u64) -> Vec<String> {
        let end_ms = self.mono_ms + ms;
        let mut lines = Vec::new();
        // Now and then it only looks at the clock.
        let mut quiet_ms = 0;
        while let Some(due_ms) = self.tier().poll_timeout().filter(|due| *due <= end_ms) {
            let waited_ms = due_ms.saturating_sub(self.mono_ms);
            self.mono_ms = self.mono_ms.max(due_ms);
            let now = self.now();
            self.tier().handle_timeout(now);
            quiet_ms += waited_ms;
            let effects = self.drain();
            if !effects.is_empty() {
                lines.push(format!("after {quiet_ms} ms"));
                lines.extend(effects);
                quiet_ms = 0;
            }
            let next = self.tier().poll_timeout();
            assert!(next.is_none_or(|next| next > self.mono_ms), "it spins");
        }
        self.mono_ms = end_ms;
        lines
    }

    /// A child comes, holding what it was told, and tells how its instances are.
    fn up(&mut self, words: &[&str]) -> Vec<String> {
        let told = words.iter().filter(|word| word.contains(':'));
        let told: Vec<&str> = told.copied().collect();
        let rest: Vec<&str> = words.iter().filter(|word| !word.contains(':')).copied().collect();
        let mut lines = self.run(&format!("hello {}", rest.join(" ")));
        let holding = words.iter().find(|word| word.starts_with("holding=")).unwrap_or(&"");
        lines.extend(self.run(&format!("snapshot {} {holding} {}", words[0], told.join(" "))));
        lines
    }

    /// Children of other trees.
    fn foreign(&mut self) -> Vec<String> {
        let line = |f: Foreign| {
            let released = if f.released { ", to be taken" } else { "" };
            format!("{} of tree {:x}{released}", f.name, f.tree)
        };
        self.tier().foreign().map(line).collect()
    }

    /// What the tier believes.
    fn books(&mut self) -> Vec<String> {
        let tier = self.tier();
        let mut lines = Vec::new();
        for child in tier.children().values() {
            let memory = child.reserved().memory_mib;
            let count = child.instances();
            lines.push(format!("{} holds {memory} MiB for {count} instances", child.name()));
        }
        for id in tier.instances().keys() {
            lines.push(show::status(&tier.status(*id).unwrap()));
        }
        lines
    }

    /// Changes the parent's desired state by words such as `+1 memory=50 +2 -3`.
    fn edit(&mut self, words: &[&str]) -> (Vec<u32>, Vec<u32>) {
        let (mut upserts, mut removes) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < words.len() {
            let end = words[at + 1..].iter().position(|w| w.starts_with(['+', '-']));
            let end = end.map_or(words.len(), |more| at + 1 + more);
            let (sign, number) = words[at].split_at(1);
            let number = number.parse().unwrap();
            match sign {
                "+" => {
                    self.desired.insert(number, workload(number, &words[at + 1..end]));
                    upserts.push(number);
                }
                _ => {
                    self.desired.remove(&number);
                    removes.push(number);
                }
            }
            at = end;
        }
        self.number += 1;
        (upserts, removes)
    }

    fn generation(&self) -> Generation {
        Generation { epoch: PARENT_EPOCH, number: self.number }
    }

    fn change(&mut self, words: &[&str]) -> Down {
        let base = match self.number {
            0 => Generation::default(),
            _ => self.generation(),
        };
        let (upserts, removes) = self.edit(words);
        let upserts = upserts.iter().map(|number| self.desired[number].clone()).collect();
        let removes = removes.into_iter().map(|number| instance(&number.to_string())).collect();
        Down::Change { base, generation: self.generation(), upserts, removes }
    }

    fn manifest(&self) -> Down {
        let entry = |w: &Workload| ManifestEntry { instance: w.instance, digest: w.digest() };
        let entries = self.desired.values().map(entry).collect();
        Down::Manifest { generation: self.generation(), entries }
    }

    fn specs(&self, words: &[&str]) -> Down {
        let numbers = words.iter().map(|word| word.parse::<u32>().unwrap());
        let workloads = numbers.map(|number| self.desired[&number].clone()).collect();
        Down::Specs { generation: self.generation(), workloads }
    }
}

fn instance(number: &str) -> InstanceId {
    InstanceId { service: ServiceId([9; 12]), number: number.parse().unwrap() }
}

/// `CLUSTER[/CHILD] VERB`; the tier of the story is `T`.
fn operation(words: &[&str]) -> (ChildId, Option<String>, Verb) {
    let (cluster, of) = words[0].split_once('/').unwrap_or((words[0], ""));
    let verb = match words[1] {
        "cordon" => Verb::Cordon,
        "uncordon" => Verb::Uncordon,
        "drain" => Verb::Drain,
        "forget" => Verb::Forget,
        "rebalance" => Verb::Rebalance,
        other => panic!("no such verb: {other}"),
    };
    (child(cluster), (!of.is_empty()).then(|| of.to_owned()), verb)
}

fn seconds(value: &str) -> Option<u32> {
    (value != "never").then(|| value.parse().unwrap())
}

fn child(letter: &str) -> ChildId {
    ChildId([letter.as_bytes()[0]; 12])
}

fn workload(number: u32, words: &[&str]) -> Workload {
    let mut spec = ServiceSpec {
        virtualization: "container".into(),
        resources: Resources { memory_mib: 100, ..Resources::default() },
        ..ServiceSpec::default()
    };
    let mut revision = 1;
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("revision", value) => revision = value.parse().unwrap(),
            ("memory", value) => spec.resources.memory_mib = value.parse().unwrap(),
            ("port", value) => {
                let host = value.parse().unwrap();
                spec.ports = vec![PortMapping { host, workload: 80, transport: Transport::Tcp }];
            }
            ("architecture", value) => spec.architectures = vec![value.into()],
            ("runtime", value) => spec.runtime = Some(value.into()),
            ("patience", value) => {
                spec.patience.node_s = seconds(value);
                spec.patience.cluster_s = seconds(value);
            }
            ("parent", value) => spec.patience.parent_s = seconds(value),
            ("move", value) => {
                spec.movement = match value {
                    "stop-first" => MovePolicy::StopFirst,
                    "never" => MovePolicy::Never,
                    other => panic!("no such policy: {other}"),
                }
            }
            ("node", value) => spec.placement.nodes = vec![value.into()],
            ("unsupported", value) => spec.placement.unsupported = vec![value.into()],
            other => panic!("no such property: {other:?}"),
        }
    }
    let name = format!("app.ns.service{number}.ns");
    Workload { instance: instance(&number.to_string()), revision, name, spec }
}

/// What the parent tells of the tree, by words such as `kin R G` (the ids above), `unrooted`.
fn kin(words: &[&str]) -> Down {
    let above = words.iter().filter(|word| word.len() == 1);
    let tier = |letter: &&str| Ancestor {
        id: child(letter),
        name: format!("tier-{letter}"),
        address: format!("http://{letter}"),
        node_address: format!("mqtt://{letter}"),
        ..Ancestor::default()
    };
    Down::Kin(Kin {
        tree: PARENT_EPOCH,
        rooted: !words.contains(&"unrooted"),
        path: above.map(tier).collect(),
        ..Kin::default()
    })
}

/// What a child says, by words such as `hello a memory=500 holding=3`.
fn up(word: &str, letter: &str, words: &[&str]) -> Up {
    let mut said: BTreeMap<&str, &str> = BTreeMap::new();
    for word in words {
        said.extend(word.split_once('='));
    }
    let number = |name| said.get(name).map(|number: &&str| number.parse().unwrap());
    let held = number("holding").map_or(Generation::default(), |held| Generation {
        epoch: number("epoch").unwrap_or(EPOCH),
        number: held,
    });
    let statuses = || words.iter().filter(|word| word.contains(':')).map(|word| status(word));
    match word {
        "hello" => Up::Hello(Hello {
            child: child(letter),
            kind: match words.contains(&"cluster") {
                true => ChildKind::Cluster,
                false => ChildKind::Node,
            },
            name: said.get("name").unwrap_or(&format!("child-{letter}").as_str()).to_string(),
            version: "0".into(),
            incarnation: number("incarnation").unwrap_or(1),
            generation: held,
            summary: summary(&said),
            facts: Vec::new(),
            tree: number("tree").unwrap_or(0),
            preferred: said.get("prefers").map(|letter| child(letter)),
            address: said.get("at").map(|at| format!("http://{at}")).unwrap_or_default(),
            node_address: said.get("at").map(|at| format!("mqtt://{at}")).unwrap_or_default(),
            labels: Vec::new(),
        }),
        "claim" => Up::Claim(statuses().map(|status| claim(&status)).collect()),
        "summary" => Up::Summary(summary(&said)),
        "presence-lost" => {
            let incarnation = number("incarnation").unwrap_or(1);
            Up::Presence { online: false, incarnation }
        }
        "observed" => {
            Up::Observed { generation: held, scope: Scope::Change, statuses: statuses().collect() }
        }
        "snapshot" => Up::Observed {
            generation: held,
            scope: Scope::Snapshot { first: true, last: true },
            statuses: statuses().collect(),
        },
        "resync" => Up::Resync(held),
        "operated" => {
            let operation = OperationId((1 << 16) + number("operation").unwrap());
            Up::Operated { operation, end: OperationEnd::Done }
        }
        "fetch" => {
            let instances = words.iter().filter(|word| !word.contains('='));
            Up::Fetch {
                generation: held,
                instances: instances.map(|word| instance(word)).collect(),
            }
        }
        "telemetry" => Up::Telemetry(telemetry(&said)),
        other => panic!("no such word: {other}"),
    }
}

fn telemetry(said: &BTreeMap<&str, &str>) -> Telemetry {
    let usage = |(id, memory): (&&str, &&str)| WorkloadUsage {
        instance: instance(id),
        cpu_permille: 0,
        memory_mib: memory.parse().unwrap(),
    };
    let workloads = said.iter().filter(|(id, _)| id.parse::<u32>().is_ok()).map(usage);
    let cpu_permille = said["cpu"].parse().unwrap();
    Telemetry { cpu_permille, workloads: workloads.collect(), ..Telemetry::default() }
}

fn summary(said: &BTreeMap<&str, &str>) -> Summary {
    let memory_mib = said.get("memory").unwrap_or(&"1000").parse().unwrap();
    let capacity =
        Resources { memory_mib, cpu_millicores: 4000, storage_mib: 9000, ..Resources::default() };
    let slot = said.get("slot").map_or(memory_mib, |slot| slot.parse().unwrap());
    let words = |name: &str, usual: &str| {
        said.get(name).unwrap_or(&usual).split(',').map(str::to_owned).collect()
    };
    Summary {
        nodes: 1,
        capacity,
        largest_free: Resources { memory_mib: slot, ..capacity },
        architectures: words("architectures", "amd64"),
        virtualizations: words("serves", "container"),
        ..Summary::default()
    }
}

/// A copy that a child of the child has.
fn claim(status: &InstanceStatus) -> Claim {
    let InstanceStatus { instance, revision, state, .. } = *status;
    Claim { instance, revision, node: status.node.as_ref().map(|node| node.id), state }
}

/// `NUMBER:STATE[@NODE][:REVISION[:REASON]]`
fn status(word: &str) -> InstanceStatus {
    let parts: Vec<&str> = word.split(':').collect();
    let (state, node) = parts[1].split_once('@').unwrap_or((parts[1], ""));
    let state = InstanceState::ALL.into_iter().find(|known| known.name() == state);
    let mut status = InstanceStatus::bare(instance(parts[0]), state.expect("a state"), 0);
    status.revision = parts.get(2).map_or(1, |revision| revision.parse().unwrap());
    status.node = (!node.is_empty()).then(|| NodeRef {
        id: child(node),
        name: format!("node-{node}"),
        address: String::new(),
    });
    status.detail = parts.get(3).unwrap_or(&"").replace('_', " ");
    status
}
