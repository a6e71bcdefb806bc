//! Who answers what is asked of this cluster: itself, a child, or both.

use crate::relay::{Asker, Source};
use marram_orchestrator_core::Tier;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::v1::{StreamEnd, StreamFault, StreamRequest};
use marram_rest::lines;

/// Where the output of a stream comes from, or why there is none.
pub(crate) fn source(
    tier: &Tier,
    asker: Asker,
    request: StreamRequest,
) -> Result<Source, StreamEnd> {
    match request {
        StreamRequest::Children => Ok(Source::Own(lines::children(tier))),
        StreamRequest::ChildrenOf { cluster } if cluster == tier.identity().id => {
            Ok(Source::Own(lines::children(tier)))
        }
        StreamRequest::ChildrenOf { cluster } => {
            toward(tier, cluster).map(|child| Source::Child(child, request))
        }
        StreamRequest::Logs { instance, .. } | StreamRequest::Exec { instance, .. } => {
            holder(tier, instance).map(|child| Source::Child(child, request))
        }
        StreamRequest::Explain { instance } => explain(tier, asker, instance),
    }
}

fn explain(tier: &Tier, asker: Asker, instance: InstanceId) -> Result<Source, StreamEnd> {
    let request = StreamRequest::Explain { instance };
    // Who asks here has read this cluster's own books.
    if asker == Asker::Local {
        return holder(tier, instance).map(|child| Source::Child(child, request));
    }
    let Some(own) = lines::explanation(tier, "cluster", instance) else {
        return Err(absent(instance));
    };
    let mut text = format!("{own}\n");
    Ok(match (tier.route(instance), lines::unreachable(tier, instance)) {
        (Some(child), _) => Source::Both(text.into_bytes(), child, request),
        (None, lost) => {
            text.extend(lost.map(|lost| format!("{lost}\n")));
            Source::Own(text.into_bytes())
        }
    })
}

fn holder(tier: &Tier, instance: InstanceId) -> Result<ChildId, StreamEnd> {
    match tier.route(instance) {
        Some(child) => Ok(child),
        None if tier.instances().contains_key(&instance) => {
            let why = format!("instance {instance} is on no child that is connected");
            Err(StreamEnd::Fault(StreamFault::Unreachable, why))
        }
        None => Err(absent(instance)),
    }
}

fn absent(instance: InstanceId) -> StreamEnd {
    let why = format!("instance {instance} is not in this cluster");
    StreamEnd::Fault(StreamFault::NotFound, why)
}

/// The connected child that is the cluster or has it below.
fn toward(tier: &Tier, cluster: ChildId) -> Result<ChildId, StreamEnd> {
    let Some(child) = tier.towards(cluster).and_then(|child| tier.children().get(&child)) else {
        let why = format!("cluster {cluster} is not below this one");
        return Err(StreamEnd::Fault(StreamFault::NotFound, why));
    };
    match child.is_connected() {
        true => Ok(child.id()),
        false => {
            let why = format!("cluster {} is not connected", child.name());
            Err(StreamEnd::Fault(StreamFault::Unreachable, why))
        }
    }
}
