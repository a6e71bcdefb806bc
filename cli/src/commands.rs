//! The short commands: `get`, `describe`, `delete`, `logs`, `login`, `version`.
//!
//! Why together: each is a request or two and something to show.

use std::io::{IsTerminal, Read};

use serde_json::Value;

use crate::apply::follow;
use crate::args::{Deletable, DeleteArgs, LoginArgs, LogsArgs};
use crate::client::Client;
use crate::error::Error;
use crate::explain;
use crate::names::{Kind, field, resolve};
use crate::terminal;
use crate::text;
use crate::ui::{Format, Ui};
use crate::view;
use crate::wait::{Goal, Wait};

/// Longest password: the root takes less; more is a file given by mistake.
const PASSWORD_BYTES_MAX: u64 = 1024;

/// Bytes of one read of a log: what the tiers send at once.
const LOG_CHUNK_BYTES: usize = 64 * 1024;

/// Runs `marram get`.
pub(crate) fn get(ui: Ui, client: &Client, kind: Kind, foreign: bool) -> Result<(), Error> {
    if foreign {
        return get_foreign(ui, client);
    }
    let answer = client.get(&kind.path())?;
    // Clusters that should have told of their nodes.
    for missing in answer.get("missing").and_then(Value::as_array).into_iter().flatten() {
        let cluster = missing.get("cluster").map_or("", |cluster| field(cluster, "name"));
        ui.complain(&format!(
            "warning: cluster {} does not answer: {}",
            crate::text::line(cluster),
            crate::text::line(field(missing, "reason"))
        ));
    }
    match ui.format {
        Format::Json => ui.print_json(&answer),
        _ => view::print_list(ui, kind, &client.items(answer)?),
    }
}

/// Clusters and nodes of another tree, whatever was asked for.
fn get_foreign(ui: Ui, client: &Client) -> Result<(), Error> {
    let answer = client.get("/api/v1/foreign")?;
    match ui.format {
        Format::Json => ui.print_json(&answer),
        _ => view::print_foreign(ui, &client.items(answer)?),
    }
}

/// Runs `marram describe`.
pub(crate) fn describe(ui: Ui, client: &Client, kind: Kind, name: &str) -> Result<(), Error> {
    let named = resolve(client, kind, name)?;
    let path = kind.item_path(&named.id);
    let mut item = client.get(&path)?;
    if kind != Kind::Instance {
        return view::print_object(ui, &item);
    }
    let why = client.get(&format!("{path}/explain"))?;
    if ui.format == Format::Json {
        item["path"] = why.get("path").cloned().unwrap_or_default();
        item["missed"] = why.get("missed").cloned().unwrap_or_default();
        return ui.print_json(&item);
    }
    view::print_object(ui, &item)?;
    ui.print(&explain::draw(&why, text::now_unix_ms()))
}

/// Runs `marram delete`.
pub(crate) fn delete(ui: Ui, client: &Client, args: &DeleteArgs) -> Result<(), Error> {
    let (kind, key) = match args.kind {
        Deletable::Application => (Kind::Application, "application_id"),
        Deletable::Service => (Kind::Service, "service_id"),
        Deletable::Instance => (Kind::Instance, "instance_id"),
    };
    let named = resolve(client, kind, &args.name)?;
    let mut instances = Vec::new();
    if args.wait.wait {
        // Before the deletion: afterwards nothing may tell any more what belonged to it.
        for item in client.list(&Kind::Instance.path())? {
            if field(&item, key) == named.id {
                instances.push(field(&item, "instance_id").to_owned());
            }
        }
    }
    client.delete(&kind.item_path(&named.id))?;
    let what = format!("{} {}", kind.singular(), named.name);
    if args.wait.wait {
        let wait = Wait::new(Goal::Gone, instances);
        // To be gone cannot fail, only take too long.
        follow(ui, client, wait, args.wait.timeout)?.ok();
        ui.note(&format!("{what} is gone"));
    } else {
        ui.note(&format!("{what} is being removed"));
    }
    match ui.format {
        Format::Json => ui.print_json(&serde_json::json!({ key: named.id })),
        _ => Ok(()),
    }
}

/// Runs `marram logs`.
pub(crate) fn logs(ui: Ui, client: &Client, args: &LogsArgs) -> Result<(), Error> {
    let named = resolve(client, Kind::Instance, &args.instance)?;
    let mut path = format!("{}/logs?follow={}", Kind::Instance.item_path(&named.id), args.follow);
    if let Some(tail) = args.tail {
        path.push_str(&format!("&tail={tail}"));
    }
    let mut stream = client.stream(&path)?;
    let mut buffer = vec![0; LOG_CHUNK_BYTES];
    loop {
        match stream.read(&mut buffer).map_err(|error| client.lost(&error))? {
            0 => return Ok(()),
            read => ui.print_bytes(&buffer[..read])?,
        }
    }
}

/// Runs `marram login`.
pub(crate) fn login(ui: Ui, client: &Client, args: &LoginArgs) -> Result<(), Error> {
    let password = match &args.password_file {
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|error| Error::io("read", path, error))?;
            first_line(file).map_err(|error| Error::io("read", path, error))?
        }
        None if args.password_stdin => first_line(std::io::stdin())
            .map_err(|error| Error::io("read", "standard input", error))?,
        None if std::io::stdin().is_terminal() => {
            terminal::ask_password(&format!("password of {}: ", args.username))?
        }
        None => {
            return Err(Error::Usage(
                "there is no terminal to ask for the password; use --password-stdin or \
                 --password-file FILE"
                    .into(),
            ));
        }
    };
    client.login(&args.username, &password)?;
    let config = client.config();
    ui.note(&format!(
        "logged in at {} as {}; kept in {}",
        client.peer(),
        args.username,
        config.path().display()
    ));
    Ok(())
}

/// The first line, without its end.
pub(crate) fn first_line(from: impl Read) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    from.take(PASSWORD_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() as u64 > PASSWORD_BYTES_MAX {
        let text = format!("the first line has more than {PASSWORD_BYTES_MAX} bytes");
        return Err(std::io::Error::other(text));
    }
    String::from_utf8(line.to_vec()).map_err(|_| std::io::Error::other("it is not UTF-8"))
}

/// Runs `marram version`.
pub(crate) fn version(ui: Ui, client: Option<&Client>) -> Result<(), Error> {
    let own = env!("CARGO_PKG_VERSION");
    let server = client.map(|client| client.version());
    if ui.format == Format::Json {
        let server = server.transpose()?.unwrap_or(Value::Null);
        return ui.print_json(&serde_json::json!({"client": own, "server": server}));
    }
    ui.print(&format!("client {own}\n"))?;
    let Some(server) = server.transpose()? else { return Ok(()) };
    ui.print(&format!("server {}\n", crate::text::line(field(&server, "version"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line() {
        for (text, line) in [("a b", "a b"), ("a\r\nb", "a"), ("\n", ""), ("", ""), ("ä \nb", "ä ")]
        {
            assert_eq!(first_line(text.as_bytes()).unwrap(), line);
        }
        assert!(first_line("x".repeat(1025).as_bytes()).is_err());
        assert!(first_line(&b"\xff\n"[..]).is_err());
    }
}
