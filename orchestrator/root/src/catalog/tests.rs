//! The catalog as clients see it, across a restart, and between owners.

use super::*;
use marram_store::MemoryStore;
use serde_json::json;

fn document(application: &str, services: &[&str]) -> Vec<u8> {
    let services: Vec<_> = services
        .iter()
        .map(|name| {
            json!({
                "microserviceID": "", "microservice_name": name, "microservice_namespace": "test",
                "virtualization": "container", "code": "docker.io/library/nginx:latest",
                "memory": 100, "port": "6080:80", "x-unknown": {"kept": [1, 2.5, null]},
            })
        })
        .collect();
    let document = json!({
        "sla_version": "v2.0", "customerID": "Admin",
        "applications": [{
            "applicationID": "", "application_name": application,
            "application_namespace": "test", "application_desc": "d", "colour": "green",
            "microservices": services,
        }],
    });
    document.to_string().into_bytes()
}

fn draft(application: &str, services: &[&str]) -> Draft {
    Draft::parse(&document(application, services)).unwrap()
}

fn saved(catalog: &mut Catalog, store: &MemoryStore) -> Catalog {
    storage::commit(store, catalog.take_writes()).unwrap();
    Catalog::load(store).unwrap()
}

#[test]
fn what_is_made_is_there_after_a_restart_in_its_order() {
    let (store, anna) = (MemoryStore::new(), Access::of("anna", false));
    let mut catalog = Catalog::default();
    let names = ["zeta", "alpha", "mid"];
    let id = catalog.create(&anna, draft("shop", &names), 5).unwrap()[0];
    let added = draft("shop", &["beta"]).single().unwrap().services;
    catalog.add_services(&anna, id, added, 6).unwrap();
    let catalog = saved(&mut catalog, &store);
    let found: Vec<_> = catalog.services(&anna).map(|s| s.name.as_str()).collect();
    assert_eq!(found, ["zeta", "alpha", "mid", "beta"]);
    let application = catalog.application(&anna, id).unwrap();
    assert_eq!(application.extra, r#"{"colour":"green"}"#);
    let first = catalog.services(&anna).next().unwrap();
    let fields = first.fields().unwrap();
    assert_eq!(fields["x-unknown"], json!({"kept": [1, 2.5, null]}));
    assert!(!fields.contains_key("microserviceID") && !fields.contains_key("vcpus"));
    assert_eq!(first.job_name(), "shop.test.zeta.test");
    let workload = first.workloads(3, 1).unwrap().remove(0);
    assert_eq!(workload.name, "shop.test.zeta.test.3");
    assert_eq!(workload.spec.resources.memory_mib, 100);
    assert!(workload.spec.extra.contains("x-unknown"));
}

#[test]
fn short_names_of_other_services_are_written_out() {
    let mut document: serde_json::Value =
        serde_json::from_slice(&document("shop", &["web"])).unwrap();
    document["applications"][0]["microservices"][0]["marram"] =
        json!({"placement": {"with": ["db", "db.other"], "apart_from": ["web"]}});
    let draft = Draft::parse(document.to_string().as_bytes()).unwrap();
    let (anna, mut catalog) = (Access::of("anna", false), Catalog::default());
    catalog.create(&anna, draft, 0).unwrap();
    let workloads = catalog.services(&anna).next().unwrap().workloads(0, 1).unwrap();
    let placement = &workloads[0].spec.placement;
    assert_eq!(placement.with, ["shop.test.db.test", "shop.test.db.other"]);
    assert_eq!(placement.apart_from, ["shop.test.web.test"]);
}

#[test]
fn names_are_unique_for_each_owner() {
    let (anna, bert) = (Access::of("anna", false), Access::of("bert", false));
    let mut catalog = Catalog::default();
    let id = catalog.create(&anna, draft("shop", &["web"]), 0).unwrap()[0];
    let again = catalog.create(&anna, draft("shop", &[]), 0).unwrap_err();
    assert_eq!(again.status(), 409);
    assert!(again.to_string().contains(&id.to_string()));
    catalog.create(&bert, draft("shop", &["web"]), 0).unwrap();
    let twice = draft("shop", &["web"]).single().unwrap().services;
    assert_eq!(catalog.add_services(&anna, id, twice, 0).unwrap_err().status(), 409);
    catalog.remove_application(&anna, id).unwrap();
    catalog.create(&anna, draft("shop", &["web"]), 0).unwrap();
}

#[test]
fn what_belongs_to_another_is_not_there() {
    let (anna, bert) = (Access::of("anna", false), Access::of("bert", false));
    let admin = Access::of("Admin", true);
    let mut catalog = Catalog::default();
    let id = catalog.create(&anna, draft("shop", &["web"]), 0).unwrap()[0];
    let service = catalog.members(id).next().unwrap();
    let instance = InstanceId { service, number: 0 };
    let before = catalog.take_writes().len();
    assert_eq!(before, 2);
    assert_eq!(catalog.application(&bert, id).unwrap_err().status(), 404);
    assert_eq!(catalog.service(&bert, service).unwrap_err().status(), 404);
    assert_eq!(catalog.service_of(&bert, instance).unwrap_err().status(), 404);
    assert_eq!(catalog.remove_application(&bert, id).unwrap_err().status(), 404);
    assert_eq!(catalog.remove_service(&bert, service).unwrap_err().status(), 404);
    assert_eq!(catalog.add_services(&bert, id, Vec::new(), 0).unwrap_err().status(), 404);
    assert_eq!(catalog.applications(&bert).count() + catalog.services(&bert).count(), 0);
    assert!(catalog.find_application(&bert, "shop", "test").is_none());
    assert!(catalog.take_writes().is_empty());
    assert!(catalog.application(&admin, id).is_ok() && catalog.service(&admin, service).is_ok());
}

#[test]
fn a_removed_service_stays_until_its_last_instance_is_gone() {
    let (store, anna) = (MemoryStore::new(), Access::of("anna", false));
    let mut catalog = Catalog::default();
    let id = catalog.create(&anna, draft("shop", &["web", "db"]), 0).unwrap()[0];
    let web = catalog.members(id).next().unwrap();
    assert_eq!(catalog.take_instance_number(web), Ok(0));
    assert_eq!(catalog.take_instance_number(web), Ok(1));
    let services = catalog.remove_application(&anna, id).unwrap();
    let mut catalog = saved(&mut catalog, &store);
    assert_eq!(catalog.next_instance_number(web), 2);
    assert!(catalog.service(&anna, web).is_err());
    assert!(catalog.service_of(&anna, InstanceId { service: web, number: 0 }).is_ok());
    assert_eq!(catalog.removed().len(), 2);
    catalog.forget(&services, |id| id == web);
    assert_eq!(catalog.removed(), [web]);
    catalog.forget(&services, |_| false);
    let catalog = saved(&mut catalog, &store);
    assert!(catalog.removed().is_empty() && catalog.document_bytes == 0);
    assert!(storage::load(&store, b"root/").unwrap().is_empty());
}

#[test]
fn a_full_catalog_says_so() {
    let anna = Access::of("anna", false);
    let mut catalog = Catalog { document_bytes: DOCUMENT_BYTES_TOTAL_MAX, ..Catalog::default() };
    let refused = catalog.create(&anna, draft("shop", &["web"]), 0).unwrap_err();
    assert!(refused.to_string().contains("bytes of documents"), "{refused}");
    assert!(catalog.create(&anna, draft("shop", &[]), 0).is_ok());
}

#[test]
fn wrong_documents_are_refused_with_every_fault() {
    let mut wrong: serde_json::Value =
        serde_json::from_slice(&document("shop", &["web", "web"])).unwrap();
    wrong["applications"][0]["microservices"][0]["memory"] = json!("much");
    wrong["applications"][0]["microservices"][1]["port"] = json!("x");
    let refused = Draft::parse(wrong.to_string().as_bytes()).unwrap_err();
    assert_eq!(refused.status(), 422);
    let faults = refused.faults();
    let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [
            "/applications/0/microservices/0/memory",
            "/applications/0/microservices/1/port",
            "/applications/0/microservices/1/microservice_name",
        ]
    );
    assert_eq!(Draft::parse(&vec![b' '; 2 << 20]).unwrap_err().status(), 413);
    assert_eq!(Draft::parse(&[0xff]).unwrap_err().status(), 422);
    assert_eq!(Draft::parse(b"{").unwrap_err().faults().len(), 1);
    let mut large: serde_json::Value = serde_json::from_slice(&document("shop", &["web"])).unwrap();
    large["applications"][0]["microservices"][0]["x"] = json!("x".repeat(100_000));
    assert_eq!(Draft::parse(large.to_string().as_bytes()).unwrap_err().status(), 422);
}
