//! Whether a request could run here; touches nothing.
//!
//! Invariant: what passes is honoured whole. A field that this backend would have to drop is
//! refused here, with the reason.

use crate::backend::Inner;
use crate::image::reference::Reference;
use crate::{oci, runtime};
use marram_backend_api::{Error, ErrorKind, Result, Spec};

/// Smallest memory limit: below it runtimes fail to start anything, with unclear words.
const MEMORY_BYTES_MIN: u64 = 6 << 20;

/// Largest sum of arguments and environment: half of what the kernel gives a new program.
const WORDS_BYTES_MAX: usize = 1 << 20;

const DOING: &str = "checking the specification";

/// See [`marram_backend_api::Backend::validate`].
pub(crate) fn validate(inner: &Inner, spec: &Spec) -> Result<()> {
    let config = &inner.config;
    Reference::parse(&spec.image)?;
    words(spec)?;
    limits(inner, spec)?;
    if let Some(user) = &spec.user
        && !oci::user::is_well_formed(user)
    {
        return Err(invalid(format!("user {user:?} is not name, uid or uid:gid")));
    }
    if let Some(path) = &spec.working_dir
        && !path.is_absolute()
    {
        return Err(invalid(format!("working directory {path:?} is not absolute")));
    }
    oci::check_mounts(spec, &config.limits)?;
    oci::check_devices(spec, &config.limits)?;
    runtime::choose(config, spec.runtime.as_deref()).map(drop)
}

fn invalid(why: String) -> Error {
    Error::new(ErrorKind::Invalid, DOING, why)
}

fn words(spec: &Spec) -> Result<()> {
    let mut bytes = 0;
    let values = spec.args.iter().chain(spec.environment.values());
    for text in values.chain(spec.environment.keys()) {
        bytes += text.len() + 1;
        if text.contains('\0') {
            return Err(invalid(format!("{text:?} holds a zero byte")));
        }
    }
    if bytes > WORDS_BYTES_MAX {
        let why = format!("{bytes} bytes of words, {WORDS_BYTES_MAX} are allowed");
        return Err(invalid(why));
    }
    match spec.environment.keys().find(|key| key.is_empty() || key.contains('=')) {
        Some(key) => Err(invalid(format!("{key:?} is no name of a variable"))),
        None => Ok(()),
    }
}

fn limits(inner: &Inner, spec: &Spec) -> Result<()> {
    let wanted = &spec.resources;
    if let Some(bytes) = wanted.memory_bytes_max
        && (bytes < MEMORY_BYTES_MIN || i64::try_from(bytes).is_err())
    {
        let why = format!("a memory limit of {bytes} bytes, at least {MEMORY_BYTES_MIN} is needed");
        return Err(invalid(why));
    }
    if wanted.cpu_millicores_max.is_some_and(|share| share < oci::CPU_MILLICORES_MIN) {
        let least = oci::CPU_MILLICORES_MIN;
        return Err(invalid(format!("less than {least} thousandth of a core")));
    }
    if wanted.pids_max == Some(0) {
        return Err(invalid("no process at all is allowed".into()));
    }
    if spec.allow_unlimited {
        return Ok(());
    }
    let asked = [
        ("memory", wanted.memory_bytes_max.is_some()),
        ("cpu", wanted.cpu_millicores_max.is_some()),
        ("pids", wanted.pids_max.is_some()),
    ];
    for limit in inner.cgroups.limits() {
        let is_asked = asked.iter().any(|(name, asked)| *asked && *name == limit.name);
        if let Err(reason) = limit.enforced
            && is_asked
        {
            let why = format!("a {} limit is not enforced here: {reason}", limit.name);
            return Err(Error::new(ErrorKind::Unsupported, DOING, why));
        }
    }
    Ok(())
}
