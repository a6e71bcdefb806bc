//! `marram down`: ends the workloads and the three programs of a site.
//!
//! Why the node first: its workloads outlive it, so it is asked to end them while it can.
//!
//! Invariant: a folder is removed only if it is a site, its workloads are gone, and nothing is
//! mounted below it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::args::{DownArgs, Global};
use crate::config::Config;
use crate::error::Error;
use crate::server::Server;
use crate::ui::Ui;

use super::layout::Site;
use super::process::{Identity, LOOK_MS, last_lines};
use super::start::bin_dir;
use super::tree::{Part, Shape, Tier};

/// How long the node may take to end its workloads: many of them with a long grace each.
const DRAIN_SECONDS_MAX: u64 = 300;

/// Runs `marram down`.
pub(crate) fn down(ui: Ui, global: &Global, args: &DownArgs) -> Result<(), Error> {
    let Some(site) = Site::open(args.dir.as_deref())? else {
        ui.note("there is no site here, so nothing to stop");
        return Ok(());
    };
    let tree = site.facts()?.map_or_else(Shape::one, |facts| facts.tree);
    let mut running = Vec::new();
    for part in tree.parts().into_iter().rev() {
        let process = Identity::running(&site.file(&part, "pid"))?;
        running.push((part, process));
    }
    // It ends the nodes as well.
    let mut drained = Ok(());
    if !args.keep_workloads {
        ui.note("ending workloads");
        for (part, _) in running.iter().filter(|(part, _)| part.tier == Tier::Node) {
            // What one cannot end keeps no other from ending.
            drained = drained.and(drain(&site, part, args));
        }
    }
    for (part, process) in running {
        let how = match process.map(|process| process.stop()).transpose()? {
            Some(true) => "stopped",
            Some(false) => "did not end by itself and was killed",
            None => "was not running",
        };
        ui.note(&format!("{:width$} {how}", part.title(), width = tree.width()));
        for file in [site.file(&part, "pid"), site.file(&part, "ready")] {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", file, error));
                }
                _ => {}
            }
        }
    }
    drained?;
    if args.purge { purge(ui, global, site) } else { Ok(()) }
}

fn drain(site: &Site, part: &Part, args: &DownArgs) -> Result<(), Error> {
    let config = site.file(part, "toml");
    if !config.exists() {
        return Ok(());
    }
    let program = bin_dir(args.bin_dir.as_deref())?.join(part.tier.program());
    let log = site.file(part, "log");
    let from = log.metadata().map_or(0, |meta| meta.len());
    let failed = |error| Error::io("open", &log, error);
    let out = std::fs::File::options().create(true).append(true).open(&log).map_err(failed)?;
    let mut child = Command::new(&program)
        .arg("--config")
        .arg(config)
        .arg("drain")
        .current_dir(site.dir())
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(failed)?)
        .stderr(out)
        .spawn()
        .map_err(|error| Error::io("start", &program, error))?;
    let end = Instant::now() + Duration::from_secs(DRAIN_SECONDS_MAX);
    let why = loop {
        match child.try_wait().map_err(|error| Error::io("watch", &program, error))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => break status.to_string(),
            None if Instant::now() >= end => {
                child.kill().map_err(|error| Error::io("stop", &program, error))?;
                child.wait().map_err(|error| Error::io("stop", &program, error))?;
                break format!("not done within {DRAIN_SECONDS_MAX} s");
            }
            None => std::thread::sleep(Duration::from_millis(LOOK_MS)),
        }
    };
    Err(Error::Failed(format!(
        "{} could not end its workloads ({why}); some may still run; the end of {}:{}",
        part.title(),
        log.display(),
        last_lines(&log, from)
    )))
}

fn purge(ui: Ui, global: &Global, site: Site) -> Result<(), Error> {
    let dir = site.dir().to_owned();
    let mounted = mounts_below(&dir)?;
    if let Some(first) = mounted.first() {
        return Err(Error::Failed(format!(
            "{} is not removed: {} and perhaps more is mounted below it",
            dir.display(),
            first.display()
        )));
    }
    if let Some(facts) = site.facts()? {
        let server = Server::parse(&facts.listen.to_string())?;
        Config::load(global.config.as_deref())?.forget(server)?;
    }
    std::fs::remove_dir_all(&dir).map_err(|error| Error::io("remove", &dir, error))?;
    ui.note(&format!("{} removed", dir.display()));
    Ok(())
}

/// What is mounted at or below a folder: removing through a mount would remove what is mounted.
fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let path = "/proc/self/mountinfo";
    let mounts = std::fs::read_to_string(path).map_err(|error| Error::io("read", path, error))?;
    Ok(mount_points(&mounts).filter(|point| point.starts_with(dir)).collect())
}

fn mount_points(mounts: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(|line| {
        let point = line.split(' ').nth(4)?;
        // The kernel writes these four as octal.
        let point = point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
        Some(PathBuf::from(point.replace("\\134", "\\")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read() {
        let mounts = "22 1 0:20 / / rw - ext4 /dev/a rw\n\
            23 22 0:21 / /srv/a\\040b rw,nosuid shared:7 - proc proc rw\nbroken\n";
        let points: Vec<_> = mount_points(mounts).collect();
        assert_eq!(points, [PathBuf::from("/"), PathBuf::from("/srv/a b")]);
        assert!(!mounts_below(Path::new("/proc")).unwrap().is_empty());
        let folder = tempfile::tempdir().unwrap();
        assert!(mounts_below(folder.path()).unwrap().is_empty());
    }
}
