//! The shell with a store that fails, and with what an interrupted change has left behind.

use super::*;
use crate::auth::Access;
use crate::catalog::Draft;
use crate::storage::Key;
use marram_store::{
    Changes, Entry, LeaseId, MemoryStore, Outcome, Page, Result as StoreResult, Txn,
};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

fn draft(services: &[&str]) -> Draft {
    let services: Vec<_> = services
        .iter()
        .map(|name| {
            serde_json::json!({
                "microservice_name": name, "microservice_namespace": "t",
                "virtualization": "native", "code": "/bin/true",
            })
        })
        .collect();
    let document = serde_json::json!({
        "sla_version": "v2.0", "customerID": "",
        "applications": [{
            "application_name": "shop", "application_namespace": "t", "microservices": services,
        }],
    });
    Draft::parse(document.to_string().as_bytes()).unwrap()
}

fn admin() -> Access {
    Access::of("Admin", true)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    let limit = std::time::Duration::from_secs(30);
    runtime.block_on(async { tokio::time::timeout(limit, future).await }).unwrap()
}

/// A store whose disk fills up when told so.
#[derive(Debug, Default)]
struct Full {
    inner: MemoryStore,
    full: AtomicBool,
}

impl Store for Full {
    fn revision(&self) -> u64 {
        self.inner.revision()
    }

    fn get(&self, key: &[u8]) -> StoreResult<Option<Entry>> {
        self.inner.get(key)
    }

    fn range(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> StoreResult<Page> {
        self.inner.range(prefix, after, limit)
    }

    fn txn(&self, txn: &Txn) -> StoreResult<Outcome> {
        if self.full.load(Ordering::Relaxed) {
            let source = Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull));
            let (doing, at) = ("writing", "test".to_owned());
            return Err(marram_store::Error::Backing { doing, at, source });
        }
        self.inner.txn(txn)
    }

    fn changes_since(&self, revision: u64, limit: usize) -> StoreResult<Changes> {
        self.inner.changes_since(revision, limit)
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.subscribe()
    }

    fn grant(&self, ttl_ms: u64, now_ms: u64) -> StoreResult<LeaseId> {
        self.inner.grant(ttl_ms, now_ms)
    }

    fn keep_alive(&self, lease: LeaseId, now_ms: u64) -> StoreResult<()> {
        self.inner.keep_alive(lease, now_ms)
    }

    fn revoke(&self, lease: LeaseId) -> StoreResult<()> {
        self.inner.revoke(lease)
    }

    fn expire(&self, now_ms: u64) -> StoreResult<Vec<LeaseId>> {
        self.inner.expire(now_ms)
    }

    fn next_expiry_ms(&self) -> Option<u64> {
        self.inner.next_expiry_ms()
    }

    fn compact(&self, revision: u64) -> StoreResult<()> {
        self.inner.compact(revision)
    }
}

#[test]
fn what_cannot_be_made_durable_is_not_acknowledged_and_ends_the_task() {
    block_on(async {
        let store = Arc::new(Full::default());
        let (shell, handle, _children) =
            Shell::open(store.clone(), Clock::start(), String::new()).unwrap();
        let running = tokio::spawn(shell.run(std::future::pending()));
        handle.create(admin(), draft(&["a"])).await.unwrap();
        let revision = store.revision();
        let twice = handle.create(admin(), draft(&["a"])).await.unwrap_err();
        assert_eq!(twice.status(), 409);
        assert_eq!(store.revision(), revision, "a refusal writes nothing");
        store.full.store(true, Ordering::Relaxed);
        // Reading goes on until somebody wants to write.
        assert_eq!(handle.read(|view| view.catalog.services(&admin()).count()).await, Ok(1));
        let applied = handle.apply(admin(), draft(&["a", "b"])).await.unwrap_err();
        assert_eq!(applied, Refusal::Busy("the root is stopping".into()));
        assert!(matches!(running.await.unwrap(), Err(ShellError::Storage(_))));

        store.full.store(false, Ordering::Relaxed);
        let (shell, ..) = Shell::open(store, Clock::start(), String::new()).unwrap();
        assert_eq!(shell.catalog.services(&admin()).count(), 1);
        assert!(shell.tier.instances().is_empty());
    });
}

/// An application with one service and one instance, as a store holds it.
fn filled() -> (Arc<MemoryStore>, ApplicationRow) {
    let store = Arc::new(MemoryStore::new());
    let (mut shell, ..) = Shell::open(store.clone(), Clock::start(), String::new()).unwrap();
    let applied = shell.apply(&admin(), draft(&["a"])).unwrap();
    shell.settle().unwrap();
    let service = applied[0].services[0].service;
    (store, ApplicationRow { application: applied[0].application, service })
}

struct ApplicationRow {
    application: marram_protocol::id::ApplicationId,
    service: ServiceId,
}

#[test]
fn a_change_cut_short_is_finished_at_the_next_start() {
    // An application was removed, and the power failed before its service was.
    let (store, row) = filled();
    storage::commit(&*store, vec![(Key::Application(row.application).encode(), None)]).unwrap();
    let (shell, ..) = Shell::open(store.clone(), Clock::start(), String::new()).unwrap();
    assert!(shell.tier.instances().is_empty() && shell.catalog.removed().is_empty());
    assert!(storage::load(&*store, b"root/s/").unwrap().is_empty());
    assert!(storage::load(&*store, b"core/i").unwrap().is_empty());

    // A service was forgotten, and an instance of it is still in the core's books.
    let (store, row) = filled();
    let keys = [Key::Service(row.service), Key::Counter(row.service)];
    let writes = keys.iter().map(|key| (key.encode(), None)).collect();
    storage::commit(&*store, writes).unwrap();
    let (shell, ..) = Shell::open(store.clone(), Clock::start(), String::new()).unwrap();
    assert!(shell.tier.instances().is_empty());
    assert!(storage::load(&*store, b"core/i").unwrap().is_empty());

    // Its last instance was gone, and the power failed before the service was forgotten.
    let (store, row) = filled();
    let removed = crate::catalog::Counter { next_instance_number: 1, removed: true };
    let mut writes = vec![(Key::Counter(row.service).encode(), Some(storage::encode(&removed)))];
    let instances = storage::load(&*store, b"core/i").unwrap();
    writes.extend(instances.into_iter().map(|(key, _)| (key, None)));
    storage::commit(&*store, writes).unwrap();
    let (shell, ..) = Shell::open(store.clone(), Clock::start(), String::new()).unwrap();
    assert!(shell.catalog.removed().is_empty());
    assert!(storage::load(&*store, b"root/s/").unwrap().is_empty());

    // Whole state stays as it is.
    let (store, row) = filled();
    let (mut shell, ..) = Shell::open(store, Clock::start(), String::new()).unwrap();
    assert!(shell.catalog.application(&admin(), row.application).is_ok());
    assert_eq!(shell.tier.instances().len(), 1);
    assert_eq!(shell.deploy(&admin(), row.service).unwrap().number, 1);
}

#[test]
fn watchers_are_told_of_each_change_after_it_is_durable() {
    block_on(async {
        let store = Arc::new(MemoryStore::new());
        let (shell, handle, _children) =
            Shell::open(store.clone(), Clock::start(), String::new()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(shell.run(async { drop(stopped.await) }));
        let mut changes = handle.read(|view| view.subscribe()).await.unwrap();
        let applied = handle.apply(admin(), draft(&["a"])).await.unwrap();
        let id = applied[0].services[0].instances[0];
        let change = changes.recv().await.unwrap();
        assert_eq!((change.id, change.owner.as_str()), (id, "Admin"));
        assert!(change.now.is_some());
        handle.remove_application(admin(), applied[0].application).await.unwrap();
        let change = changes.recv().await.unwrap();
        assert_eq!((change.id, &change.now), (id, &None));
        assert!(storage::load(&*store, b"root/").unwrap().is_empty());
        drop(stop);
        running.await.unwrap().unwrap();
        assert_eq!(handle.read(|_| ()).await.unwrap_err().status(), 503);
    });
}
