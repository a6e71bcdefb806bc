//! Other people's clients: Eclipse Paho in Python, and Mosquitto's command-line tools.
//!
//! The same expectations of this broker and of Mosquitto.

mod common;

use std::collections::VecDeque;
use std::process::Stdio;

use common::client::{Client, Options};
use common::{DEADLINE, Target, paho_python, program};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

against_both!(
    paho_sees_what_it_should,
    mosquitto_tools_exchange_messages,
    a_killed_mosquitto_sub_leaves_its_will,
    a_mosquitto_sub_finds_its_session_again,
    requests_are_answered,
);

async fn paho_sees_what_it_should(target: &impl Target) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/drive_paho.py");
    let run = Command::new(paho_python())
        .arg(script)
        .arg(target.port().to_string())
        .kill_on_drop(true)
        .output();
    let output = timeout(4 * DEADLINE, run).await.expect("ends in time").expect("starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let mut expected = Vec::new();
    for version in ["5", "3.1.1"] {
        let line = |rest: &str| format!("{{{rest}, \"version\": \"{version}\"}}");
        expected.extend([
            line(r#""granted": [0, 1], "in_order": true, "step": "qos""#),
            line(r#""cleared": ["", false], "kept": ["kept", true], "step": "retained""#),
            line(r#""step": "will", "topic": "will/dying""#),
            line(r#""in_order": true, "present": true, "step": "session""#),
            line(r#""present": false, "step": "clean""#),
        ]);
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected, "{errors}");
}

/// A `mosquitto_sub` that has subscribed.
struct Subscriber {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Messages that came while another line was waited for.
    early: VecDeque<String>,
}

impl Subscriber {
    async fn start(target: &impl Target, version: &str, arguments: &[&str]) -> Self {
        // Line by line: by itself it writes its log to a pipe in blocks.
        let mut process = Command::new(program("stdbuf"))
            .arg("-oL")
            .arg(program("mosquitto_sub"))
            .args(["-h", "127.0.0.1", "-p", &target.port().to_string(), "-V", version, "-d"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let stdout = process.stdout.take().expect("piped");
        let mut subscriber =
            Self { process, lines: BufReader::new(stdout).lines(), early: VecDeque::new() };
        subscriber.line(|line| line.starts_with("Subscribed")).await;
        subscriber
    }

    /// The next line of a kind.
    async fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let next = async {
            loop {
                let line = self.lines.next_line().await.expect("text").expect("still running");
                if wanted(&line) {
                    return line;
                }
                self.early.extend(line.starts_with('>').then_some(line));
            }
        };
        timeout(DEADLINE, next).await.expect("a line before the deadline")
    }

    /// The next message in the form given by `-F`, which must begin with '>'.
    async fn message(&mut self) -> String {
        match self.early.pop_front() {
            Some(line) => line,
            None => self.line(|line| line.starts_with('>')).await,
        }
    }
}

async fn mosquitto_pub(target: &impl Target, arguments: &[&str]) {
    let run = Command::new(program("mosquitto_pub"))
        .args(["-h", "127.0.0.1", "-p", &target.port().to_string()])
        .args(arguments)
        .kill_on_drop(true)
        .status();
    let status = timeout(DEADLINE, run).await.expect("ends in time").expect("starts");
    assert!(status.success(), "mosquitto_pub {arguments:?}: {status}");
}

async fn mosquitto_tools_exchange_messages(target: &impl Target) {
    for version in ["mqttv5", "mqttv311"] {
        let arguments = ["-t", "t/#", "-q", "1", "-F", ">%t %q %r %p"];
        let mut subscriber = Subscriber::start(target, version, &arguments).await;
        for qos in ["0", "1"] {
            let publish = ["-V", version, "-t", "t/x", "-q", qos, "-m", "hello"];
            mosquitto_pub(target, &publish).await;
            assert_eq!(subscriber.message().await, format!(">t/x {qos} 0 hello"));
        }
        mosquitto_pub(target, &["-V", version, "-t", "t/r", "-q", "1", "-r", "-m", "kept"]).await;
        assert_eq!(subscriber.message().await, ">t/r 1 0 kept");
        let mut late = Subscriber::start(target, version, &arguments).await;
        assert_eq!(late.message().await, ">t/r 1 1 kept");
        mosquitto_pub(target, &["-V", version, "-t", "t/r", "-r", "-n"]).await;
        assert_eq!(late.message().await, ">t/r 0 0 ");
    }
}

async fn a_killed_mosquitto_sub_leaves_its_will(target: &impl Target) {
    let mut watcher = Client::connect(target.port(), &Options::v5("watcher")).await;
    watcher.subscribe("will/#", 1).await;
    for version in ["mqttv5", "mqttv311"] {
        let will = ["--will-topic", "will/x", "--will-payload", version, "--will-qos", "1"];
        let arguments = [&["-t", "t"], will.as_slice()].concat();
        let mut killed = Subscriber::start(target, version, &arguments).await;
        killed.process.kill().await.expect("was running");
        assert_eq!(watcher.message().await.text(), version);
    }
}

async fn a_mosquitto_sub_finds_its_session_again(target: &impl Target) {
    for version in ["mqttv5", "mqttv311"] {
        let lasting = ["-i", "a", "-c", "-q", "1", "-t", "t", "-F", ">%p"];
        let expiry = ["-x", "300"];
        let expiry = if version == "mqttv5" { expiry.as_slice() } else { &[] };
        let arguments = [lasting.as_slice(), expiry].concat();
        let mut first = Subscriber::start(target, version, &arguments).await;
        first.process.kill().await.expect("was running");
        for at in 0..5 {
            mosquitto_pub(target, &["-t", "t", "-q", "1", "-m", &at.to_string()]).await;
        }
        let mut second = Subscriber::start(target, version, &arguments).await;
        for at in 0..5 {
            assert_eq!(second.message().await, format!(">{at}"));
        }
        second.process.kill().await.expect("was running");
        let options = Options::version(version == "mqttv5", "a");
        Client::connect(target.port(), &options).await.disconnect().await;
    }
}

/// Request and response by MQTT 5's properties, with Mosquitto's own requester.
async fn requests_are_answered(target: &impl Target) {
    let mut server = Client::connect(target.port(), &Options::v5("server")).await;
    server.subscribe("ask", 1).await;
    let requester = Command::new(program("mosquitto_rr"))
        .args(["-h", "127.0.0.1", "-p", &target.port().to_string(), "-V", "mqttv5"])
        .args(["-t", "ask", "-e", "answer/1", "-m", "question", "-q", "1"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("starts");
    let question = server.message().await;
    assert_eq!(question.text(), "question");
    // Response topic, property 8.
    let reply_to = [[8, 0, 8].as_slice(), b"answer/1"].concat();
    assert!(question.properties.windows(reply_to.len()).any(|part| part == reply_to));
    server.publish("answer/1", b"answer", 1, false).await;
    let output = timeout(DEADLINE, requester.wait_with_output()).await.expect("ends in time");
    assert_eq!(output.expect("ran").stdout, b"answer\n");
}
