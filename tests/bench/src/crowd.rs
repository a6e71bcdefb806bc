//! Orchestrators with many children: real clusters under a root, and under one cluster a
//! thousand nodes that say all that a node says and run nothing.

use crate::events::Watch;
use crate::gauges::{Gauge, port, pss_mib};
use crate::mqtt::{Crowd, HEARTBEAT};
use crate::progress;
use crate::scenes;
use crate::table::{Promise, Table};
use anyhow::{Context, bail, ensure};
use marram_e2e::{Api, Site, Tier, programs, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Clusters under the root, and nodes under a cluster, that the budgets speak of.
const CLUSTERS: usize = 10;
const NODES: u32 = 10;

/// As many nodes as a large site has, and instances on them.
const MANY_NODES: u32 = 1_000;
const INSTANCES: usize = 5_000;

/// Every node is heard of once in this time.
const WINDOW: Duration = HEARTBEAT;

/// Until what an arrival takes for a moment is given back.
const CALM: Duration = Duration::from_secs(4);

pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let site = Site::start("[containerd]\nenabled = false\n")?;
    let api = site.api()?;
    let crowd = Crowd::new(port(&site, "cluster", "mqtt_listen")?);
    progress("ten nodes");
    // The site has a real node too.
    crowd.add(1, NODES)?;
    nodes(&api, NODES)?;
    scenes::settle(&site)?;
    let cluster = site.pid(Tier::Cluster)?;
    let with_ten = ten_nodes(table, cluster)?;

    progress("ten clusters");
    ten_clusters(table, &site, &api)?;
    thousand_nodes(table, &site, &api, &crowd, with_ten)?;
    five_thousand_instances(table, &site, &api)?;
    crowd.end()
}

fn thousand_nodes(
    table: &mut Table,
    site: &Site,
    api: &Api,
    crowd: &Crowd,
    with_ten: f64,
) -> anyhow::Result<()> {
    progress("a thousand nodes");
    let cluster = site.pid(Tier::Cluster)?;
    let began = Instant::now();
    crowd.add(NODES, MANY_NODES)?;
    nodes(api, MANY_NODES)?;
    let came = began.elapsed();
    std::thread::sleep(CALM);
    let gauge = Gauge::start(cluster)?;
    std::thread::sleep(WINDOW);
    let processor = gauge.end()?.processor_percent;
    let memory = pss_mib(cluster)?;
    let each_kib = (memory - with_ten) * 1024.0 / f64::from(MANY_NODES - NODES);
    nodes(api, MANY_NODES)?;
    table.promised(
        Promise {
            what: "each further idle node in a cluster, connection included",
            budget: "≤ 32 KiB",
            known: "rumqttd alone 50 to 75 KiB a client",
        },
        &[(each_kib, 32.0)],
        format!("{each_kib:.1} KiB ({} nodes, no encryption yet)", MANY_NODES - NODES),
    );
    table.noted(
        "cluster with embedded broker, 1 000 nodes idle: memory, processor",
        format!("{memory:.1} MiB, {processor:.2} % of one core"),
    );
    let came = came.as_secs_f64();
    table.noted("1 000 nodes arrive at once, until the root knows of all", format!("{came:.1} s"));
    Ok(())
}

/// One service of thousands of instances, on nodes whose backend does at once what it is told.
fn five_thousand_instances(table: &mut Table, site: &Site, api: &Api) -> anyhow::Result<()> {
    progress("five thousand instances");
    let cluster = site.pid(Tier::Cluster)?;
    let watch = Watch::start(api)?;
    let gauge = Gauge::start(cluster)?;
    let began = Instant::now();
    api.apply(&many(INSTANCES))?;
    let taken = began.elapsed();
    let (placed, running) = all_seen(&watch)?;
    let used = gauge.end()?;
    let (memory, of_root) = (pss_mib(cluster)?, pss_mib(site.pid(Tier::Root)?)?);
    table.noted(
        "5 000 instances on 1 000 nodes, one request: taken / placed / running at the root",
        format!(
            "{:.2} / {:.2} / {:.2} s",
            taken.as_secs_f64(),
            placed.duration_since(began).as_secs_f64(),
            running.duration_since(began).as_secs_f64()
        ),
    );
    table.noted(
        "the cluster meanwhile: processor; memory with all of them: cluster / root",
        format!("{:.0} % of one core; {memory:.1} / {of_root:.1} MiB", used.processor_percent),
    );
    let began = Instant::now();
    let application = api.items("applications").into_iter().next().context("no application")?;
    let id = application["application_id"].as_str().context("no id")?;
    ensure!(api.delete(&format!("/api/v1/applications/{id}"))? == 202, "removing {id}");
    for _ in 0..INSTANCES {
        watch.until("removals", |event| event.kind == "removed")?;
    }
    let gone = began.elapsed().as_secs_f64();
    table.noted("the same removed, until the root knows of none", format!("{gone:.2} s"));
    Ok(())
}

/// Waits until all instances were seen on a node, and running; tells when the last was.
fn all_seen(watch: &Watch) -> anyhow::Result<(Instant, Instant)> {
    let (mut placed, mut running) = (BTreeSet::new(), BTreeSet::new());
    let mut placed_at = None;
    loop {
        let event = watch.until("instances", |event| event.kind == "instance")?;
        let Some(id) = event.value["instance_id"].as_str() else { bail!("an event of nothing") };
        let state = event.value["state"].as_str().unwrap_or_default();
        if !matches!(state, "requested" | "cluster_scheduled") && placed.insert(id.to_owned()) {
            placed_at = (placed.len() == INSTANCES).then_some(event.at).or(placed_at);
        }
        if state == "running" && running.insert(id.to_owned()) && running.len() == INSTANCES {
            return Ok((placed_at.unwrap_or(event.at), event.at));
        }
    }
}

/// Of which six fit a node.
fn many(replicas: usize) -> Value {
    json!({
        "sla_version": "v2.0", "customerID": "Admin",
        "applications": [{
            "applicationID": "", "application_name": "many", "application_namespace": "bench",
            "application_desc": "", "microservices": [{
                "microserviceID": "", "microservice_name": "many",
                "microservice_namespace": "bench", "virtualization": "container",
                "code": scenes::IMAGE, "memory": 600, "vcpus": 0, "arch": ["arm64"],
                "marram": {"replicas": replicas}
            }]
        }]
    })
}

/// The first cluster must be alone: several processes of one program share its code, and each
/// would count a part of it only. Returns its memory.
fn ten_nodes(table: &mut Table, cluster: u32) -> anyhow::Result<f64> {
    std::thread::sleep(CALM);
    let gauge = Gauge::start(cluster)?;
    std::thread::sleep(WINDOW);
    let processor = gauge.end()?.processor_percent;
    let memory = pss_mib(cluster)?;
    table.promised(
        Promise {
            what: "cluster with embedded broker, 10 nodes idle: memory",
            budget: "≤ 8 MiB",
            known: "Oakestra's stack about 0.5 GB in 12 processes",
        },
        &[(memory, 8.0)],
        format!("{memory:.2} MiB"),
    );
    table.promised(
        Promise {
            what: "cluster, the same: processor", budget: "≤ 0.2 % of one core", known: ""
        },
        &[(processor, 0.2)],
        format!("{processor:.3} %"),
    );
    Ok(memory)
}

fn ten_clusters(table: &mut Table, site: &Site, api: &Api) -> anyhow::Result<()> {
    let _clusters: Vec<Cluster> =
        (1..CLUSTERS).map(|number| Cluster::start(site, number)).collect::<Result<_, _>>()?;
    let connected = || {
        let clusters = api.items("clusters");
        clusters.iter().filter(|cluster| cluster["connected"] == true).count() == CLUSTERS
    };
    wait_for("all clusters at the root", || connected().then_some(()))?;
    std::thread::sleep(CALM);
    let root = site.pid(Tier::Root)?;
    let gauge = Gauge::start(root)?;
    std::thread::sleep(WINDOW);
    let processor = gauge.end()?.processor_percent;
    let memory = pss_mib(root)?;
    table.promised(
        Promise {
            what: "root, 10 clusters idle, REST serving: memory",
            budget: "≤ 8 MiB",
            known: "Ankaios server 5.38 MiB; Oakestra 619 MB",
        },
        &[(memory, 8.0)],
        format!("{memory:.2} MiB"),
    );
    table.noted("root, the same: processor", format!("{processor:.3} % of one core"));
    Ok(())
}

/// Waits until the root knows of so many nodes in all.
fn nodes(api: &Api, count: u32) -> anyhow::Result<()> {
    let sum = || -> u64 { api.items("clusters").iter().filter_map(|c| c["nodes"].as_u64()).sum() };
    scenes::calmly("all nodes at the root", || (sum() == u64::from(count)).then_some(()))
}

/// A further cluster of the site's root; ends with this value.
struct Cluster(Child);

impl Cluster {
    fn start(site: &Site, number: usize) -> anyhow::Result<Self> {
        let folder = site.folder().join(format!("further-{number}"));
        fs::create_dir(&folder)?;
        let config = folder.join("cluster.toml");
        let text = format!(
            "name = \"further-{number}\"\nparent = \"http://127.0.0.1:{}\"\n\
             mqtt_listen = \"127.0.0.1:0\"\nstate_dir = \"{}\"\n",
            port(site, "root", "tunnel_listen")?,
            folder.display()
        );
        fs::write(&config, text)?;
        let child = Command::new(programs()?.join("marram-cluster"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(File::create(folder.join("log"))?)
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Ended already is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
