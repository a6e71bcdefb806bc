//! Key sets and types against what Oakestra's own root has answered.

use super::*;
use crate::auth::Access;
use crate::catalog::{Catalog, Draft};
use crate::view::Place;
use marram_protocol::id::{ChildId, InstanceId};
use marram_protocol::v1::{NodeRef, Resources, Summary, WorkloadUsage};

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn sorted(list: &'static str) -> Vec<&'static str> {
    let mut words: Vec<&str> = list.split_whitespace().collect();
    words.sort_unstable();
    words
}

fn catalog() -> (Access, Catalog) {
    let access = Access::of("Admin", true);
    let mut catalog = Catalog::default();
    let document = include_bytes!("../../../../../../examples/clientsrvr.json");
    catalog.create(&access, Draft::parse(document).unwrap(), 0).unwrap();
    (access, catalog)
}

fn running(id: InstanceId) -> InstanceView {
    InstanceView {
        id,
        application: Default::default(),
        name: "clientsrvr.test.nginx.test.0".into(),
        revision: 1,
        state: InstanceState::Running,
        detail: String::new(),
        restarts: 0,
        exit: None,
        since_unix_ms: 1_795_342_753_280,
        cluster: Some(Place {
            id: ChildId([7; 12]),
            name: "c1".into(),
            location: "48.1,11.5,1000".into(),
        }),
        node: Some(NodeRef {
            id: ChildId([8; 12]),
            name: "n1".into(),
            address: "127.0.0.1".into(),
        }),
        tried: Vec::new(),
        host_port: 6080,
        usage: Some(WorkloadUsage { instance: id, cpu_permille: 125, memory_mib: 25 }),
        memory_mib: 100,
        removing: false,
    }
}

#[test]
fn an_application_has_the_golden_keys() {
    let (access, catalog) = catalog();
    let found = catalog.applications(&access).next().unwrap();
    let value = application(found, catalog.members(found.id));
    assert_eq!(
        keys(&value),
        sorted(
            "applicationID application_name application_namespace application_desc microservices \
             userId _id"
        )
    );
    assert_eq!(value["_id"]["$oid"], value["applicationID"]);
    assert_eq!(value["microservices"].as_array().unwrap().len(), 2);
    assert_eq!(value["userId"], "Admin");
}

#[test]
fn a_service_has_the_golden_keys() {
    let (access, catalog) = catalog();
    let nginx = catalog.services(&access).find(|s| s.name == "nginx").unwrap();
    let id = InstanceId { service: nginx.id, number: 0 };
    let value = service(nginx, 1, &[running(id)]).unwrap();
    assert_eq!(
        keys(&value),
        sorted(
            "job_name microserviceID microservice_name microservice_namespace virtualization cmd \
             memory vcpus vgpus vtpus bandwidth_in bandwidth_out storage code state port addresses \
             added_files applicationID app_name app_ns service_name service_ns image \
             next_instance_progressive_number instance_list RR_ip RR_ip_v6 _id status \
             status_detail"
        )
    );
    assert_eq!(value["job_name"], "clientsrvr.test.nginx.test");
    assert_eq!(value["virtualization"], "docker");
    assert_eq!(value["image"], value["code"]);
    assert_eq!(value["RR_ip"], "10.30.30.30");
    assert_eq!(value["RR_ip_v6"], Value::Null);
    assert_eq!(value["status"], "RUNNING");
    assert_eq!(value["microserviceID"], value["_id"]["$oid"]);
    let empty = service(nginx, 0, &[]).unwrap();
    assert_eq!(empty["status"], "REQUESTED");
    assert_eq!(empty["instance_list"], json!([]));
}

#[test]
fn an_instance_has_the_types_that_strict_clients_expect() {
    let value = instance(&running(InstanceId { service: Default::default(), number: 4 }));
    assert_eq!(
        keys(&value),
        sorted(
            "instance_number cluster_id cluster_location status status_detail publicip \
             cpu_percent memory_percent disk logs worker_id host_ip host_port \
             last_modified_timestamp cpu_history memory_history"
        )
    );
    for text in ["cpu_percent", "memory_percent", "disk", "logs", "cluster_id", "worker_id"] {
        assert!(value[text].is_string(), "{text}");
    }
    assert!(value["host_port"].is_u64() && value["instance_number"].is_u64());
    assert_eq!(value["cpu_percent"], "12.5");
    assert_eq!(value["memory_percent"], "25.0");
    assert_eq!(value["last_modified_timestamp"], json!(1_795_342_753.28));
}

#[test]
fn a_cluster_has_the_golden_keys_even_when_nothing_is_known() {
    let mut view = ClusterView {
        id: ChildId([7; 12]),
        name: "c1".into(),
        connected: false,
        version: String::new(),
        address: String::new(),
        summary: Summary::default(),
        reserved: Resources::default(),
        instances: 0,
        seen_unix_ms: 0,
        cpu_permille: None,
        memory_used_mib: None,
    };
    let golden = sorted(
        "_id active active_nodes candidate_location candidate_name cpu_history cpu_percent \
         csi_drivers gpu_drivers gpu_percent gpu_temp ip last_modified_timestamp memory \
         memory_history memory_percent port supported_addons vcpus vgpus virtualization vram \
         vram_percent cluster_name cluster_location aggregated_cpu_percent memory_in_mb \
         total_cpu_cores total_gpu_cores",
    );
    assert_eq!(keys(&cluster(&view)), golden);
    view.connected = true;
    view.summary.capacity =
        Resources { memory_mib: 16_000, cpu_millicores: 8500, ..Resources::default() };
    view.summary.virtualizations = vec!["container".into(), "native".into()];
    view.memory_used_mib = Some(4000);
    let value = cluster(&view);
    assert_eq!(keys(&value), golden);
    assert!(value["_id"].is_string() && value["port"].is_string());
    for number in ["active_nodes", "vcpus", "memory_in_mb", "vram", "total_cpu_cores"] {
        assert!(value[number].is_u64(), "{number}");
    }
    assert!(value["last_modified_timestamp"].is_f64() && value["cpu_percent"].is_f64());
    assert_eq!(value["memory_percent"], json!(25.0));
    assert_eq!(value["virtualization"], json!(["container", "native", "docker"]));
}
