//! What a site takes while nothing happens: memory, processor, traffic, writes.

use crate::gauges::{self, Gauge, Use, pss_mib, traffic};
use crate::progress;
use crate::scenes;
use crate::table::{Promise, Table};
use anyhow::Context;
use marram_e2e::{Site, Tier};
use std::time::{Duration, Instant};

/// Without workloads, only memory is looked at.
const EMPTY: Duration = Duration::from_secs(10);

/// One keep-alive and one heartbeat of telemetry fall in this time, so that traffic is what it
/// is all day.
const WINDOW: Duration = Duration::from_secs(60);

const EXAMPLE: &str = include_str!("../../../examples/clientsrvr.json");

const PROCESSOR: &str = "cluster and root, the same: processor";

pub(crate) fn measure(table: &mut Table, site: &Site) -> anyhow::Result<()> {
    let api = site.api()?;
    progress("idle without workloads");
    scenes::settle(site)?;
    std::thread::sleep(EMPTY);
    table.noted("memory without workloads: node / cluster / root", memory(site)?);

    progress("idle with one container");
    scenes::deploy(&api, &[scenes::container("idle", ["sleep", "4800"])])?;
    scenes::settle(site)?;
    let seen = window(site)?;
    one_container(table, site, &seen)?;
    scenes::remove_all(&api)?;

    progress("idle with the example's two containers");
    scenes::deploy_document(&api, &serde_json::from_str(EXAMPLE)?)?;
    scenes::settle(site)?;
    table.noted("memory with the example's two containers: node / cluster / root", memory(site)?);
    table.noted("memory of a container's shim, with two of them", shims(site)?);
    scenes::remove_all(&api)?;
    Ok(())
}

fn memory(site: &Site) -> anyhow::Result<String> {
    let [node, cluster, root] = gauges::pids(site)?;
    let (node, cluster, root) = (pss_mib(node)?, pss_mib(cluster)?, pss_mib(root)?);
    Ok(format!("{node:.2} / {cluster:.2} / {root:.2} MiB"))
}

/// The mean over all shims that run now, which share their code.
pub(crate) fn shims(site: &Site) -> anyhow::Result<String> {
    let pids = gauges::shims(site)?;
    if pids.is_empty() {
        return Ok("none runs".to_owned());
    }
    let all: Vec<f64> = pids.iter().map(|pid| pss_mib(*pid)).collect::<Result<_, _>>()?;
    let count = u32::try_from(all.len())?;
    Ok(format!("{:.2} MiB each", all.iter().sum::<f64>() / f64::from(count)))
}

/// What was seen in a window: node, cluster, root.
struct Seen {
    used: [Use; 3],
    mqtt: Rate,
    tunnel: Rate,
}

/// Bytes a second, both ways together.
struct Rate {
    payload: f64,
    wire: f64,
}

fn window(site: &Site) -> anyhow::Result<Seen> {
    let pids = gauges::pids(site)?;
    let mqtt = || traffic(pids[0], gauges::port(site, "cluster", "mqtt_listen")?);
    let tunnel = || traffic(pids[1], gauges::port(site, "root", "tunnel_listen")?);
    let began = Instant::now();
    let (mqtt_before, tunnel_before) = (mqtt()?, tunnel()?);
    let gauges: Vec<Gauge> = pids.into_iter().map(Gauge::start).collect::<Result<_, _>>()?;
    std::thread::sleep(WINDOW);
    let used: Vec<Use> = gauges.into_iter().map(Gauge::end).collect::<Result<_, _>>()?;
    let seconds = began.elapsed().as_secs_f64();
    let rate = |before: gauges::Traffic, after: gauges::Traffic| Rate {
        payload: (after.payload_bytes - before.payload_bytes) / seconds,
        wire: (after.wire_bytes - before.wire_bytes) / seconds,
    };
    let (mqtt, tunnel) = (rate(mqtt_before, mqtt()?), rate(tunnel_before, tunnel()?));
    let used = used.try_into().ok().context("three programs")?;
    Ok(Seen { used, mqtt, tunnel })
}

fn one_container(table: &mut Table, site: &Site, seen: &Seen) -> anyhow::Result<()> {
    let Seen { used: [node, cluster, root], mqtt, tunnel } = seen;
    let memory = pss_mib(site.pid(Tier::Node)?)?;
    table.promised(
        Promise {
            what: "node, idle, connected, one container running: memory",
            budget: "≤ 4 MiB",
            known: "Ankaios agent 5.56 MiB; Greengrass lite 14.8 MB; Oakestra 255 MB",
        },
        &[(memory, 4.0)],
        format!("{memory:.2} MiB"),
    );
    let processor = node.processor_percent;
    table.promised(
        Promise { what: "node, the same: processor", budget: "≤ 0.1 % of one core", known: "" },
        &[(processor, 0.1)],
        format!("{processor:.3} %"),
    );
    table.promised(
        Promise {
            what: "traffic of one idle node, both ways",
            budget: "≤ 100 bytes/s",
            known: "KubeEdge 0.25 kbit/s",
        },
        &[(mqtt.payload, 100.0)],
        format!("{:.1} bytes/s, {:.1} with the headers of TCP and IP", mqtt.payload, mqtt.wire),
    );
    table.promised(
        Promise {
            what: "written to flash in an idle day: node",
            budget: "0",
            known: "K3s 6 to 11 kB/s",
        },
        &[(node.written_mib_per_day, 0.0)],
        format!("{:.1} MiB", node.written_mib_per_day),
    );
    let (of_cluster, of_root) = (cluster.written_mib_per_day, root.written_mib_per_day);
    table.promised(
        Promise {
            what: "written to flash in an idle day: cluster, root",
            budget: "≤ 1 MiB",
            known: "",
        },
        &[(of_cluster, 1.0), (of_root, 1.0)],
        format!("{of_cluster:.1} / {of_root:.1} MiB"),
    );
    let (of_cluster, of_root) = (cluster.processor_percent, root.processor_percent);
    table.noted(PROCESSOR, format!("{of_cluster:.3} / {of_root:.3} % of one core"));
    table.noted(
        "traffic of a cluster's tunnel with one idle node, both ways",
        format!("{:.1} bytes/s, {:.1} with headers", tunnel.payload, tunnel.wire),
    );
    table.noted("memory of a container's shim, with one of them", shims(site)?);
    Ok(())
}
