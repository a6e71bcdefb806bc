//! How a service names another one, and what such a name stands for.
//!
//! | written | means |
//! |---|---|
//! | 24 hexadecimal digits | the service with that id |
//! | `app.appns.service.servicens` | that service |
//! | `service.servicens` | that service of the same application |
//! | `service` | that service of the same application and of the naming service's namespace |
//!
//! The last two are written out where the application is known, at the root; below it only
//! the first two forms travel. Nobody looks whether such a service exists: it may come later.

use crate::id::ServiceId;
use crate::v1::{Anchor, Placement, Workload};

/// Longest name of an application, a service or a namespace.
pub const NAME_CHARS_MAX: usize = 30;

/// Whether a text has one of the forms.
pub fn is_reference(text: &str) -> bool {
    let is_name = |part: &str| {
        (1..=NAME_CHARS_MAX).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    matches!(text.split('.').count(), 1 | 2 | 4) && text.split('.').all(is_name)
}

/// Writes out all short references of `placement`, as the service of this full name means
/// them: `app.appns.service.servicens`.
pub fn write_out(placement: &mut Placement, service: &str) {
    let parts: Vec<&str> = service.split('.').collect();
    let [app, app_namespace, _, namespace] = parts[..] else { return };
    let one = |text: &mut String| {
        let full = match text.split('.').collect::<Vec<&str>>()[..] {
            [name] if name.parse::<ServiceId>().is_err() => {
                format!("{app}.{app_namespace}.{name}.{namespace}")
            }
            [name, namespace] => format!("{app}.{app_namespace}.{name}.{namespace}"),
            _ => return,
        };
        *text = full;
    };
    placement.with.iter_mut().for_each(one);
    placement.apart_from.iter_mut().for_each(one);
    for proximity in &mut placement.proximity {
        if let Anchor::Service(service) = &mut proximity.to {
            one(service);
        }
    }
}

/// The full name of the service that a workload is an instance of.
pub fn service_name(workload: &Workload) -> &str {
    // The instance's number stands behind it.
    match workload.name.match_indices('.').nth(3) {
        Some((end, _)) => &workload.name[..end],
        None => &workload.name,
    }
}

/// Whether a workload is an instance of the service that is referred to.
pub fn refers_to(reference: &str, workload: &Workload) -> bool {
    match reference.parse::<ServiceId>() {
        Ok(id) => workload.instance.service == id,
        Err(_) => service_name(workload) == reference,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::InstanceId;
    use crate::v1::{Proximity, ServiceSpec};

    const ID: &str = "6b02c146095d85ec50ef2ebd";

    #[test]
    fn forms_are_told_apart() {
        for good in ["db", "db.test", "a.b.c.d", ID] {
            assert!(is_reference(good), "{good}");
        }
        for bad in ["", ".", "a.b.c", "a.b.c.d.e", "a..b.c", "a b", "ü", &"a".repeat(31)] {
            assert!(!is_reference(bad), "{bad}");
        }
    }

    #[test]
    fn short_ones_are_written_out() {
        let texts = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let to = Anchor::Service("web.edge".to_owned());
        let near =
            Proximity { to, latency_us_max: None, distance_m_max: None, rigidness_permille: 0 };
        let mut placement = Placement {
            with: texts(&["db", "db.other"]),
            apart_from: texts(&[ID, "x.y.z.w"]),
            proximity: vec![near],
            ..Placement::default()
        };
        write_out(&mut placement, "app.ns.web.test");
        assert_eq!(placement.with, ["app.ns.db.test", "app.ns.db.other"]);
        assert_eq!(placement.apart_from, [ID, "x.y.z.w"]);
        let to = Anchor::Service("app.ns.web.edge".to_owned());
        assert_eq!(placement.proximity[0].to, to);
    }

    #[test]
    fn instances_are_known_by_name_and_by_id() {
        let instance = InstanceId { service: ID.parse().unwrap(), number: 3 };
        let name = "app.ns.db.test.3".to_owned();
        let workload = Workload { instance, revision: 1, name, spec: ServiceSpec::default() };
        assert_eq!(service_name(&workload), "app.ns.db.test");
        assert!(refers_to("app.ns.db.test", &workload) && refers_to(ID, &workload));
        assert!(!refers_to("app.ns.db.tes", &workload));
        assert!(!refers_to("6b02c146095d85ec50ef2ebe", &workload));
    }
}
