//! Logins as a whole: first start, restart, wrong passwords, waits.

use super::*;
use marram_store::MemoryStore;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;

const FEW: NonZeroU32 = NonZeroU32::new(10).unwrap();
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn open(store: &MemoryStore, dir: &std::path::Path) -> (Auth, Option<std::path::PathBuf>) {
    let (users, made) = Users::open(store, dir, FEW, 7).unwrap();
    (Auth::new(users, Signer::open(dir).unwrap()), made)
}

fn password(dir: &std::path::Path) -> String {
    std::fs::read_to_string(dir.join(ADMIN_PASSWORD_FILE)).unwrap().trim().to_owned()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn the_first_start_makes_an_admin_and_later_ones_do_not() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let (auth, made) = open(&store, dir.path());
    assert_eq!(made.unwrap(), dir.path().join(ADMIN_PASSWORD_FILE));
    let password = password(dir.path());
    let tokens = block_on(auth.login(HERE, ADMIN, &password, 0, 1000)).unwrap();
    let organization = auth.organization().to_owned();

    // The operator has read the password and removed the file: all goes on.
    std::fs::remove_file(dir.path().join(ADMIN_PASSWORD_FILE)).unwrap();
    let (auth, made) = open(&store, dir.path());
    assert_eq!(made, None);
    assert!(!dir.path().join(ADMIN_PASSWORD_FILE).exists());
    assert_eq!(auth.organization(), organization);
    let bearer = format!("Bearer {}", tokens.access);
    let access = auth.access(Some(&bearer), 1100).unwrap();
    assert!(access.may("anybody"));
    let refresh = format!("bearer {}", tokens.refresh);
    let renewed = auth.refresh(Some(&refresh), 100_000).unwrap();
    assert!(auth.access(Some(&format!("Bearer {renewed}")), 100_599).is_ok());
    assert_eq!(auth.refresh(Some(&bearer), 1100), Err(RefreshError::Token(TokenError::NotRefresh)));
}

#[test]
fn a_first_start_cut_short_keeps_the_password_it_showed() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join(ADMIN_PASSWORD_FILE), "written-before\n").unwrap();
    let (auth, _) = open(&store, dir.path());
    assert!(block_on(auth.login(HERE, ADMIN, "written-before", 0, 0)).is_ok());
    assert_eq!(password(dir.path()), "written-before");
}

#[test]
fn wrong_passwords_are_refused_and_then_have_to_wait() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let (auth, _) = open(&store, dir.path());
    let password = password(dir.path());
    for _ in 0..3 {
        let refused = block_on(auth.login(HERE, ADMIN, "Admin", 0, 0));
        assert_eq!(refused, Err(Refusal::Credentials));
    }
    let right_too_early = block_on(auth.login(HERE, ADMIN, &password, 10, 0));
    assert_eq!(right_too_early, Err(Refusal::Throttled(1)));
    assert!(block_on(auth.login(HERE, ADMIN, &password, 1000, 0)).is_ok());
    let unknown = block_on(auth.login(HERE, "nobody", &password, 0, 0));
    assert_eq!(unknown, Err(Refusal::Credentials));
}

#[test]
fn what_is_no_bearer_token_is_refused() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let (auth, _) = open(&store, dir.path());
    assert_eq!(auth.access(None, 0), Err(TokenError::Missing));
    assert_eq!(auth.access(Some("Basic QWRtaW46QWRtaW4="), 0), Err(TokenError::Missing));
    assert_eq!(auth.access(Some("Bearer"), 0), Err(TokenError::Malformed));
    assert_eq!(auth.access(Some("Bearer x"), 0), Err(TokenError::Malformed));
    let ghost = auth.signer.sign(TokenKind::Access, "ghost", &[], "", 0).unwrap();
    assert_eq!(auth.access(Some(&format!("Bearer {ghost}")), 0), Err(TokenError::NoUser));
}

#[test]
fn names_of_users_are_checked() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let (mut users, _) = Users::open(&store, dir.path(), FEW, 7).unwrap();
    users.add(&store, "eve", "x", &["Application_Provider"], FEW, 8).unwrap();
    let again = users.add(&store, "eve", "x", &[], FEW, 8);
    assert!(matches!(again, Err(UsersError::Taken(_))));
    for bad in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
        assert!(matches!(users.add(&store, bad, "x", &[], FEW, 8), Err(UsersError::Name(_))));
    }
    let (users, made) = Users::open(&store, dir.path(), FEW, 9).unwrap();
    assert!(made.is_none() && users.get("eve").is_some());
}
