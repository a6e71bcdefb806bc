//! The last output of a service's instances, which this form shows inside the service.
//!
//! The original sends it up all the time; here the nodes are asked at the moment somebody
//! looks at one service. Who does not answer soon is shown without output.

use crate::auth::Access;
use crate::catalog::Service;
use crate::shell::View;
use crate::view;
use marram_protocol::id::InstanceId;
use marram_protocol::v1::StreamRequest;
use marram_rest::link::{Link, last_bytes};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Shown of each instance, as by the original.
const LOG_BYTES_MAX: usize = 1024;

/// Lines asked for: with fewer bytes each than a terminal is wide they fill what is shown.
const LOG_LINES_MAX: u32 = 32;

/// Instances asked: half of the streams that one cluster serves at once.
const ASKED_MAX: usize = 16;

/// So long the answer waits for output.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// The ways to the newest instances of a service.
pub(super) fn sources(
    view: &View<'_>,
    access: &Access,
    service: &Service,
) -> Vec<(InstanceId, Arc<Link>)> {
    let mut ids: Vec<InstanceId> = view::ids_of(view.tier, service.id).collect();
    ids.reverse();
    let ways = ids.into_iter().filter_map(|id| Some((id, view.route(access, id).ok()?)));
    ways.take(ASKED_MAX).collect()
}

/// Puts the output of each instance where clients look for it.
pub(super) async fn fill_in(service: &mut Value, sources: Vec<(InstanceId, Arc<Link>)>) {
    let until = Instant::now() + ANSWER_TIME_MAX;
    let mut asked = JoinSet::new();
    for (id, link) in sources {
        asked.spawn(async move { (id.number, tail(&link, id, until).await) });
    }
    while let Some(answered) = asked.join_next().await {
        // A task that failed has nothing to show.
        let Ok((number, Some(bytes))) = answered else { continue };
        let instances = service["instance_list"].as_array_mut().into_iter().flatten();
        for instance in instances.filter(|one| one["instance_number"] == number) {
            instance["logs"] = String::from_utf8_lossy(&bytes).into();
        }
    }
}

async fn tail(link: &Arc<Link>, instance: InstanceId, until: Instant) -> Option<Vec<u8>> {
    let tail_lines = Some(LOG_LINES_MAX);
    let open = link.open(StreamRequest::Logs { instance, tail_lines, follow: false });
    let stream = tokio::time::timeout_at(until, open).await.ok()?.ok()?;
    Some(last_bytes(stream, LOG_BYTES_MAX, until).await)
}
