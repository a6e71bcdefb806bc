//! Input of programs inside instances, from the operator's pipe through all three tiers.

#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use marram_e2e::{Api, Site, programs, wait_for};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{PipeWriter, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// What is sent, many times of what all queues on the way hold together.
const INPUT_BYTES: u64 = 64 * 1024 * 1024;

/// What is granted at once, twice.
const WINDOW_BYTES: usize = 128 * 1024;

/// Room for what is on its way when nobody reads: buffers of sockets, pipes and processes. Far
/// less than all there is to send.
const ON_ITS_WAY_BYTES_MAX: usize = 16 * 1024 * 1024;

fn service(name: &str, command: &[&str]) -> Value {
    json!({
        "microserviceID": "", "microservice_name": name, "microservice_namespace": "test",
        "virtualization": "native", "code": command[0], "cmd": command[1..],
        "memory": 100, "vcpus": 0
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

struct Scene {
    site: Site,
    api: Api,
}

impl Scene {
    fn new() -> Self {
        let site = Site::start("").unwrap();
        let api = site.api().unwrap();
        api.apply(&sla(&[service("host", &["/bin/sleep", "4714"])])).unwrap();
        wait_for("running", || api.all_are("running", 1).then_some(())).unwrap();
        let scene = Self { site, api };
        let password = scene.path("root/admin-password");
        let mut login = scene.marram(&["login", "--password-file", password.to_str().unwrap()]);
        done(login.output().unwrap());
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.folder().join(name)
    }

    fn id(&self, name: &str) -> String {
        let instance = self.api.instance(name).unwrap();
        instance["instance_id"].as_str().unwrap().to_owned()
    }

    /// The operator's command, logged in at this site.
    fn marram(&self, args: &[&str]) -> Command {
        let mut command = Command::new(programs().unwrap().join("marram"));
        command.args(["--server", self.api.base(), "--config"]).arg(self.path("cli.toml"));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A script inside the instance, with this as its input.
    fn exec(&self, script: &str, input: impl Into<Stdio>) -> Child {
        let id = self.id("app.test.host");
        let mut command = self.marram(&["exec", &id, "--", "sh", "-c", script]);
        command.stdin(input).spawn().unwrap()
    }
}

/// What a command printed, if it went well.
fn done(output: Output) -> String {
    let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {err}", output.status);
    String::from_utf8(out).unwrap()
}

/// Writes zeros for as long as they are wanted.
struct Source {
    sent: Arc<AtomicUsize>,
    enough: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Source {
    fn start(mut writer: PipeWriter) -> Self {
        let (sent, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stop) = (sent.clone(), enough.clone());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let written = writer.write(&[0; 16 * 1024]).expect("the client reads on");
                count.fetch_add(written, Ordering::SeqCst);
            }
        });
        Self { sent, enough, thread }
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    fn end(self) -> usize {
        self.enough.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
        self.sent.load(Ordering::SeqCst)
    }
}

#[test]
fn a_large_input_arrives_whole() {
    let scene = Scene::new();
    let file = scene.path("zeros");
    File::create(&file).unwrap().set_len(INPUT_BYTES).unwrap();
    let count = scene.exec("wc -c", File::open(&file).unwrap());
    let count = done(count.wait_with_output().unwrap());
    assert_eq!(count.trim().parse::<u64>().unwrap(), INPUT_BYTES);
    // There and back at once, so that each direction has to wait for the other.
    let text: Vec<u8> = (0..1_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    fs::write(&file, &text).unwrap();
    let same = scene.exec("cat", File::open(&file).unwrap()).wait_with_output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stderr));
    assert!(same.stdout == text, "{} of {} bytes came back", same.stdout.len(), text.len());
    // A program that takes only the beginning ends like any other.
    let first = scene.exec("head -c 7 | wc -c", File::open(&file).unwrap());
    assert_eq!(done(first.wait_with_output().unwrap()).trim(), "7");
}

#[test]
fn a_program_that_does_not_read_holds_up_its_client_only() {
    let scene = Scene::new();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(scene.site.folder(), open).unwrap();
    let go = scene.path("go");
    assert!(Command::new("mkfifo").args(["-m", "666"]).arg(&go).status().unwrap().success());
    let (reader, writer) = std::io::pipe().unwrap();
    let script = format!("echo here; read word < {}; wc -c", go.display());
    let mut slow = scene.exec(&script, reader);
    let mut first = [0; 5];
    slow.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"here\n");
    let source = Source::start(writer);
    wait_for("more than a window", || (source.sent() > WINDOW_BYTES).then_some(())).unwrap();
    // Other streams and states go their way meanwhile, in both directions.
    let small = scene.path("small");
    fs::write(&small, vec![b'x'; 1_000_000]).unwrap();
    let other = scene.exec("cat", File::open(&small).unwrap());
    assert_eq!(done(other.wait_with_output().unwrap()).len(), 1_000_000);
    assert!(scene.api.all_are("running", 1));
    assert!(slow.try_wait().unwrap().is_none(), "it was broken off");
    let held = source.sent();
    assert!(held < ON_ITS_WAY_BYTES_MAX, "{held} bytes are held by somebody");
    fs::write(&go, "now\n").unwrap();
    wait_for("it to go on", || (source.sent() > 2 * held).then_some(())).unwrap();
    let sent = source.end();
    let count = done(slow.wait_with_output().unwrap());
    assert_eq!(count.trim().parse::<usize>().unwrap(), sent);
}

#[test]
fn what_cannot_be_run_is_said_as_it_is() {
    let scene = Scene::new();
    let mut job = service("job", &["/bin/true"]);
    job["one_shot"] = json!(true);
    scene.api.apply(&sla(&[job])).unwrap();
    let over = |i: &Value| i["state"] == "completed";
    wait_for("its end", || scene.api.instance("app.test.job").filter(over)).unwrap();
    let said = |name: &str, program: &str| {
        let id = scene.id(name);
        let output = scene.marram(&["exec", &id, "--", program]).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let missing = said("app.test.host", "no-such-program");
    let why = "not found: looking for the program: \"no-such-program\" is in none";
    assert!(missing.contains(why), "{missing}");
    let ended = said("app.test.job", "true");
    assert!(ended.contains("not found: looking for the running workload: "), "{ended}");
    assert!(ended.contains(" has ended with code 0"), "{ended}");
}
