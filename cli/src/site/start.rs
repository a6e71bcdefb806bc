//! `marram up`: starts what is missing of a site and waits until it is of use.
//!
//! Why in this order: each tier dials the one before it, and with port 0 its address is known
//! only once it is ready.
//!
//! Invariant: when it fails or is interrupted, what it started is stopped again, and what ran
//! before is left running.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::args::{Global, UpArgs};
use crate::client::Client;
use crate::commands::first_line;
use crate::config::Config;
use crate::error::Error;
use crate::names::{Kind, field};
use crate::terminal::ENDING;
use crate::ui::Ui;

use super::layout::{Facts, Site, Tier};
use super::process::{self, Identity, LOOK_MS, last_lines};

/// How long a program may take to be ready: on a slow board with a full journal to replay.
const READY_SECONDS_MAX: u64 = 60;

/// How long a node may take to be known at the root, once all three are ready.
const NODE_SECONDS_MAX: u64 = 60;

/// Pause between two questions for nodes.
const ASK_MS: u64 = 100;

const DEFAULT_PORT: u16 = 10_000;
const DEFAULT_NAME: &str = "local";

/// Runs `marram up`.
pub(crate) fn up(ui: Ui, global: &Global, args: &UpArgs) -> Result<(), Error> {
    let site = Site::create(args.dir.as_deref())?;
    let config = Config::load(global.config.as_deref())?;
    let bin_dir = bin_dir(args.bin_dir.as_deref())?;
    if let Some(extra) = &args.node_config {
        site.keep_node_extra(extra)?;
    }
    let facts = facts(&site, args)?;
    site.remember(&facts)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in ENDING {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Error::io("take over", "a signal", error))?;
    }
    let mut up = Up { ui, site, facts, bin_dir, stop, started: Vec::new() };
    up.run(config).inspect_err(|_| up.undo())
}

/// Where the programs are.
pub(super) fn bin_dir(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(given) = given {
        return given.canonicalize().map_err(|error| Error::io("open", given, error));
    }
    let own = std::env::current_exe().and_then(|own| own.canonicalize());
    let own = own.map_err(|error| Error::io("find", "this program", error))?;
    Ok(own.parent().map(Path::to_owned).unwrap_or_default())
}

/// What the site is to be: as remembered, unless something else is asked for and nothing runs.
fn facts(site: &Site, args: &UpArgs) -> Result<Facts, Error> {
    let Some(known) = site.facts()? else {
        let name = args.name.as_deref().unwrap_or(DEFAULT_NAME);
        return Facts::new(name, args.port.unwrap_or(DEFAULT_PORT));
    };
    let name = args.name.as_ref().is_some_and(|name| *name != known.name);
    let port = args.port.is_some_and(|port| port != 0 && port != known.listen.port());
    if !name && !port {
        return Ok(known);
    }
    for tier in Tier::ALL {
        if let Some(running) = Identity::running(&site.file(tier, "pid"))? {
            return Err(Error::Usage(format!(
                "{} runs already (pid {}), as `{}` on {}; `marram down` it first to change that",
                tier.program(),
                running.pid(),
                known.name,
                known.listen
            )));
        }
    }
    let name = args.name.as_deref().unwrap_or(&known.name);
    Facts::new(name, args.port.unwrap_or(known.listen.port()))
}

struct Up {
    ui: Ui,
    site: Site,
    facts: Facts,
    bin_dir: PathBuf,
    stop: Arc<AtomicBool>,
    started: Vec<(Tier, Identity)>,
}

impl Up {
    fn run(&mut self, config: Config) -> Result<(), Error> {
        for tier in Tier::ALL {
            self.bring_up(tier)?;
        }
        let server = format!("http://{}", self.facts.listen);
        let client = Client::new(config, Some(&server))?;
        self.log_in(&client)?;
        let node = self.wait_for_node(&client)?;
        let (dir, kept) = (self.site.dir().display(), client.config().path().display().to_string());
        self.ui.note(&format!(
            "node {node} is here\n\nserver  {server}\nlogin   Admin, kept in {kept}\n\
             site    {dir} (configuration, logs and state)\n\n\
             next: marram apply FILE --wait"
        ));
        Ok(())
    }

    fn bring_up(&mut self, tier: Tier) -> Result<(), Error> {
        let changed = self.site.configure(tier, &self.facts)?;
        let log = self.site.file(tier, "log");
        let from = log.metadata().map_or(0, |meta| meta.len());
        let running = Identity::running(&self.site.file(tier, "pid"))?;
        let (mut child, identity) = match running.clone() {
            Some(identity) => (None, identity),
            None => self.start(tier, &log).map(|(child, identity)| (Some(child), identity))?,
        };
        let addresses = self.wait_ready(tier, child.as_mut(), &identity, &log, from)?;
        if self.learn(&addresses)? {
            // What it would be started with the next time.
            self.site.configure(tier, &self.facts)?;
        }
        let pid = identity.pid();
        let how = if running.is_some() { "runs already" } else { "started" };
        let listens = addresses.iter().filter(|(key, _)| key.ends_with("listen"));
        let at: String = listens.map(|(_, address)| format!(", {address}")).collect();
        self.ui.note(&format!("{:15} {how} (pid {pid}{at})", tier.program()));
        if running.is_some() && changed {
            self.ui.note(&format!(
                "{:15} its configuration has changed; `marram down` and `up` put it to use",
                ""
            ));
        }
        Ok(())
    }

    fn start(&mut self, tier: Tier, log: &Path) -> Result<(Child, Identity), Error> {
        let program = self.bin_dir.join(tier.program());
        if !program.is_file() {
            return Err(Error::Usage(format!(
                "there is no {}; say where the programs are: --bin-dir",
                program.display()
            )));
        }
        let ready = self.site.file(tier, "ready");
        match std::fs::remove_file(&ready) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &ready, error));
            }
            _ => {}
        }
        let mut command = Command::new(program);
        command.arg("--config").arg(self.site.file(tier, "toml")).arg("--ready-file").arg(ready);
        command.current_dir(self.site.dir());
        let (child, identity) = process::start(&mut command, log, &self.site.file(tier, "pid"))?;
        self.started.push((tier, identity.clone()));
        Ok((child, identity))
    }

    fn wait_ready(
        &self,
        tier: Tier,
        mut child: Option<&mut Child>,
        identity: &Identity,
        log: &Path,
        from: u64,
    ) -> Result<Vec<(String, String)>, Error> {
        let end = Instant::now() + Duration::from_secs(READY_SECONDS_MAX);
        let program = tier.program();
        loop {
            if let Some(addresses) = self.site.ready(tier)? {
                return Ok(addresses);
            }
            self.check_interrupted()?;
            let ended = match child.as_mut().map(|child| child.try_wait()) {
                Some(Ok(Some(status))) => Some(format!(" ({status})")),
                Some(Err(error)) => return Err(Error::io("watch", program, error)),
                Some(Ok(None)) => None,
                None => (!identity.is_running()?).then(String::new),
            };
            if let Some(how) = ended {
                return Err(Error::Failed(format!(
                    "{program} ended before it was ready{how}; the end of {}:{}",
                    log.display(),
                    last_lines(log, from)
                )));
            }
            if Instant::now() >= end {
                return Err(Error::Timeout(format!(
                    "{program} was not ready within {READY_SECONDS_MAX} s; the end of {}:{}",
                    log.display(),
                    last_lines(log, from)
                )));
            }
            std::thread::sleep(Duration::from_millis(LOOK_MS));
        }
    }

    /// Takes the addresses that a tier really listens on; says whether they are news.
    fn learn(&mut self, addresses: &[(String, String)]) -> Result<bool, Error> {
        let before = self.facts.clone();
        for (key, value) in addresses {
            let place = match key.as_str() {
                "listen" => &mut self.facts.listen,
                "tunnel_listen" => &mut self.facts.tunnel_listen,
                "mqtt_listen" => &mut self.facts.mqtt_listen,
                // A later version may tell more.
                _ => continue,
            };
            *place = value.parse().map_err(|_| {
                Error::Failed(format!("a ready file has {key}={value}, which is no address"))
            })?;
        }
        if self.facts == before {
            return Ok(false);
        }
        self.site.remember(&self.facts).map(|()| true)
    }

    fn log_in(&self, client: &Client) -> Result<(), Error> {
        let path = self.site.admin_password();
        let file = std::fs::File::open(&path);
        let password =
            file.and_then(first_line).map_err(|error| Error::io("read", &path, error))?;
        match client.login("Admin", &password) {
            // The password was changed since; a login that is kept is as good.
            Err(Error::Server(problem)) if problem.status == 401 => {
                client.list(&Kind::Node.path()).map(drop)
            }
            outcome => outcome,
        }
    }

    fn wait_for_node(&self, client: &Client) -> Result<String, Error> {
        let end = Instant::now() + Duration::from_secs(NODE_SECONDS_MAX);
        loop {
            for node in client.list(&Kind::Node.path())? {
                let connected = node.get("connected").and_then(serde_json::Value::as_bool);
                if connected != Some(false) {
                    return Ok(crate::text::line(field(&node, "name")));
                }
            }
            self.check_interrupted()?;
            if Instant::now() >= end {
                let log = self.site.file(Tier::Node, "log");
                return Err(Error::Timeout(format!(
                    "no node was known at the root within {NODE_SECONDS_MAX} s; the end of {}:{}",
                    log.display(),
                    last_lines(&log, 0)
                )));
            }
            std::thread::sleep(Duration::from_millis(ASK_MS));
        }
    }

    fn check_interrupted(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Failed("interrupted".into()));
        }
        Ok(())
    }

    /// Stops what was started here, last first.
    fn undo(&self) {
        for (tier, identity) in self.started.iter().rev() {
            match identity.stop() {
                Ok(_) => self.ui.note(&format!("{:15} stopped again", tier.program())),
                Err(error) => self.ui.complain(&format!("{}: {error}", tier.program())),
            }
        }
    }
}
