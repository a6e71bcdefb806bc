//! The cores of a tree, and the ways between them.

use super::index;
use crate::puppet::Puppet;
use anyhow::Context;
use marram_engine_core as engine;
use marram_orchestrator_core::{Effect, Identity, Input, Now, Tier};
use marram_protocol::id::{ChildId, InstanceId, ServiceId};
use marram_protocol::v1::{Down, Resources, ServiceSpec, Telemetry, Up, Workload, WorkloadUsage};
use std::collections::VecDeque;

/// What went over a way.
#[derive(Debug, Default)]
pub(crate) struct Way {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Way {
    fn add(&mut self, bytes: usize) -> anyhow::Result<()> {
        self.messages += 1;
        self.bytes += u64::try_from(bytes)?;
        Ok(())
    }
}

/// What cores have said, written and heard.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) from_nodes: Way,
    pub(crate) from_clusters: Way,
    pub(crate) to_nodes: Way,
    pub(crate) to_clusters: Way,
    pub(crate) node_writes: u64,
    pub(crate) cluster_writes: u64,
    pub(crate) root_writes: u64,
    pub(crate) inputs: u64,
}

/// On its way; it arrives at once and in order.
enum Message {
    FromNode(u32, Up),
    ToNode(u32, Down),
    FromCluster(u32, Up),
    ToCluster(u32, Down),
}

struct Node {
    puppet: Puppet,
    linked: bool,
    cpu_permille: u16,
    memory_used_mib: u32,
}

struct Cluster {
    tier: Tier,
    linked: bool,
}

/// A root, clusters and nodes.
pub(crate) struct Tree {
    root: Tier,
    clusters: Vec<Cluster>,
    nodes: Vec<Node>,
    nodes_each: u32,
    now: Now,
    ways: VecDeque<Message>,
    pub(crate) counted: Counted,
}

/// Nothing reads the wall clock; it only has to look like one.
const UNIX_MS: u64 = 1_800_000_000_000;

impl Tree {
    /// All cores, and no connection yet.
    pub(crate) fn new(clusters: u32, nodes_each: u32) -> anyhow::Result<Self> {
        let now = Now { mono_ms: 0, unix_ms: UNIX_MS };
        let cluster = |number| Cluster {
            tier: Tier::new(identity(cluster_id(number), format!("site-{number}")), false, 2),
            linked: false,
        };
        let nodes = (0..clusters * nodes_each).map(|number| {
            let puppet = Puppet::new(number, engine_now(now))?;
            Ok(Node { puppet, linked: false, cpu_permille: 20, memory_used_mib: 300 })
        });
        Ok(Self {
            nodes: nodes.collect::<anyhow::Result<_>>()?,
            clusters: (0..clusters).map(cluster).collect(),
            root: Tier::new(identity(ChildId([255; 12]), "root".to_owned()), true, 1),
            nodes_each,
            now,
            ways: VecDeque::new(),
            counted: Counted::default(),
        })
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now.mono_ms
    }

    pub(crate) fn pass_to(&mut self, mono_ms: u64) {
        self.now = Now { mono_ms, unix_ms: UNIX_MS + mono_ms };
    }

    pub(crate) fn connect_all(&mut self) -> anyhow::Result<()> {
        for cluster in 0..u32::try_from(self.clusters.len())? {
            self.connect_cluster(cluster)?;
        }
        for node in 0..u32::try_from(self.nodes.len())? {
            self.connect(node)?;
        }
        // Summaries go up at most once a second.
        self.pass_to(self.now.mono_ms + 1_000);
        self.wake(true)
    }

    pub(crate) fn connect_cluster(&mut self, number: u32) -> anyhow::Result<()> {
        self.clusters[index(number)].linked = true;
        self.cluster(number, Input::ParentUp { preferred: None })?;
        self.deliver()
    }

    pub(crate) fn cut_cluster(&mut self, number: u32) -> anyhow::Result<()> {
        self.clusters[index(number)].linked = false;
        self.cluster(number, Input::ParentGone)?;
        self.root(Input::ChildGone(cluster_id(number), None))?;
        self.deliver()
    }

    pub(crate) fn connect(&mut self, number: u32) -> anyhow::Result<()> {
        self.nodes[index(number)].linked = true;
        self.node(number, engine::Input::LinkUp { preferred: None })?;
        self.deliver()
    }

    pub(crate) fn cut(&mut self, number: u32) -> anyhow::Result<()> {
        self.nodes[index(number)].linked = false;
        self.node(number, engine::Input::LinkDown)?;
        let id = self.nodes[index(number)].puppet.id();
        self.cluster(number / self.nodes_each, Input::ChildGone(id, None))?;
        self.deliver()
    }

    pub(crate) fn reboot(&mut self, number: u32) -> anyhow::Result<()> {
        let now = engine_now(self.now);
        self.nodes[index(number)].puppet.reboot(now)
    }

    /// The use of a node is other from now on.
    pub(crate) fn load(&mut self, number: u32, cpu_permille: u32, memory_used_mib: u32) {
        let node = &mut self.nodes[index(number)];
        node.cpu_permille = u16::try_from(cpu_permille).unwrap_or(1000);
        node.memory_used_mib = 300 + memory_used_mib;
    }

    /// What a node measures, to its engine; samples between changes would be dropped there.
    pub(crate) fn sample(&mut self, number: u32) -> anyhow::Result<()> {
        let node = &self.nodes[index(number)];
        if !node.linked {
            return Ok(());
        }
        let (cpu, memory) = (u32::from(node.cpu_permille), node.memory_used_mib);
        let usage =
            |instance| WorkloadUsage { instance, cpu_permille: cpu / 2, memory_mib: memory / 8 };
        let telemetry = Telemetry {
            incarnation: 1,
            cpu_permille: node.cpu_permille,
            memory_used_mib: memory,
            disk_free_mib: 10_000,
            temperature_decidegrees: i16::try_from(400 + cpu / 4).ok(),
            workloads: node.puppet.runs().map(usage).collect(),
            ..Telemetry::default()
        };
        self.node(number, engine::Input::Telemetry(telemetry))?;
        self.deliver()
    }

    pub(crate) fn deploy(&mut self, number: u32) -> anyhow::Result<()> {
        self.root(Input::Deploy(workload(number)))?;
        self.deliver()
    }

    pub(crate) fn remove(&mut self, number: u32) -> anyhow::Result<()> {
        self.root(Input::Remove(workload(number).instance))?;
        self.deliver()
    }

    /// Instances that nodes run now.
    pub(crate) fn running(&self) -> usize {
        self.nodes.iter().map(|node| node.puppet.runs().count()).sum()
    }

    /// Looks at all timers, those of engines only if said so.
    pub(crate) fn wake(&mut self, engines: bool) -> anyhow::Result<()> {
        let (now, mono_ms) = (engine_now(self.now), self.now.mono_ms);
        let is_due = |due: Option<u64>| due.is_some_and(|due| due <= mono_ms);
        let engines = if engines { self.nodes.len() } else { 0 };
        for number in 0..u32::try_from(engines)? {
            let node = &mut self.nodes[index(number)];
            if is_due(node.puppet.due_ms()) {
                let said = node.puppet.wake(now);
                self.said(number, said);
            }
        }
        for number in 0..u32::try_from(self.clusters.len())? {
            let tier = &mut self.clusters[index(number)].tier;
            if is_due(tier.poll_timeout()) {
                tier.handle_timeout(self.now);
                self.follow_cluster(number)?;
            }
        }
        if is_due(self.root.poll_timeout()) {
            self.root.handle_timeout(self.now);
            self.follow_root()?;
        }
        self.deliver()
    }

    fn deliver(&mut self) -> anyhow::Result<()> {
        while let Some(message) = self.ways.pop_front() {
            match message {
                Message::FromNode(number, up) => {
                    self.counted.from_nodes.add(up.encode()?.len())?;
                    let id = self.nodes[index(number)].puppet.id();
                    self.cluster(number / self.nodes_each, Input::Child(id, up))?;
                }
                Message::ToNode(number, down) if self.nodes[index(number)].linked => {
                    self.counted.to_nodes.add(down.encode()?.len())?;
                    self.node(number, engine::Input::Parent(down))?;
                }
                Message::FromCluster(number, up) if self.clusters[index(number)].linked => {
                    self.counted.from_clusters.add(up.encode()?.len())?;
                    self.root(Input::Child(cluster_id(number), up))?;
                }
                Message::ToCluster(number, down) if self.clusters[index(number)].linked => {
                    self.counted.to_clusters.add(down.encode()?.len())?;
                    self.cluster(number, Input::Parent(down))?;
                }
                // Said into a connection that is no more.
                Message::ToNode(..) | Message::FromCluster(..) | Message::ToCluster(..) => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, number: u32, input: engine::Input) -> anyhow::Result<()> {
        self.counted.inputs += 1;
        let now = engine_now(self.now);
        let said = self.nodes[index(number)].puppet.handle(now, input);
        self.said(number, said);
        Ok(())
    }

    fn said(&mut self, number: u32, said: Vec<Up>) {
        let node = &mut self.nodes[index(number)];
        self.counted.node_writes += node.puppet.take_written();
        if node.linked {
            self.ways.extend(said.into_iter().map(|up| Message::FromNode(number, up)));
        }
    }

    fn cluster(&mut self, number: u32, input: Input) -> anyhow::Result<()> {
        self.counted.inputs += 1;
        self.clusters[index(number)].tier.handle(self.now, input);
        self.follow_cluster(number)
    }

    fn follow_cluster(&mut self, number: u32) -> anyhow::Result<()> {
        let cluster = &mut self.clusters[index(number)];
        while let Some(effect) = cluster.tier.poll_effect() {
            match effect {
                Effect::ToChild(id, down) => {
                    self.ways.push_back(Message::ToNode(number_of(id)?, down));
                }
                Effect::ToParent(up) => self.ways.push_back(Message::FromCluster(number, up)),
                Effect::Persist(records) => self.counted.cluster_writes += written(&records)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn root(&mut self, input: Input) -> anyhow::Result<()> {
        self.counted.inputs += 1;
        self.root.handle(self.now, input);
        self.follow_root()
    }

    fn follow_root(&mut self) -> anyhow::Result<()> {
        while let Some(effect) = self.root.poll_effect() {
            match effect {
                Effect::ToChild(id, down) => {
                    self.ways.push_back(Message::ToCluster(number_of(id)?, down));
                }
                Effect::Persist(records) => self.counted.root_writes += written(&records)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn written(records: &[(Vec<u8>, Option<Vec<u8>>)]) -> anyhow::Result<u64> {
    let bytes =
        |(key, value): &(Vec<u8>, Option<Vec<u8>>)| key.len() + value.as_ref().map_or(0, Vec::len);
    Ok(u64::try_from(records.iter().map(bytes).sum::<usize>())?)
}

fn engine_now(now: Now) -> engine::Now {
    engine::Now { mono_ms: now.mono_ms, unix_ms: now.unix_ms }
}

fn identity(id: ChildId, name: String) -> Identity {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Identity {
        id,
        name,
        location: String::new(),
        version,
        incarnation: 1,
        labels: Vec::new(),
        address: String::new(),
        node_address: String::new(),
    }
}

fn cluster_id(number: u32) -> ChildId {
    let mut bytes = [200; 12];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ChildId(bytes)
}

/// Of a node or cluster, by its id.
fn number_of(id: ChildId) -> anyhow::Result<u32> {
    let bytes = id.0.first_chunk::<4>().context("an id is longer")?;
    Ok(u32::from_be_bytes(*bytes))
}

/// Two hundred services of fifty instances, in turn.
fn workload(number: u32) -> Workload {
    let service = number % 200;
    let mut bytes = [3; 12];
    bytes[..4].copy_from_slice(&service.to_be_bytes());
    let instance = InstanceId { service: ServiceId(bytes), number: number / 200 };
    let spec = ServiceSpec {
        virtualization: "container".to_owned(),
        image: "docker.io/library/nginx:latest".to_owned(),
        environment: vec!["MODE=production".to_owned()],
        resources: Resources {
            memory_mib: 100 + service * 4,
            cpu_millicores: 250,
            ..Resources::default()
        },
        stop_grace_s: 10,
        extra: "{}".to_owned(),
        ..ServiceSpec::default()
    };
    let name = format!("shop.prod.part-{service}.prod");
    Workload { instance, revision: 1, name, spec }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_tree_runs_what_is_deployed_and_counts_what_is_said() {
        let mut tree = Tree::new(2, 3).expect("cores start");
        tree.connect_all().expect("messages are right");
        for number in 0..4 {
            tree.deploy(number).expect("messages are right");
        }
        assert_eq!(tree.running(), 4);
        tree.cut(1).expect("messages are right");
        tree.reboot(1).expect("the ledger is right");
        tree.connect(1).expect("messages are right");
        assert_eq!(tree.running(), 4, "what a node ran it starts again by itself");
        let before = tree.counted.from_nodes.bytes;
        tree.sample(0).expect("messages are right");
        assert!(tree.counted.from_nodes.bytes > before);
        for number in 0..4 {
            tree.remove(number).expect("messages are right");
        }
        assert_eq!(tree.running(), 0);
        let counted = &tree.counted;
        assert!(counted.node_writes > 0 && counted.cluster_writes > 0 && counted.root_writes > 0);
    }
}
