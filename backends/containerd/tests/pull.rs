//! Images from registries: mirrors, cuts, wrong bytes, locks, garbage. Needs root.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use marram_backend_api::{Backend, Cursor, ErrorKind, Event, ExitReason, Logs, Observed, Spec};
use marram_containerd::{Config, Containerd, Mirror, Registry};
use std::sync::Arc;
use std::time::Duration;
use support::image::Builder;
use support::proxy::Proxy;
use support::registry::{PASSWORD, Server, USER};
use support::{Host, IMAGE, PATIENCE, Recorder, id};

/// Enough for several cuts and pieces.
const NOISE_BYTES: usize = 6 << 20;

fn host() -> (Host, Server) {
    let host = Host::empty("runc");
    let server = Server::start(host.dir.path());
    (host, server)
}

fn backend(config: Config) -> (Containerd, Arc<Recorder>) {
    let backend = Containerd::new(config).unwrap();
    let events = Arc::new(Recorder::default());
    backend.watch(events.clone());
    (backend, events)
}

/// Runs a workload to its end and returns what it printed.
async fn output(backend: &Containerd, events: &Recorder, name: &str, spec: &Spec) -> String {
    let id = id(name);
    let handle = backend.prepare(&id, spec).await.unwrap();
    backend.start(&handle).await.unwrap();
    let ended = |event: &Event| match event {
        Event::Exited(of, exit) if *of == id => Some(exit.reason),
        _ => None,
    };
    assert_eq!(events.first("the end", ended).await, ExitReason::Code(0));
    let wait = async { while backend.wait(&id, Cursor(u64::MAX)).await.unwrap() {} };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
    let chunk = backend.read(&id, Cursor(0), 1 << 20).await.unwrap();
    backend.destroy(&id).await.unwrap();
    String::from_utf8(chunk.bytes).unwrap()
}

/// What the garbage collector would take is taken now.
fn collect_garbage(host: &Host) {
    host.ctr(&["leases", "create", "--id", "collector"]);
    host.ctr(&["leases", "delete", "--sync", "collector"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_docker_io_comes_from_its_mirror_and_stays() {
    let (host, server) = host();
    server.push(&Builder::busybox(), "library/busybox", "latest");
    let (backend, events) = backend(host.config_with_mirror(server.port));
    let mut spec = host.script("");
    spec.args.clear();
    assert_eq!(output(&backend, &events, "first", &spec).await, "from-the-image\n");
    let progress = events.all().into_iter().filter_map(|event| match event {
        Event::Progress(_, done, all) => Some((done, all)),
        _ => None,
    });
    let progress: Vec<(u64, u64)> = progress.collect();
    assert!(progress.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{progress:?}");
    let last = progress.last().copied().unwrap();
    assert!(last.0 == last.1 && last.1 > 100_000, "{progress:?}");
    // Without the registry, without the lease, after a collection: the image is there.
    drop(server);
    collect_garbage(&host);
    assert_eq!(host.ctr(&["leases", "ls", "-q"]), "");
    assert_eq!(output(&backend, &events, "offline", &spec).await, "from-the-image\n");
    let fresh = Containerd::new(host.config()).unwrap();
    fresh.prepare(&id("fresh"), &spec).await.unwrap();
    fresh.destroy(&id("fresh")).await.unwrap();
    assert!(host.leftovers().is_empty(), "{:?}", host.leftovers());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_download_goes_on_where_it_was() {
    let (host, server) = host();
    let image = Builder::busybox().with_noise(NOISE_BYTES);
    let built = server.push(&image, "library/busybox", "latest");
    let proxy = Proxy::start(server.port, built.layer_bytes / 4).await;
    let (backend, events) = backend(host.config_with_mirror(proxy.port));
    assert_eq!(output(&backend, &events, "cut", &host.script("echo whole")).await, "whole\n");
    assert!(proxy.cuts() >= 3, "{} cuts", proxy.cuts());
    // Manifest, configuration and headers are small; a layer fetched anew is not.
    let most = built.layer_bytes + (1 << 20);
    assert!(proxy.bytes() <= most, "{} bytes for {most}", proxy.bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_image_outlives_engine_and_collector() {
    let (host, server) = host();
    let image = Builder::busybox().with_noise(NOISE_BYTES);
    let built = server.push(&image, "library/busybox", "latest");
    let proxy = Proxy::start(server.port, u64::MAX).await;
    {
        let (backend, events) = backend(host.config_with_mirror(proxy.port));
        let half = |event: &Event| match event {
            Event::Progress(_, done, all) => (*done > all / 3).then_some(()),
            _ => None,
        };
        let (name, spec) = (id("half"), host.script("true"));
        // The engine dies in the middle of the pull.
        tokio::select! {
            outcome = backend.prepare(&name, &spec) => panic!("was not cut: {outcome:?}"),
            () = events.first("a third of the image", half) => {}
        }
    }
    collect_garbage(&host);
    let before = proxy.bytes();
    let (backend, events) = backend(host.config_with_mirror(proxy.port));
    assert_eq!(output(&backend, &events, "rest", &host.script("echo whole")).await, "whole\n");
    let rest = proxy.bytes() - before;
    assert!(rest < built.layer_bytes * 3 / 4, "{rest} of {} were fetched", built.layer_bytes);
    collect_garbage(&host);
    assert_eq!(host.ctr(&["content", "active"]).lines().count(), 1, "only the heading is left");
    assert_eq!(host.ctr(&["leases", "ls", "-q"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_never_kept() {
    let (host, server) = host();
    let built = server.push(&Builder::busybox(), "library/busybox", "latest");
    let blob = server.blob(&built.layer);
    let good = std::fs::read(&blob).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&blob, bad).unwrap();
    let (backend, events) = backend(host.config_with_mirror(server.port));
    let error = backend.prepare(&id("bad"), &host.script("true")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal, "{}", error.chain());
    assert!(error.chain().contains("wrong contents"), "{}", error.chain());
    assert_eq!(backend.list().await.unwrap(), []);
    assert!(!host.ctr(&["content", "ls", "-q"]).contains(&built.layer));
    std::fs::write(&blob, good).unwrap();
    assert_eq!(output(&backend, &events, "good", &host.script("echo fine")).await, "fine\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_as_one() {
    // Less than the image, more than containerd's own files.
    let host = Host::on_small_disk("runc", 5);
    let server = Server::start(host.dir.path());
    let image = Builder::busybox().with_noise(NOISE_BYTES);
    server.push(&image, "library/busybox", "latest");
    let (backend, _) = backend(host.config_with_mirror(server.port));
    let error = backend.prepare(&id("full"), &host.script("true")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Exhausted, "{}", error.chain());
    assert_eq!(backend.list().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_registry_has_is_not_found() {
    let (host, server) = host();
    let (backend, _) = backend(host.config_with_mirror(server.port));
    let mut spec = host.script("true");
    spec.image = "nobody/nothing:at-all".into();
    let error = backend.prepare(&id("nothing"), &spec).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{}", error.chain());
    assert!(error.to_string().contains("404"), "{error}");
    drop(server);
    let error = backend.prepare(&id("nothing"), &spec).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_spoken_to_named_mirrors_only() {
    let (host, server) = host();
    server.push(&Builder::busybox(), "library/busybox", "latest");
    let mut config = host.config();
    let url = format!("http://127.0.0.1:{}", server.port);
    let mirror = Mirror { url: url.clone(), insecure: false };
    let registry = Registry { mirrors: vec![mirror], mirrors_only: true };
    config.registries.insert("docker.io".into(), registry);
    assert_eq!(Containerd::new(config.clone()).unwrap_err().kind, ErrorKind::Invalid);
    // By name, without a word in the configuration: TLS, which this registry does not speak.
    config.registries.clear();
    let (backend, _) = backend(config.clone());
    let mut spec = host.script("true");
    let name = format!("127.0.0.1:{}", server.port);
    spec.image = format!("{name}/library/busybox:latest");
    let error = backend.prepare(&id("plain"), &spec).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{}", error.chain());
    // The same registry, named insecure as its own mirror.
    let registry = Registry { mirrors: vec![Mirror { url, insecure: true }], mirrors_only: true };
    config.registries.insert(name, registry);
    let backend = Containerd::new(config).unwrap();
    backend.prepare(&id("plain"), &spec).await.unwrap();
    assert_eq!(backend.list().await.unwrap(), [(id("plain"), Observed::Prepared)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_open_a_locked_registry() {
    let host = Host::empty("runc");
    let server = Server::locked(host.dir.path());
    server.push(&Builder::busybox(), "library/busybox", "latest");
    let mut config = host.config_with_mirror(server.port);
    let (name, spec) = (id("locked"), host.script("true"));
    let refused = |backend: Containerd| {
        let (name, spec) = (name.clone(), spec.clone());
        async move { backend.prepare(&name, &spec).await.unwrap_err() }
    };
    let error = refused(Containerd::new(config.clone()).unwrap()).await;
    assert_eq!(error.kind, ErrorKind::NotFound, "{}", error.chain());
    assert!(error.to_string().contains("wants credentials"), "{error}");
    let file = host.dir.path().join("credentials.json");
    let write = |host: &str, password: &str| {
        let entry = serde_json::json!({ "username": USER, "password": password });
        let text = serde_json::json!({ "auths": { host: entry } });
        std::fs::write(&file, text.to_string()).unwrap();
    };
    config.credentials_file = Some(file.clone());
    let address = format!("127.0.0.1:{}", server.port);
    write(&address, "wrong");
    let error = refused(Containerd::new(config.clone()).unwrap()).await;
    assert!(error.to_string().contains("401"), "{error}");
    assert!(!error.chain().contains("wrong"), "{}", error.chain());
    // Those of docker.io are not for its mirror.
    write("https://index.docker.io/v1/", PASSWORD);
    let error = refused(Containerd::new(config.clone()).unwrap()).await;
    assert!(error.to_string().contains("wants credentials"), "{error}");
    write(&address, PASSWORD);
    // The file is read at each pull: the same object that was refused would do as well.
    Containerd::new(config).unwrap().prepare(&name, &spec).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pulls_of_one_image_are_one() {
    let (host, server) = host();
    let image = Builder::busybox().with_noise(NOISE_BYTES);
    let built = server.push(&image, "library/busybox", "latest");
    let proxy = Proxy::start(server.port, u64::MAX).await;
    let (backend, _) = backend(host.config_with_mirror(proxy.port));
    let backend = Arc::new(backend);
    let pulls = (0..4).map(|number| {
        let (backend, spec) = (backend.clone(), host.script("true"));
        let name = id(&format!("many-{number}"));
        tokio::spawn(async move { backend.prepare(&name, &spec).await.unwrap() })
    });
    for pull in pulls.collect::<Vec<_>>() {
        pull.await.unwrap();
    }
    assert!(proxy.bytes() < built.layer_bytes * 2, "{} bytes", proxy.bytes());
    assert_eq!(backend.list().await.unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_layers_are_unpacked_again() {
    let (host, server) = host();
    server.push(&Builder::busybox(), "library/busybox", "latest");
    let (backend, events) = backend(host.config_with_mirror(server.port));
    assert_eq!(output(&backend, &events, "before", &host.script("echo one")).await, "one\n");
    // An administrator removes the image; its description is still in our memory.
    host.ctr(&["image", "rm", "--sync", IMAGE]);
    assert_eq!(output(&backend, &events, "after", &host.script("echo two")).await, "two\n");
    let snapshots = host.ctr(&["snapshot", "--snapshotter", "overlayfs", "ls"]);
    let committed = snapshots.lines().find(|line| line.contains("Committed")).unwrap();
    let key = committed.split_whitespace().next().unwrap();
    host.ctr(&["snapshot", "--snapshotter", "overlayfs", "rm", key]);
    assert_eq!(output(&backend, &events, "again", &host.script("echo three")).await, "three\n");
}

/// A wait that is bounded, for the tests' own use.
#[tokio::test]
async fn the_bad_connection_counts_and_cuts() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            drop(tokio::io::AsyncWriteExt::write_all(&mut socket, &[7; 1000]).await);
        }
    });
    let proxy = Proxy::start(port, 300).await;
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
    let mut all = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut all);
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
    assert_eq!((all.len(), proxy.bytes(), proxy.cuts()), (300, 300, 1));
    proxy.cut_after(0);
}
