//! The node's own word on what it is told to run.
//!
//! The cluster has chosen by what it knew; the node knows better and says no with a reason,
//! so that the next candidate is tried.

use crate::BackendFacts;
use marram_protocol::NODE_INSTANCES_MAX;
use marram_protocol::reference::refers_to;
use marram_protocol::selector::Labels;
use marram_protocol::v1::{Resources, Summary, Workload};

/// The backend for a workload, or why there is none.
pub(crate) fn backend<'a>(
    workload: &Workload,
    backends: impl Iterator<Item = &'a BackendFacts>,
) -> Result<&'a str, String> {
    let spec = &workload.spec;
    let mut troubles = Vec::new();
    for facts in backends {
        let serves = |name: &str| facts.serves.iter().any(|s| s == name);
        if serves(&spec.virtualization) && spec.runtime.as_deref().is_none_or(serves) {
            return Ok(&facts.name);
        }
        if let Some(trouble) = &facts.trouble {
            troubles.push(format!("{}: {trouble}", facts.name));
        }
    }
    let wanted = spec.runtime.as_deref().unwrap_or(&spec.virtualization);
    let mut text = format!("no backend of this node serves {wanted:?}");
    if !troubles.is_empty() {
        text = format!("{text} ({})", troubles.join("; "));
    }
    Err(text)
}

/// Whether the node has room, given what others claim of it.
pub(crate) fn room<'a>(
    workload: &Workload,
    claims: impl Iterator<Item = &'a Workload>,
    host: &Summary,
) -> Result<(), String> {
    fits_here(workload, host)?;
    let mut taken = Resources::default();
    let mut count = 1;
    for other in claims {
        taken = taken.plus(other.spec.resources);
        count += 1;
        if minds(workload, other) || minds(other, workload) {
            return Err(format!("has to be apart from {}", other.name));
        }
        let clash = workload.spec.ports.iter().find(|port| {
            other.spec.ports.iter().any(|p| p.host == port.host && p.transport == port.transport)
        });
        if let Some(port) = clash {
            return Err(format!("host port {} is taken by {}", port.host, other.name));
        }
    }
    if count > NODE_INSTANCES_MAX {
        return Err(format!("{NODE_INSTANCES_MAX} instances are the most that a node takes"));
    }
    let free = host.capacity.minus(taken);
    let wanted = workload.spec.resources;
    if !wanted.fits(free) {
        return Err(format!("not enough left: {}", lacks(wanted, free)));
    }
    Ok(())
}

/// What the node is by itself, whatever runs there.
fn fits_here(workload: &Workload, host: &Summary) -> Result<(), String> {
    let placement = &workload.spec.placement;
    if !placement.labels.is_empty() {
        let labels: Labels = placement.labels.parse().map_err(|e| format!("labels: {e}"))?;
        if !labels.matches(&host.labels) {
            let here = host.labels.join(", ");
            return Err(format!("wants labels {labels}, this node has {here:?}"));
        }
    }
    if let Some(addon) = placement.addons.iter().find(|addon| !host.addons.contains(addon)) {
        return Err(format!("this node has no addon {addon:?}"));
    }
    let architectures = &workload.spec.architectures;
    if !architectures.is_empty() && !host.architectures.iter().any(|a| architectures.contains(a)) {
        let here = host.architectures.join(", ");
        return Err(format!("runs on {}, this node is {here}", architectures.join(", ")));
    }
    Ok(())
}

/// Whether one must not be beside the other, by its own word.
fn minds(one: &Workload, other: &Workload) -> bool {
    let apart_from = &one.spec.placement.apart_from;
    apart_from.iter().any(|reference| refers_to(reference, other))
}

fn lacks(wanted: Resources, free: Resources) -> String {
    let units = [
        "MiB of memory",
        "millicores",
        "GPUs",
        "MiB of disk",
        "MiB of GPU memory",
        "kbit/s towards it",
        "kbit/s from it",
    ];
    let amounts = wanted.amounts().into_iter().zip(free.amounts());
    let lacking = units.into_iter().zip(amounts).filter(|(_, (wanted, free))| wanted > free);
    let said = lacking.map(|(unit, (wanted, free))| format!("{wanted} {unit} wanted, {free} free"));
    said.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use marram_protocol::id::{InstanceId, ServiceId};
    use marram_protocol::v1::{Placement, ServiceSpec};

    fn workload(name: &str, resources: [u32; 7], placement: Placement) -> Workload {
        let resources = Resources::of_amounts(resources);
        let spec = ServiceSpec { resources, placement, ..ServiceSpec::default() };
        let instance = InstanceId { service: ServiceId([1; 12]), number: 0 };
        Workload { instance, revision: 1, name: format!("app.ns.{name}.ns.0"), spec }
    }

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_node_judges_what_it_can_by_itself() {
        let host = Summary {
            capacity: Resources::of_amounts([9; 7]),
            labels: texts(&["rack=1", "gpu"]),
            addons: texts(&["fuse"]),
            ..Summary::default()
        };
        let labels = |labels: &str| Placement { labels: labels.into(), ..Placement::default() };
        let addons = |addon| Placement { addons: texts(&[addon]), ..Placement::default() };
        let apart = |name| Placement { apart_from: texts(&[name]), ..Placement::default() };
        let there = workload("db", [5; 7], apart("app.ns.loud.ns"));
        let judged = |wanted: &Workload| room(wanted, [&there].into_iter(), &host).err();
        let of = |placement| workload("web", [1; 7], placement);
        assert_eq!(judged(&of(labels("gpu,rack!=2"))), None);
        assert_eq!(judged(&of(addons("fuse"))), None);
        assert_eq!(judged(&of(apart("app.ns.web.ns"))), None);
        let table = [
            (of(labels("rack=2")), "wants labels rack=2, this node has \"rack=1, gpu\""),
            (of(labels("a,,b")), "labels: selector \"a,,b\", character 3: a word is missing"),
            (of(addons("csi")), "this node has no addon \"csi\""),
            (of(apart("app.ns.db.ns")), "has to be apart from app.ns.db.ns.0"),
            (workload("loud", [0; 7], labels("")), "has to be apart from app.ns.db.ns.0"),
            (
                workload("web", [0, 0, 0, 0, 5, 0, 9], labels("")),
                "not enough left: 5 MiB of GPU memory wanted, 4 free, 9 kbit/s from it wanted, \
                 4 free",
            ),
        ];
        for (wanted, expected) in table {
            assert_eq!(judged(&wanted).as_deref(), Some(expected));
        }
    }
}
