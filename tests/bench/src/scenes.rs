//! What is deployed in order to be measured, and its coming and going.

use anyhow::{Context, bail, ensure};
use marram_e2e::{Api, PATIENCE, Site, wait_for};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The image of the container that does nothing.
pub(crate) const IMAGE: &str = "docker.io/library/busybox:latest";

/// Between two questions where the asking must not be what is measured.
const CALM: Duration = Duration::from_millis(500);

/// A program of the host that does nothing.
pub(crate) fn native(name: &str, command: [&str; 2]) -> Value {
    service(name, json!({"virtualization": "native", "code": command[0], "cmd": command[1..]}))
}

/// A container that does nothing.
pub(crate) fn container(name: &str, command: [&str; 2]) -> Value {
    service(name, json!({"virtualization": "container", "code": IMAGE, "cmd": command}))
}

fn service(name: &str, own: Value) -> Value {
    // Process 1 of a container ignores SIGTERM unless it handles it, so it is not waited for.
    let mut service = json!({
        "microserviceID": "", "microservice_name": name, "microservice_namespace": "bench",
        "memory": 20, "vcpus": 0, "marram": {"stop_grace_s": 0}
    });
    if let (Value::Object(service), Value::Object(own)) = (&mut service, own) {
        service.extend(own);
    }
    service
}

/// Something that was applied.
#[derive(Debug)]
pub(crate) struct Deployed {
    /// Of each service, in the order of the document.
    pub(crate) services: Vec<String>,
    /// One of each service.
    pub(crate) instances: Vec<String>,
}

/// Deploys one instance of each service and waits until they run.
pub(crate) fn deploy(api: &Api, services: &[Value]) -> anyhow::Result<Deployed> {
    let document = json!({
        "sla_version": "v2.0", "customerID": "Admin",
        "applications": [{
            "applicationID": "", "application_name": "bench", "application_namespace": "bench",
            "application_desc": "", "microservices": services
        }]
    });
    deploy_document(api, &document)
}

/// Deploys a document and waits until everything runs.
pub(crate) fn deploy_document(api: &Api, document: &Value) -> anyhow::Result<Deployed> {
    let answer = api.apply(document)?;
    let services = answer.pointer("/applications/0/services").and_then(Value::as_array);
    let services = services.with_context(|| format!("no services in {answer}"))?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no id");
    let deployed = Deployed {
        services: services.iter().map(|s| text(&s["service_id"])).collect::<Result<_, _>>()?,
        instances: services.iter().map(|s| text(&s["instances"][0])).collect::<Result<_, _>>()?,
    };
    calmly("everything to run", || api.all_are("running", services.len()).then_some(()))
        .with_context(|| format!("{:?}", api.instances()))?;
    Ok(deployed)
}

/// Asks for one more instance of a service and tells its id.
pub(crate) fn one_more(api: &Api, service: &str) -> anyhow::Result<String> {
    match api.post(&format!("/api/v1/services/{service}/instances"), &Value::Null)? {
        (202, answer) => answer["instance_id"].as_str().map(str::to_owned).context("no id"),
        (status, answer) => bail!("one more instance: {status} {answer}"),
    }
}

/// Removes everything and waits until it is gone.
pub(crate) fn remove_all(api: &Api) -> anyhow::Result<()> {
    for application in api.items("applications") {
        let id = application["application_id"].as_str().context("no id")?;
        let status = api.delete(&format!("/api/v1/applications/{id}"))?;
        ensure!(status == 202, "removing {id}: {status}");
    }
    wait_for("everything to be gone", || api.instances().is_empty().then_some(()))
}

/// Waits, asking seldom.
pub(crate) fn calmly<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        ensure!(Instant::now() < until, "waited {PATIENCE:?} in vain for: {what}");
        std::thread::sleep(CALM);
    }
}

/// Waits until the site has measured itself and told it at the root: from then on nothing is
/// new to it, and its memory stays what it is.
pub(crate) fn settle(site: &Site) -> anyhow::Result<()> {
    let api = site.api()?;
    let known = |i: &Value| !i["usage"].is_null();
    let told = |cluster: &Value| cluster["memory_used_mib"].as_u64() > Some(0);
    calmly("telemetry at the root", || {
        let all = api.items("clusters").iter().any(told) && api.instances().iter().all(known);
        all.then_some(())
    })
}
