//! Whom a container's program runs as.
//!
//! The words of images and descriptors (`www-data`, `1000`, `33:audio`) are looked up in the
//! image's own `passwd` and `group`, never in the host's.

use marram_backend_api::{Error, ErrorKind, Result};

/// A user as the kernel sees one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Further groups.
    pub(crate) groups: Vec<u32>,
    /// From the image's `passwd`.
    pub(crate) home: Option<String>,
}

/// The two files of an image; empty where it has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Accounts {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

/// Whether `text` means the superuser without looking anywhere.
pub(crate) fn is_root(text: &str) -> bool {
    matches!(text, "" | "0" | "root" | "0:0" | "root:root" | "root:0" | "0:root")
}

/// Whether `text` could be a user at all.
pub(crate) fn is_well_formed(text: &str) -> bool {
    let part = |text: &str| {
        !text.is_empty()
            && text.len() <= 64
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@$".contains(&b))
    };
    match text.split_once(':') {
        Some((user, group)) => part(user) && part(group),
        None => part(text),
    }
}

/// Looks `text` up. A number without an entry is taken as it is, with group 0; a name
/// without one is an error.
pub(crate) fn resolve(text: &str, accounts: &Accounts) -> Result<User> {
    if is_root(text) {
        return Ok(User { home: Some("/root".into()), ..User::default() });
    }
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    let number: Option<u32> = name.parse().ok();
    let entry =
        accounts.passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
            let same_id =
                || number.is_some() && fields.get(2).and_then(|id| id.parse().ok()) == number;
            fields.first() == Some(&name) || same_id()
        });
    let field = |index: usize| entry.as_ref().and_then(|fields| fields.get(index).copied());
    let uid = field(2).and_then(|id| id.parse().ok()).or(number);
    let uid = uid.ok_or_else(|| unknown("user", name))?;
    let gid = match group {
        Some(group) => group_id(group, accounts).ok_or_else(|| unknown("group", group))?,
        None => field(3).and_then(|id| id.parse().ok()).unwrap_or(0),
    };
    let groups = match group {
        // Whoever names a group means that one.
        Some(_) => Vec::new(),
        None => field(0).map(|name| memberships(name, gid, accounts)).unwrap_or_default(),
    };
    let home = field(5).filter(|home| home.starts_with('/')).map(str::to_owned);
    Ok(User { uid, gid, groups, home })
}

fn unknown(what: &str, name: &str) -> Error {
    let why = format!("the image knows no {what} {name:?}");
    Error::new(ErrorKind::Invalid, "looking up the user", why)
}

fn group_id(group: &str, accounts: &Accounts) -> Option<u32> {
    let mut lines = accounts.group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = lines.find(|fields| fields.first() == Some(&group));
    let listed = entry.and_then(|fields| fields.get(2)?.parse().ok());
    listed.or_else(|| group.parse().ok())
}

fn memberships(name: &str, primary: u32, accounts: &Accounts) -> Vec<u32> {
    let lines = accounts.group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let with = lines.filter(|fields| {
        fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
    });
    let ids = with.filter_map(|fields| fields.get(2)?.parse().ok());
    ids.filter(|&id| id != primary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:Web:/var/www:/bin/false\nbad\n"
                .into(),
            group: "root:x:0:\nweb:x:34:\naudio:x:29:web,other\ndialout:x:20:web\n".into(),
        }
    }

    #[test]
    fn users_are_looked_up_in_the_image() {
        let find = |text| {
            let user = resolve(text, &accounts()).unwrap();
            (user.uid, user.gid, user.groups)
        };
        assert_eq!(find(""), (0, 0, vec![]));
        assert_eq!(find("web"), (33, 34, vec![29, 20]));
        assert_eq!(find("33"), (33, 34, vec![29, 20]));
        assert_eq!(find("web:audio"), (33, 29, vec![]));
        assert_eq!(find("1000"), (1000, 0, vec![]));
        assert_eq!(find("1000:1000"), (1000, 1000, vec![]));
        assert_eq!(resolve("web", &accounts()).unwrap().home.as_deref(), Some("/var/www"));
        for bad in ["nobody", "web:nogroup", "bad"] {
            assert_eq!(resolve(bad, &accounts()).unwrap_err().kind, ErrorKind::Invalid, "{bad}");
        }
    }

    #[test]
    fn odd_words_are_no_users() {
        for good in ["web", "0", "1000:1000", "a.b-c_d:e"] {
            assert!(is_well_formed(good), "{good}");
        }
        for bad in ["", ":", "a:", ":b", "a:b:c", "a b", "../x", "a\n"] {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }
}
