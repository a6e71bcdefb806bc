//! A watcher that fell behind ends up with the truth all the same.

use super::*;
use crate::auth::{ADMIN, ADMIN_PASSWORD_FILE, Auth, Signer, Users};
use crate::catalog::Draft;
use crate::clock::Clock;
use crate::shell::Shell;
use marram_store::MemoryStore;
use std::num::NonZeroU32;
use tokio::sync::watch;

const DOCUMENT: &str = r#"{"sla_version":"v2.0","customerID":"","applications":[{
    "application_name":"shop","application_namespace":"t","microservices":[{
    "microservice_name":"web","microservice_namespace":"t","virtualization":"native",
    "code":"/bin/true"}]}]}"#;

async fn rest() -> (Rest, Access, watch::Sender<bool>) {
    let (store, dir) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
    let rounds = NonZeroU32::new(10).unwrap();
    let (users, _) = Users::open(&*store, dir.path(), rounds, 0).unwrap();
    let auth = Arc::new(Auth::new(users, Signer::open(dir.path()).unwrap()));
    let password = std::fs::read_to_string(dir.path().join(ADMIN_PASSWORD_FILE)).unwrap();
    let here = std::net::Ipv4Addr::LOCALHOST.into();
    let tokens = auth.login(here, ADMIN, password.trim(), 0, 0).await.unwrap();
    let access = auth.access(Some(&format!("Bearer {}", tokens.access)), 0).unwrap();
    let clock = Clock::start();
    let (shell, handle, _children) = Shell::open(store, clock, String::new()).unwrap();
    let (stop, stopping) = watch::channel(false);
    let end = stopped(stopping.clone());
    tokio::spawn(async move { shell.run(end).await.unwrap() });
    (Rest::new(handle, auth, clock, stopping), access, stop)
}

fn text(bytes: Result<Bytes, Infallible>) -> String {
    String::from_utf8(bytes.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn who_lags_is_told_what_is_there_and_what_is_gone() {
    let (rest, access, stop) = rest().await;
    let draft = Draft::parse(DOCUMENT.as_bytes()).unwrap();
    let applied = rest.handle.apply(access.clone(), draft).await.unwrap();
    let service = applied[0].services[0].service;
    let first = applied[0].services[0].instances[0];

    let (all, changes) = look(&rest, &access).await.unwrap();
    // More than is kept for somebody who does not look; the last one stays.
    let mut last = first;
    for _ in 0..300 {
        rest.handle.remove_instance(access.clone(), last).await.unwrap();
        last = rest.handle.deploy(access.clone(), service).await.unwrap();
    }
    let (sender, mut receiver) = mpsc::channel(QUEUE_MAX);
    let watcher = rest.clone();
    let following =
        tokio::spawn(async move { follow(&watcher, &access, &sender, all, changes).await });
    let mut heard = Vec::new();
    let wanted = |heard: &[String]| {
        heard.iter().any(|event| event.contains(&format!("\"instance_id\":\"{last}\"")))
    };
    while !wanted(&heard) {
        let next = tokio::time::timeout(Duration::from_secs(30), receiver.recv()).await;
        heard.push(text(next.unwrap().unwrap()));
    }
    assert!(heard[0].starts_with("event: instance\n") && heard[0].contains(&first.to_string()));
    assert_eq!(heard[1], "event: ready\ndata: {}\n\n");
    assert_eq!(heard[2], format!("event: removed\ndata: {{\"instance_id\":\"{first}\"}}\n\n"));
    assert_eq!(heard.len(), 4, "what came and went in between is not told: {heard:?}");
    drop(receiver);
    stop.send_replace(true);
    following.abort();
}
