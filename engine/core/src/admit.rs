//! The node's own word on what it is told to run.
//!
//! The cluster has chosen by what it knew; the node knows better and says no with a reason,
//! so that the next candidate is tried.

use crate::BackendFacts;
use marram_protocol::NODE_INSTANCES_MAX;
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
    let mut taken = Resources::default();
    let mut count = 1;
    for other in claims {
        taken = taken.plus(other.spec.resources);
        count += 1;
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
    let architectures = &workload.spec.architectures;
    if !architectures.is_empty() && !host.architectures.iter().any(|a| architectures.contains(a)) {
        let here = host.architectures.join(", ");
        return Err(format!("runs on {}, this node is {here}", architectures.join(", ")));
    }
    Ok(())
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
