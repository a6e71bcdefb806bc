//! Users and groups by name, from the host's files.
//!
//! Why not the C library: it would load plug-ins of the host into the engine, and does not
//! exist in a static build. Users that only a directory service knows are given by number.

use std::path::Path;

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Further groups.
    pub(crate) groups: Vec<u32>,
    /// For the environment, if known.
    pub(crate) home: Option<String>,
}

/// Finds `name`, `uid` or `uid:gid`. The error is for people.
pub(crate) fn find(wanted: &str, etc: &Path) -> Result<User, String> {
    let passwd = read(&etc.join("passwd"))?;
    let lines = || passwd.lines().filter_map(Line::parse);
    if let Some((uid, gid)) = wanted.split_once(':') {
        let number = |text: &str| {
            text.parse::<u32>().map_err(|_| format!("user {wanted:?} is not of the form uid:gid"))
        };
        let (uid, gid) = (number(uid)?, number(gid)?);
        let home = lines().find(|line| line.uid == uid).map(|line| line.home.to_owned());
        return Ok(User { uid, gid, groups: vec![gid], home });
    }
    let found = match wanted.parse::<u32>() {
        Ok(uid) => lines().find(|line| line.uid == uid),
        Err(_) => lines().find(|line| line.name == wanted),
    };
    let Some(line) = found else {
        return Err(format!(
            "user {wanted:?} is not in /etc/passwd; numbers need the form uid:gid"
        ));
    };
    let mut groups = vec![line.gid];
    let group = read(&etc.join("group"))?;
    for (gid, members) in group.lines().filter_map(members_of) {
        if gid != line.gid && members.split(',').any(|member| member == line.name) {
            groups.push(gid);
        }
    }
    Ok(User { uid: line.uid, gid: line.gid, groups, home: Some(line.home.to_owned()) })
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// A line of `passwd`.
struct Line<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        Some(Self { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    }
}

/// Group id and members of a line of `group`.
fn members_of(line: &str) -> Option<(u32, &str)> {
    let fields: Vec<&str> = line.split(':').collect();
    let [_, _, gid, members] = fields.as_slice() else { return None };
    Some((gid.parse().ok()?, members))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let etc = tempfile::tempdir().unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken line\n\
                      cam:x:1001:1001:Camera,,,:/home/cam:/bin/sh\n";
        std::fs::write(etc.path().join("passwd"), passwd).unwrap();
        let group = "root:x:0:\ncam:x:1001:cam\nvideo:x:44:other,cam\naudio:x:29:camera\n";
        std::fs::write(etc.path().join("group"), group).unwrap();
        let find = |wanted| find(wanted, etc.path());
        let cam =
            User { uid: 1001, gid: 1001, groups: vec![1001, 44], home: Some("/home/cam".into()) };
        assert_eq!(find("cam"), Ok(cam.clone()));
        assert_eq!(find("1001"), Ok(cam));
        let bare = User { uid: 7, gid: 8, groups: vec![8], home: None };
        assert_eq!(find("7:8"), Ok(bare));
        for bad in ["", "nobody-such", "4711", "1:x", ":", "-1:1", "1:2:3"] {
            assert!(find(bad).is_err(), "{bad:?}");
        }
    }
}
