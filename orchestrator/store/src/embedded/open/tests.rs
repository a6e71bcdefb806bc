//! Migrations, tried with formats that are made up for the purpose.

use redb::TableDefinition;

use super::*;
use crate::embedded::RedbStore;
use crate::store::Store;
use crate::txn::Txn;

const NOTES: TableDefinition<'_, &str, u64> = TableDefinition::new("notes");

fn step_to_2(transaction: &WriteTransaction) -> Result<(), Fault> {
    transaction.open_table(NOTES)?.insert("steps", 1)?;
    Ok(())
}

fn step_to_3(transaction: &WriteTransaction) -> Result<(), Fault> {
    let mut notes = transaction.open_table(NOTES)?;
    let steps = tables::meta_number(&notes, "steps")?;
    notes.insert("steps", steps + 1)?;
    Ok(())
}

fn step_that_fails(transaction: &WriteTransaction) -> Result<(), Fault> {
    step_to_2(transaction)?;
    Err(Fault::Row("a row cannot be read".to_owned()))
}

const STEPS: &[Migration] =
    &[Migration { from: 1, to: 2, run: step_to_2 }, Migration { from: 2, to: 3, run: step_to_3 }];

/// A store with one entry, opened as its plain database.
fn filled(directory: &Path) -> (PathBuf, Database) {
    let path = directory.join("state");
    let store = RedbStore::open(&path).unwrap();
    store.txn(&Txn::new().put("a", "1")).unwrap();
    drop(store);
    let database = builder().open(&path).unwrap();
    (path, database)
}

fn steps_taken(database: &Database) -> Option<u64> {
    let notes = database.begin_read().unwrap().open_table(NOTES).ok()?;
    notes.get("steps").unwrap().map(|steps| steps.value())
}

#[test]
fn every_step_runs_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (path, database) = filled(directory.path());
    migrate(&database, &path, 3, STEPS).unwrap();
    assert_eq!(format(&database).unwrap(), 3);
    assert_eq!(steps_taken(&database), Some(2));
    migrate(&database, &path, 3, STEPS).unwrap();
    assert_eq!(steps_taken(&database), Some(2));
}

#[test]
fn a_step_that_fails_leaves_the_old_format() {
    let directory = tempfile::tempdir().unwrap();
    let (path, database) = filled(directory.path());
    let steps = [Migration { from: 1, to: 2, run: step_that_fails }];
    let error = migrate(&database, &path, 2, &steps).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert_eq!(format(&database).unwrap(), 1);
    assert_eq!(steps_taken(&database), None);
    drop(database);
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.get(b"a").unwrap().unwrap().value, b"1");
}

#[test]
fn a_gap_between_the_steps_is_named_and_nothing_changes() {
    let directory = tempfile::tempdir().unwrap();
    let (path, database) = filled(directory.path());
    let error = migrate(&database, &path, 4, STEPS).unwrap_err();
    assert!(matches!(error, Error::FormatUnknown { found: 1, wanted: 4, .. }), "{error}");
    assert_eq!(steps_taken(&database), None);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (path, database) = filled(directory.path());
    migrate(&database, &path, 3, STEPS).unwrap();
    drop(database);
    let error = RedbStore::open(&path).unwrap_err();
    assert!(matches!(error, Error::FormatTooNew { found: 3, known: FORMAT, .. }), "{error}");
    assert_eq!(format(&builder().open(&path).unwrap()).unwrap(), 3);
}
