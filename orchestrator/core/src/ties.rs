//! Which instances have to do with which services: those placed that ask to be apart from a
//! service, and those without a place that ask to be with one.
//!
//! Why an index: each placement asks who minds, and hardly anybody does.

use marram_protocol::id::InstanceId;
use marram_protocol::reference::service_name;
use marram_protocol::v1::Workload;
use std::collections::{BTreeMap, BTreeSet};

/// References to services, and the instances that make them.
#[derive(Debug, Default)]
pub(crate) struct Ties {
    by_reference: BTreeMap<String, BTreeSet<InstanceId>>,
    by_instance: BTreeMap<InstanceId, Vec<String>>,
}

impl Ties {
    /// The instance refers to these services now, and to no others.
    pub(crate) fn note(&mut self, id: InstanceId, references: &[String]) {
        if references.is_empty() && self.by_instance.is_empty() {
            return;
        }
        for old in self.by_instance.remove(&id).unwrap_or_default() {
            if let Some(all) = self.by_reference.get_mut(&old) {
                all.remove(&id);
                if all.is_empty() {
                    self.by_reference.remove(&old);
                }
            }
        }
        if references.is_empty() {
            return;
        }
        for reference in references {
            self.by_reference.entry(reference.clone()).or_default().insert(id);
        }
        self.by_instance.insert(id, references.to_vec());
    }

    /// Instances that refer to the service of this workload, except itself.
    pub(crate) fn to(&self, workload: &Workload) -> impl Iterator<Item = InstanceId> {
        let id = workload.instance;
        let (mut by_id, mut by_name) = (None, None);
        if !self.by_reference.is_empty() {
            by_id = self.by_reference.get(&id.service.to_string());
            by_name = self.by_reference.get(service_name(workload));
        }
        let all = by_id.into_iter().chain(by_name).flatten().copied();
        all.filter(move |other| *other != id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marram_protocol::id::ServiceId;
    use marram_protocol::v1::ServiceSpec;

    #[test]
    fn references_are_found_by_name_and_by_id_and_forgotten() {
        let id = |number| InstanceId { service: ServiceId([3; 12]), number };
        let name = "a.b.c.d.0".to_owned();
        let workload =
            Workload { instance: id(0), revision: 1, name, spec: ServiceSpec::default() };
        let mut ties = Ties::default();
        ties.note(id(0), &["a.b.c.d".into()]);
        ties.note(id(1), &["a.b.c.d".into(), "x".into()]);
        ties.note(id(2), &[ServiceId([3; 12]).to_string()]);
        ties.note(id(3), &["x".into()]);
        assert_eq!(ties.to(&workload).collect::<Vec<_>>(), [id(2), id(1)]);
        ties.note(id(1), &["x".into()]);
        ties.note(id(2), &[]);
        assert_eq!(ties.to(&workload).count(), 0);
        (0..4).for_each(|number| ties.note(id(number), &[]));
        assert!(ties.by_reference.is_empty() && ties.by_instance.is_empty());
    }
}
