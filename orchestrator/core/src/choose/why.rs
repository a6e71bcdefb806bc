//! Says for people why no child takes an instance.

use super::wish::{Judged, Misfit, Wish};
use crate::child::Child;
use crate::instance::{REASONS_MAX, TRIED_MAX};
use crate::tier::Tier;
use marram_protocol::id::InstanceId;
use marram_protocol::v1::Resources;

impl Tier {
    /// Why no child takes the instance, child by child.
    pub(crate) fn why_nowhere(&self, id: InstanceId) -> String {
        let Some(instance) = self.instances.get(&id) else { return String::new() };
        if self.children.is_empty() {
            return "there is no child to run it on".into();
        }
        if instance.tried.len() >= TRIED_MAX {
            let reason = instance.tried.values().find(|reason| !reason.is_empty());
            let reason = reason.map_or("", String::as_str);
            return format!("{TRIED_MAX} children have refused it, the first: {reason}");
        }
        let wish = self.wish(instance);
        let mut judged = Judged::default();
        let children = self.children.values().take(REASONS_MAX);
        let reasons = children.map(|child| {
            let misfit = wish.judge(child, &mut judged).err();
            format!("{}: {}", child.name, reason(&wish, child, misfit))
        });
        let mut reasons: Vec<String> = reasons.collect();
        if self.children.len() > REASONS_MAX {
            reasons.push(format!("and {} more", self.children.len() - REASONS_MAX));
        }
        reasons.join("; ")
    }
}

fn reason(wish: &Wish<'_>, child: &Child, misfit: Option<Misfit<'_>>) -> String {
    let spec = &wish.instance.workload.spec;
    let id = wish.instance.workload.instance;
    match misfit {
        Some(Misfit::Silent) if child.is_connected() => "has not told what it runs".into(),
        Some(Misfit::Silent) => "not connected".into(),
        Some(Misfit::Cordoned) => "cordoned".into(),
        Some(Misfit::There) => "it is there".into(),
        Some(Misfit::Refused) => {
            let said = wish.instance.tried.get(&child.id).filter(|said| !said.is_empty());
            said.cloned().unwrap_or_else(|| "has refused it".into())
        }
        Some(Misfit::Hopeless(why)) => why.to_owned(),
        Some(Misfit::Guest) => {
            "is a guest here, and the service would wait for it (on_loss: wait)".into()
        }
        Some(Misfit::Cluster) => {
            format!("in no cluster {}", spec.placement.clusters.join(" or "))
        }
        Some(Misfit::Node) => "not among the names that the constraints allow".into(),
        Some(Misfit::Labels) => format!("its labels are not {}", spec.placement.labels),
        Some(Misfit::Addon(addon)) => format!("has no addon {addon:?}"),
        Some(Misfit::Virtualization) => {
            format!("has no {:?}", spec.runtime.as_deref().unwrap_or(&spec.virtualization))
        }
        Some(Misfit::Architecture) => format!("is not {}", spec.architectures.join(" or ")),
        Some(Misfit::Port(port)) => format!("host port {port} is taken"),
        Some(Misfit::Far(what, excess)) => format!("too far from {what}: {excess}"),
        Some(Misfit::With(whom)) => format!("{whom} is not there"),
        Some(Misfit::Apart(whom)) => format!("has to be apart from {whom}"),
        Some(Misfit::Amounts) | None => short_of(child, id, spec.resources),
    }
}

fn short_of(child: &Child, id: InstanceId, wanted: Resources) -> String {
    let Some(offer) = &child.offer else { return "could take it".into() };
    let (free, slot) = offer.free(child.taken_for(id));
    let most = free.min(slot).amounts();
    let units = [
        "MiB of memory",
        "millicores",
        "GPUs",
        "MiB of disk",
        "MiB of GPU memory",
        "kbit/s towards it",
        "kbit/s from it",
    ];
    let lacks =
        units.iter().zip(wanted.amounts()).zip(most).filter(|((_, wanted), most)| wanted > most);
    let lacks = lacks.map(|((unit, wanted), most)| format!("{wanted} {unit} wanted, {most} free"));
    let text = lacks.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "could take it".into() } else { text }
}
