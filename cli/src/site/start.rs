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

use super::layout::{Ends, Facts, Site};
use super::process::{self, Identity, LOOK_MS, last_lines};
use super::tree::{Part, Shape, Tier};

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
    let tree = args.tree.clone();
    let Some(known) = site.facts()? else {
        let name = args.name.as_deref().unwrap_or(DEFAULT_NAME);
        let port = args.port.unwrap_or(DEFAULT_PORT);
        return Facts::new(name, port, tree.unwrap_or_else(Shape::one));
    };
    if let Some(tree) = tree.filter(|tree| *tree != known.tree) {
        return Err(Error::Usage(format!(
            "the site is a tree of {}, not of {tree}; `marram down --purge` it first, or name \
             another folder: --dir",
            known.tree
        )));
    }
    let name = args.name.as_ref().is_some_and(|name| *name != known.name);
    let port = args.port.is_some_and(|port| port != 0 && port != known.listen.port());
    if !name && !port {
        return Ok(known);
    }
    for part in known.tree.parts() {
        if let Some(running) = Identity::running(&site.file(&part, "pid"))? {
            return Err(Error::Usage(format!(
                "{} runs already (pid {}), as `{}` on {}; `marram down` it first to change that",
                part.title(),
                running.pid(),
                known.name,
                known.listen
            )));
        }
    }
    let name = args.name.as_deref().unwrap_or(&known.name);
    Facts::new(name, args.port.unwrap_or(known.listen.port()), known.tree)
}

struct Up {
    ui: Ui,
    site: Site,
    facts: Facts,
    bin_dir: PathBuf,
    stop: Arc<AtomicBool>,
    started: Vec<(Part, Identity)>,
}

impl Up {
    fn run(&mut self, config: Config) -> Result<(), Error> {
        let parts = self.facts.tree.parts();
        for part in &parts {
            self.bring_up(part)?;
        }
        let server = format!("http://{}", self.facts.listen);
        let client = Client::new(config, Some(&server))?;
        self.log_in(&client)?;
        let here = match self.wait_for_nodes(&client, &parts)?.as_slice() {
            [node] => format!("node {node} is here"),
            nodes => format!("{} nodes are here", nodes.len()),
        };
        let (dir, kept) = (self.site.dir().display(), client.config().path().display().to_string());
        self.ui.note(&format!(
            "{here}\n\nserver  {server}\nlogin   Admin, kept in {kept}\n\
             site    {dir} (configuration, logs and state)\n\n\
             next: marram apply FILE --wait"
        ));
        Ok(())
    }

    fn bring_up(&mut self, part: &Part) -> Result<(), Error> {
        let changed = self.site.configure(part, &self.facts)?;
        let log = self.site.file(part, "log");
        let from = log.metadata().map_or(0, |meta| meta.len());
        let running = Identity::running(&self.site.file(part, "pid"))?;
        let (mut child, identity) = match running.clone() {
            Some(identity) => (None, identity),
            None => self.start(part, &log).map(|(child, identity)| (Some(child), identity))?,
        };
        let addresses = self.wait_ready(part, child.as_mut(), &identity, &log, from)?;
        if self.learn(part, &addresses)? {
            // What it would be started with the next time.
            self.site.configure(part, &self.facts)?;
        }
        let pid = identity.pid();
        let how = if running.is_some() { "runs already" } else { "started" };
        let listens = addresses.iter().filter(|(key, _)| key.ends_with("listen"));
        let at: String = listens.map(|(_, address)| format!(", {address}")).collect();
        let width = self.facts.tree.width();
        self.ui.note(&format!("{:width$} {how} (pid {pid}{at})", part.title()));
        if running.is_some() && changed {
            self.ui.note(&format!(
                "{:width$} its configuration has changed; `marram down` and `up` put it to use",
                ""
            ));
        }
        Ok(())
    }

    fn start(&mut self, part: &Part, log: &Path) -> Result<(Child, Identity), Error> {
        let program = self.bin_dir.join(part.tier.program());
        if !program.is_file() {
            return Err(Error::Usage(format!(
                "there is no {}; say where the programs are: --bin-dir",
                program.display()
            )));
        }
        let ready = self.site.file(part, "ready");
        match std::fs::remove_file(&ready) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &ready, error));
            }
            _ => {}
        }
        let mut command = Command::new(program);
        command.arg("--config").arg(self.site.file(part, "toml")).arg("--ready-file").arg(ready);
        command.current_dir(self.site.dir());
        let (child, identity) = process::start(&mut command, log, &self.site.file(part, "pid"))?;
        self.started.push((part.clone(), identity.clone()));
        Ok((child, identity))
    }

    fn wait_ready(
        &self,
        part: &Part,
        mut child: Option<&mut Child>,
        identity: &Identity,
        log: &Path,
        from: u64,
    ) -> Result<Vec<(String, String)>, Error> {
        let end = Instant::now() + Duration::from_secs(READY_SECONDS_MAX);
        let program = part.title();
        loop {
            if let Some(addresses) = self.site.ready(part)? {
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

    /// Takes the addresses that a part really listens on; says whether they are news.
    fn learn(&mut self, part: &Part, addresses: &[(String, String)]) -> Result<bool, Error> {
        let before = self.facts.clone();
        for (key, value) in addresses {
            let address = || {
                value.parse().map_err(|_| {
                    let what = format!("a ready file has {key}={value}, which is no address");
                    Error::Failed(what)
                })
            };
            match (key.as_str(), self.facts.clusters.get_mut(&part.name)) {
                ("listen", _) => self.facts.listen = address()?,
                ("tunnel_listen", _) => self.facts.tunnel_listen = address()?,
                ("mqtt_listen", Some(Ends { mqtt_listen, .. })) => *mqtt_listen = address()?,
                ("children_listen", Some(Ends { children_listen, .. })) => {
                    *children_listen = Some(address()?);
                }
                // A later version may tell more.
                _ => {}
            }
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

    /// Waits until all nodes are known at the root, and gives their names.
    fn wait_for_nodes(&self, client: &Client, parts: &[Part]) -> Result<Vec<String>, Error> {
        let wanted: Vec<&Part> = parts.iter().filter(|part| part.tier == Tier::Node).collect();
        let end = Instant::now() + Duration::from_secs(NODE_SECONDS_MAX);
        loop {
            let mut here = Vec::new();
            for node in client.list(&Kind::Node.path())? {
                let connected = node.get("connected").and_then(serde_json::Value::as_bool);
                if connected != Some(false) {
                    here.push(crate::text::line(field(&node, "name")));
                }
            }
            if here.len() >= wanted.len() {
                return Ok(here);
            }
            self.check_interrupted()?;
            if Instant::now() >= end {
                let missing = |part: &&&Part| !here.contains(&part.name);
                let Some(part) = wanted.iter().find(missing).or(wanted.first()) else {
                    return Ok(here);
                };
                let log = self.site.file(part, "log");
                return Err(Error::Timeout(format!(
                    "{} of {} nodes were known at the root within {NODE_SECONDS_MAX} s; the end \
                     of {}:{}",
                    here.len(),
                    wanted.len(),
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
        let width = self.facts.tree.width();
        for (part, identity) in self.started.iter().rev() {
            match identity.stop() {
                Ok(_) => self.ui.note(&format!("{:width$} stopped again", part.title())),
                Err(error) => self.ui.complain(&format!("{}: {error}", part.title())),
            }
        }
    }
}
