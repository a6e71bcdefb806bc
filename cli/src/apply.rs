//! `marram apply` and what it shares with `delete --wait`: waiting on the event stream.
//!
//! Why the stream and not asking again and again: a change shows the moment it is known, and a
//! client that waits costs the root nothing.

use std::io::Read;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::args::ApplyArgs;
use crate::client::Client;
use crate::error::Error;
use crate::events::{self, Heard};
use crate::instance::{Instance, Standing};
use crate::names::{Kind, field};
use crate::progress::Progress;
use crate::text;
use crate::ui::{Format, Ui};
use crate::view;
use crate::wait::{AWAY_SECONDS_MAX, Goal, Verdict, Wait};

/// Longest descriptor: the root takes no more, and would cut the connection in the middle.
const SLA_BYTES_MAX: u64 = 1024 * 1024;

/// Lines of the log that are shown of a workload that died.
const LAST_LINES: usize = 20;

/// Bytes of these lines: twenty long ones; a program that writes no line breaks gets no more.
const LAST_BYTES_MAX: u64 = 16 * 1024;

/// Logs shown when many died: the first ones tell what is wrong.
const LOGS_MAX: usize = 3;

/// Runs `marram apply`.
pub(crate) fn run(ui: Ui, client: &Client, args: &ApplyArgs) -> Result<(), Error> {
    let sla = read_sla(args)?;
    let answer = client.post("/api/v1/apply", &sla)?;
    let services = services(&answer);
    for service in &services {
        ui.note(&format!(
            "{} {}",
            text::line(&service.name),
            if service.created { "created" } else { "was there" }
        ));
    }
    let ids: Vec<String> = services.into_iter().flat_map(|service| service.instances).collect();
    if !args.wait.wait {
        return match ui.format {
            Format::Json => ui.print_json(&answer),
            _ => ui.print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>()),
        };
    }
    let wait = follow(ui, client, Wait::new(Goal::Up, ids), args.wait.timeout);
    let wait = wait?.map_err(|wait| not_up(ui, client, &wait))?;
    show(ui, client, answer, &wait)
}

struct Service {
    name: String,
    created: bool,
    instances: Vec<String>,
}

/// The services of the answer, named in full.
fn services(answer: &Value) -> Vec<Service> {
    let list = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let mut services = Vec::new();
    for application in list(answer, "applications") {
        for service in list(&application, "services") {
            let name = format!(
                "{}.{}.{}.{}",
                field(&application, "name"),
                field(&application, "namespace"),
                field(&service, "name"),
                field(&service, "namespace")
            );
            let ids = list(&service, "instances");
            let instances = ids.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let created = service.get("created").and_then(Value::as_bool).unwrap_or_default();
            services.push(Service { name, created, instances });
        }
    }
    services
}

fn read_sla(args: &ApplyArgs) -> Result<Vec<u8>, Error> {
    let failed = |error| Error::io("read", &args.file, error);
    let mut sla = Vec::new();
    if args.file.as_os_str() == "-" {
        std::io::stdin().take(SLA_BYTES_MAX + 1).read_to_end(&mut sla).map_err(failed)?;
    } else {
        let file = std::fs::File::open(&args.file).map_err(failed)?;
        file.take(SLA_BYTES_MAX + 1).read_to_end(&mut sla).map_err(failed)?;
    }
    if sla.len() as u64 > SLA_BYTES_MAX {
        let file = args.file.display();
        return Err(Error::Usage(format!(
            "{file} is longer than the {SLA_BYTES_MAX} bytes that a descriptor may have"
        )));
    }
    Ok(sla)
}

fn show(ui: Ui, client: &Client, mut answer: Value, wait: &Wait) -> Result<(), Error> {
    let mut items = Vec::new();
    for item in client.list(&Kind::Instance.path())? {
        if wait.known().any(|one| one.id == field(&item, "instance_id")) {
            items.push(item);
        }
    }
    if ui.format != Format::Json {
        return view::print_list(ui, Kind::Instance, &items);
    }
    if let Value::Object(answer) = &mut answer {
        answer.insert("instances".into(), Value::Array(items));
    }
    ui.print_json(&answer)
}

/// Listens until the goal is reached (`Ok(Ok)`) or cannot be (`Ok(Err)`), shows progress, and
/// gives up after `timeout` or when the server stays away.
pub(crate) fn follow(
    ui: Ui,
    client: &Client,
    mut wait: Wait,
    timeout: Duration,
) -> Result<Result<Wait, Wait>, Error> {
    let heard = events::listen(client)?;
    let mut progress = Progress::new(ui);
    let end = Instant::now() + timeout;
    let mut away: Option<Instant> = None;
    loop {
        let mut wake = end;
        match wait.verdict(Instant::now()) {
            Verdict::Done => return Ok(Ok(wait)),
            Verdict::Failed => return Ok(Err(wait)),
            Verdict::Pending(until) => wake = wake.min(until.unwrap_or(end)),
        }
        wake = wake.min(away.unwrap_or(end));
        match heard.recv_timeout(wake.saturating_duration_since(Instant::now())) {
            Ok(Heard::Opened) => {
                if away.take().is_some() {
                    progress.note("the server is back");
                }
                wait.opened();
            }
            Ok(Heard::Event(event)) => {
                if let Some(instance) = wait.heard(&event, Instant::now()) {
                    progress.show(instance);
                }
            }
            Ok(Heard::Lost(why)) => {
                wait.lost();
                if away.is_none() {
                    progress.note(&format!("{why}; trying again"));
                    away = Some(Instant::now() + Duration::from_secs(AWAY_SECONDS_MAX));
                }
            }
            Ok(Heard::Failed(error)) => return Err(error),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::Failed("the thread that reads events is gone".into()));
            }
            Err(RecvTimeoutError::Timeout) => {
                let now = Instant::now();
                if away.is_some_and(|away| away <= now) {
                    return Err(Error::Unreachable {
                        server: client.peer(),
                        reason: format!("it was away for {AWAY_SECONDS_MAX} s"),
                    });
                }
                if end <= now {
                    return Err(Error::Timeout(late(ui, client, &wait, timeout)));
                }
            }
        }
    }
}

fn late(ui: Ui, client: &Client, wait: &Wait, timeout: Duration) -> String {
    let mut text = format!("not done within {} s", timeout.as_secs());
    let late = wait.known().filter(|one| one.standing() != Standing::Up);
    text.push_str(&told_with_logs(ui, client, late));
    for id in wait.unknown() {
        text.push_str(&format!("\n  {id}: nothing was heard of it"));
    }
    text
}

/// State, detail and refusals of one instance.
fn told(instance: &Instance) -> String {
    let mut text = format!("\n  {}: {}", instance.name, instance.state);
    if instance.restarts > 0 {
        text.push_str(&format!(" after {} restarts", instance.restarts));
    }
    let why = instance.why();
    if !why.is_empty() {
        text.push_str(&format!(": {why}"));
    }
    for tried in &instance.tried {
        text.push_str(&format!("\n    tried {tried}"));
    }
    text
}

/// The error for instances that will not come up, with the last lines of those that died.
pub(crate) fn not_up(ui: Ui, client: &Client, wait: &Wait) -> Error {
    let bad = |one: &&Instance| matches!(one.standing(), Standing::Over | Standing::Stuck);
    let failed: Vec<&Instance> = wait.known().filter(bad).collect();
    let gone: Vec<&str> = wait.unknown().collect();
    let all = wait.known().count() + gone.len();
    let mut text = format!("{} of {all} instances did not come up", failed.len() + gone.len());
    text.push_str(&told_with_logs(ui, client, failed.into_iter()));
    for id in gone {
        text.push_str(&format!("\n  {id}: is not there any more"));
    }
    Error::Failed(text)
}

/// All of them; of those that ended, with the last lines that they wrote.
fn told_with_logs<'a>(
    ui: Ui,
    client: &Client,
    instances: impl Iterator<Item = &'a Instance>,
) -> String {
    let mut text = String::new();
    let mut logs = 0;
    for instance in instances {
        text.push_str(&told(instance));
        if matches!(instance.state.as_str(), "dead" | "failed") && logs < LOGS_MAX {
            logs += 1;
            text.push_str(&last_lines(ui, client, instance));
        }
    }
    text
}

fn last_lines(ui: Ui, client: &Client, instance: &Instance) -> String {
    let mut log = Vec::new();
    let read = client
        .stream(&format!("{}/logs?tail={LAST_LINES}", Kind::Instance.item_path(&instance.id)))
        .and_then(|stream| {
            stream.take(LAST_BYTES_MAX).read_to_end(&mut log).map_err(|error| client.lost(&error))
        });
    if let Err(error) = read {
        ui.note(&format!("the log of {} cannot be shown: {error}", instance.name));
    }
    let log = text::lines(&String::from_utf8_lossy(&log));
    let lines: Vec<&str> = log.lines().collect();
    let mut text = String::new();
    for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
        text.push_str("\n    | ");
        text.push_str(line);
    }
    text
}
