//! Programs of the host, through all three tiers.

#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use marram_e2e::{Site, Tier, wait_for};
use serde_json::{Value, json};

fn service(name: &str, command: &[&str]) -> Value {
    json!({
        "microserviceID": "", "microservice_name": name, "microservice_namespace": "test",
        "virtualization": "native", "code": command[0], "cmd": command[1..],
        "memory": 50, "vcpus": 0
    })
}

fn sla(services: &[Value]) -> Value {
    json!({
        "sla_version": "v2.0", "customerID": "Admin",
        "applications": [{
            "applicationID": "", "application_name": "app", "application_namespace": "test",
            "application_desc": "", "microservices": services
        }]
    })
}

fn start_time(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Processes whose command line holds this text.
fn processes(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if pid.bytes().all(|b| b.is_ascii_digit()) && line.starts_with(text) {
            found.extend(start_time(&pid).map(|time| (pid, time)));
        }
    }
    found.sort();
    found
}

#[test]
fn from_document_to_process_and_away_again() {
    let site = Site::start("").unwrap();
    let api = site.api().unwrap();
    let talk = "echo hello from the board; echo $GREETING; exec sleep 4711";
    let mut talker = service("talker", &["/bin/sh", "-c", talk]);
    talker["environment"] = json!(["GREETING=moin"]);
    api.apply(&sla(&[talker])).unwrap();
    let instance =
        wait_for("running", || api.instance("app.test.talker").filter(|i| i["state"] == "running"))
            .unwrap();
    assert_eq!(instance["node"]["name"], "board");
    assert_eq!(instance["cluster"]["name"], "site");
    assert_eq!(instance["oakestra_state"], "RUNNING");
    let id = instance["instance_id"].as_str().unwrap();
    let logs = wait_for("its output", || {
        let text = api.text(&format!("/api/v1/instances/{id}/logs")).ok()?;
        text.contains("moin").then_some(text)
    })
    .unwrap();
    assert_eq!(logs, "hello from the board\nmoin\n");

    // A killed program is started again, and the root hears of both.
    let before = processes("sleep 4711");
    assert_eq!(before.len(), 1);
    assert!(
        std::process::Command::new("kill").arg("-9").arg(&before[0].0).status().unwrap().success()
    );
    let again = wait_for("its restart", || {
        api.instance("app.test.talker")
            .filter(|i| i["state"] == "running" && i["restarts"].as_u64() == Some(1))
    })
    .unwrap();
    assert_eq!(again["exit"], json!({"signal": 9}));
    let after = processes("sleep 4711");
    assert_eq!(after.len(), 1);
    assert_ne!(before, after);

    let application = api.items("applications")[0]["application_id"].as_str().unwrap().to_owned();
    assert_eq!(api.delete(&format!("/api/v1/applications/{application}")).unwrap(), 202);
    wait_for("its end", || api.instances().is_empty().then_some(())).unwrap();
    wait_for("no process", || processes("sleep 4711").is_empty().then_some(())).unwrap();
}

#[test]
fn a_one_shot_completes_and_is_not_run_again() {
    let mut site = Site::start("").unwrap();
    let api = site.api().unwrap();
    let mark = site.folder().join("mark");
    std::fs::write(&mark, "").unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&mark, open).unwrap();
    std::fs::set_permissions(site.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .unwrap();
    let command = format!("echo ran >> {}", mark.display());
    let mut job = service("job", &["/bin/sh", "-c", &command]);
    job["one_shot"] = json!(true);
    api.apply(&sla(&[job])).unwrap();
    let completed = || api.all_are("completed", 1).then_some(());
    wait_for("completed", completed).unwrap();
    site.kill(Tier::Node).unwrap();
    site.start_one(Tier::Node).unwrap();
    wait_for("completed", completed).unwrap();
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "ran\n");
}

#[test]
fn killed_programs_of_marram_touch_no_workload() {
    let mut site = Site::start("").unwrap();
    let api = site.api().unwrap();
    let services: Vec<Value> =
        ["a", "b", "c"].iter().map(|name| service(name, &["/bin/sleep", "4712"])).collect();
    api.apply(&sla(&services)).unwrap();
    let running = |what: &str, site: &Site| {
        let all = || site.api().ok()?.all_are("running", 3).then_some(());
        wait_for(what, all).unwrap_or_else(|error| panic!("{error}\n{}", site.logs()));
    };
    running("the start", &site);
    let before = processes("/bin/sleep 4712");
    assert_eq!(before.len(), 3);
    let rounds: [&[Tier]; 5] = [
        &[Tier::Node],
        &[Tier::Cluster],
        &[Tier::Root],
        &[Tier::Root, Tier::Cluster, Tier::Node],
        &[Tier::Node, Tier::Cluster],
    ];
    for round in rounds {
        round.iter().for_each(|tier| site.kill(*tier).unwrap());
        round.iter().for_each(|tier| site.start_one(*tier).unwrap());
        running(&format!("{round:?} back"), &site);
        assert_eq!(processes("/bin/sleep 4712"), before, "after {round:?}");
    }
    // An orderly end leaves them running as well; a drain does not.
    assert_eq!(site.stop(Tier::Node).unwrap(), Some(0));
    assert_eq!(processes("/bin/sleep 4712"), before);
    site.drain().unwrap();
    assert_eq!(processes("/bin/sleep 4712"), []);
    site.start_one(Tier::Node).unwrap();
    running("after the drain", &site);
}

#[test]
fn a_node_alone_goes_on() {
    let mut site = Site::start("").unwrap();
    let api = site.api().unwrap();
    api.apply(&sla(&[service("alone", &["/bin/sleep", "4713"])])).unwrap();
    wait_for("running", || api.all_are("running", 1).then_some(())).unwrap();
    for tier in Tier::ALL {
        site.kill(tier).unwrap();
    }
    let before = processes("/bin/sleep 4713");
    assert!(
        std::process::Command::new("kill").arg("-9").arg(&before[0].0).status().unwrap().success()
    );
    site.start_one(Tier::Node).unwrap();
    let after = wait_for("the start with nobody above", || {
        let now = processes("/bin/sleep 4713");
        (now.len() == 1 && now != before).then_some(now)
    })
    .unwrap();
    site.start_one(Tier::Cluster).unwrap();
    site.start_one(Tier::Root).unwrap();
    wait_for("running", || site.api().ok()?.all_are("running", 1).then_some(())).unwrap();
    assert_eq!(processes("/bin/sleep 4713"), after);
}

#[test]
fn what_cannot_run_says_why() {
    let site = Site::start("").unwrap();
    let api = site.api().unwrap();
    let mut large = service("large", &["/bin/sleep", "1"]);
    large["memory"] = json!(999_999_999);
    let missing = service("missing", &["/no/such/program"]);
    api.apply(&sla(&[large, missing])).unwrap();
    let detail = |name: &str, text: &str| {
        wait_for(text, || {
            let instance = api.instance(name)?;
            let told = format!("{} {}", instance["detail"], instance["tried"]);
            told.contains(text).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}: {:?}", api.instance(name)));
    };
    detail("app.test.large", "MiB of memory wanted");
    detail("app.test.missing", "/no/such/program");

    let mut bad = sla(&[service("x", &["/bin/sleep", "1"])]);
    bad["applications"][0]["application_name"] = json!("not a name");
    bad["applications"][0]["microservices"][0]["memory"] = json!(-1);
    let (status, answer) = api.post("/api/v1/apply", &bad).unwrap();
    assert_eq!(status, 422, "{answer}");
    assert_eq!(answer["errors"].as_array().map(Vec::len), Some(2), "{answer}");
    assert_eq!(api.post_bytes("/api/v1/apply", &vec![b' '; 2 << 20]).unwrap().0, 413);
}
