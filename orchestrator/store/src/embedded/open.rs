//! Making the file, refusing what is not ours, and bringing an older format up to ours.
//!
//! Why apart: this is the only code that meets a file of unknown content.
//!
//! Invariants:
//! - the file appears under its name complete or not at all, so one that is there and empty
//!   has lost its content and is refused;
//! - all migrations of one opening are one transaction: the file has its old format or the
//!   newest, never one in between;
//! - the content of a file of a newer format is left alone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase, WriteTransaction};

use super::tables::{self, Fault, META, META_FORMAT};
use crate::error::{Error, Result};

/// The format that this program writes.
pub const FORMAT: u64 = 1;

/// Pages that redb may keep in memory. A cluster of 10 000 instances has an index of a few
/// hundred KiB; with a budget of 8 MiB for the whole process there is no more to give.
pub const CACHE_BYTES: usize = 1024 * 1024;

/// The permission bits of the file: it holds hashes of tokens and passwords.
const MODE: u32 = 0o600;

/// One step from a format to a newer one.
struct Migration {
    from: u64,
    to: u64,
    run: fn(&WriteTransaction) -> Result<(), Fault>,
}

/// Every step ever needed, the oldest first. There is only one format so far.
const MIGRATIONS: &[Migration] = &[];

/// Opens the file, made anew if there is none, in our format.
pub(super) fn open(path: &Path) -> Result<Database> {
    match fs::metadata(path) {
        Ok(found) if found.len() == 0 => {
            let reason = "it is empty, so its content was lost".to_owned();
            return Err(Error::Damaged { path: path.to_path_buf(), reason });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path)?,
        Err(error) => return Err(backing("looking for", path, error)),
    }
    let database = builder()
        .set_check_integrity_on_open(true)
        .open(path)
        .map_err(|error| Fault::from(error).into_error("opening", path))?;
    migrate(&database, path, FORMAT, MIGRATIONS)?;
    Ok(database)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes the file under another name, and gives it its own when it is whole and on disk.
fn create(path: &Path) -> Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(backing("removing", &unfinished, error));
        }
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&unfinished)
        .map_err(|error| backing("creating", &unfinished, error))?;
    let fill = || -> Result<(), Fault> {
        let database = builder().create(&unfinished)?;
        let transaction = database.begin_write()?;
        tables::create(&transaction, FORMAT)?;
        transaction.commit()?;
        Ok(database.close()?)
    };
    fill().map_err(|fault| fault.into_error("creating", &unfinished))?;
    fs::rename(&unfinished, path).map_err(|error| backing("naming", path, error))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| backing("syncing", directory, error))
}

fn backing(doing: &'static str, path: &Path, error: io::Error) -> Error {
    Error::Backing { doing, at: path.display().to_string(), source: Box::new(error) }
}

/// Brings the file to `wanted`, or says why that cannot be.
fn migrate(database: &Database, path: &Path, wanted: u64, migrations: &[Migration]) -> Result<()> {
    let found = format(database).map_err(|fault| fault.into_error("reading", path))?;
    if found > wanted {
        return Err(Error::FormatTooNew { path: path.to_path_buf(), found, known: wanted });
    }
    if found == wanted {
        return Ok(());
    }
    let run = || -> Result<bool, Fault> {
        let transaction = database.begin_write()?;
        let mut at = found;
        while at != wanted {
            let Some(step) = migrations.iter().find(|step| step.from == at) else {
                transaction.abort()?;
                return Ok(false);
            };
            (step.run)(&transaction)?;
            at = step.to;
        }
        transaction.open_table(META)?.insert(META_FORMAT, wanted)?;
        transaction.commit()?;
        Ok(true)
    };
    if run().map_err(|fault| fault.into_error("migrating", path))? {
        tracing::info!(path = %path.display(), from = found, to = wanted, "store migrated");
        return Ok(());
    }
    Err(Error::FormatUnknown { path: path.to_path_buf(), found, wanted })
}

fn format(database: &Database) -> Result<u64, Fault> {
    let transaction = database.begin_read()?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => {
            return Err(Fault::Row("it is not a store of marram".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    match meta.get(META_FORMAT)? {
        Some(format) => Ok(format.value()),
        None => Err(Fault::Row("it does not say its format".to_owned())),
    }
}

#[cfg(test)]
mod tests;
