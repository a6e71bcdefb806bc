//! Why an instance is where it is, or why it does not run: what every tier on the way said.
//!
//! ```text
//! why:
//!   root: running for 5m, placed on cluster berlin
//!     2026-11-22T10:19:13Z  refused by hamburg: no node has 500 MiB free
//!     2026-11-22T10:19:13Z  placed on berlin by best-fit, one of 1 that fit among 2
//!   cluster berlin: running for 5m, placed on node pi4-1
//!   node pi4-1: running for 5m, 2 restarts, last end: killed by signal 9, native
//! ```

use serde_json::Value;

use crate::names::field;
use crate::text;

/// The part of a description.
pub(crate) fn draw(answer: &Value, now: u64) -> String {
    let mut drawn = String::from("why:\n");
    for line in list(answer, "path") {
        drawn.push_str(&format!("  {}\n", text::line(&tier(line, now))));
        for said in decisions(line).into_iter().chain(refusals(line)) {
            drawn.push_str(&format!("    {}\n", text::line(&said)));
        }
    }
    let missed = list(answer, "missed");
    if !missed.is_empty() {
        drawn.push_str("while nobody above was there:\n");
    }
    for missed in missed {
        let when = missed.get("unix_ms").and_then(Value::as_u64).map(text::moment);
        let (state, detail) = (field(missed, "state"), field(missed, "detail"));
        let said = format!("{}  {state}  {detail}", when.unwrap_or_default());
        drawn.push_str(&format!("  {}\n", text::line(said.trim_end())));
    }
    drawn
}

/// What the tier decided, the last thing last.
fn decisions(line: &Value) -> Vec<String> {
    let told = list(line, "decisions").iter().map(|decision| {
        let when = decision.get("unix_ms").and_then(Value::as_u64).map(text::moment);
        let times = decision.get("times").and_then(Value::as_u64).unwrap_or(1);
        let times = if times > 1 { format!(" ({times} times)") } else { String::new() };
        format!("{}  {}{times}", when.unwrap_or_default(), field(decision, "text"))
    });
    told.collect()
}

/// Who refused it, as far as no decision says so.
fn refusals(line: &Value) -> Vec<String> {
    let told = |child: &str| {
        let said = format!("refused by {child}:");
        list(line, "decisions").iter().any(|decision| field(decision, "text").starts_with(&said))
    };
    let refusals = list(line, "refusals").iter();
    let untold = refusals.filter(|refusal| !told(field(refusal, "child")));
    let words = untold.map(|refusal| {
        let (child, reason) = (field(refusal, "child"), field(refusal, "reason"));
        let reason = if reason.is_empty() { "as others before it" } else { reason };
        format!("refused by {child}: {reason}")
    });
    words.collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What one tier said, in a line.
fn tier(line: &Value, now: u64) -> String {
    let (kind, name) = (field(line, "tier"), field(line, "name"));
    let who = match (kind, name) {
        ("", "") => "further down".to_owned(),
        ("root", _) => "root".to_owned(),
        (kind, name) => format!("{kind} {name}").trim().to_owned(),
    };
    if let Some(why) = line.get("unreachable").and_then(Value::as_str) {
        let seen = line.get("seen_unix_ms").and_then(Value::as_u64).filter(|seen| *seen > 0);
        let seen =
            seen.map_or(String::new(), |seen| format!(", seen {} ago", text::age(now, seen)));
        return format!("{who}: cannot be asked: {why}{seen}");
    }
    let mut said = vec![state(line, now)];
    if line.get("removing").and_then(Value::as_bool).unwrap_or_default() {
        said.push("being removed".to_owned());
    }
    match line.get("placed") {
        Some(placed @ Value::Object(_)) => {
            let (kind, name) = (field(placed, "kind"), field(placed, "name"));
            said.push(format!("placed on {kind} {name}"));
        }
        Some(Value::Null) => said.push("placed nowhere".to_owned()),
        _ => {}
    }
    if let Some(restarts) = line.get("restarts").and_then(Value::as_u64) {
        said.push(match restarts {
            1 => "1 restart".to_owned(),
            many => format!("{many} restarts"),
        });
    }
    let exit = crate::instance::exit(line.get("exit"));
    if !exit.is_empty() {
        said.push(format!("last end: {exit}"));
    }
    let backend = field(line, "backend");
    if !backend.is_empty() {
        said.push(backend.to_owned());
    }
    said.retain(|part| !part.is_empty());
    format!("{who}: {}", said.join(", "))
}

fn state(line: &Value, now: u64) -> String {
    let (state, detail) = (field(line, "state"), field(line, "detail"));
    let since = line.get("since_unix_ms").and_then(Value::as_u64);
    let since = since.map_or(String::new(), |since| format!(" for {}", text::age(now, since)));
    match detail {
        "" => format!("{state}{since}"),
        detail => format!("{state}{since} ({detail})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_795_342_813_280;

    #[test]
    fn each_tier_has_a_line_and_each_refusal_one_below() {
        let since = NOW - 60_000;
        let answer = json!({"path": [
            {"tier": "root", "name": "root", "state": "running", "detail": "",
             "since_unix_ms": since, "placed": {"kind": "cluster", "name": "berlin"},
             "refusals": [{"child": "hamburg", "reason": "no GPU"}, {"child": "bonn", "reason": ""}],
             "decisions": [
                {"unix_ms": since, "times": 1, "text": "refused by hamburg: no GPU"},
                {"unix_ms": since, "times": 3, "text": "placed on berlin by best-fit"}]},
            {"tier": "cluster", "name": "berlin", "state": "running", "detail": "",
             "since_unix_ms": since, "placed": {"kind": "node", "name": "pi4-1"}, "refusals": []},
            {"tier": "node", "name": "pi4-1", "state": "running", "detail": "",
             "since_unix_ms": since, "restarts": 2, "exit": {"signal": 9}, "backend": "native"},
        ], "missed": [{"unix_ms": since, "state": "dead", "detail": "exit code 1"}]});
        assert_eq!(
            draw(&answer, NOW),
            "\
why:
  root: running for 60s, placed on cluster berlin
    2026-11-22T10:19:13Z  refused by hamburg: no GPU
    2026-11-22T10:19:13Z  placed on berlin by best-fit (3 times)
    refused by bonn: as others before it
  cluster berlin: running for 60s, placed on node pi4-1
  node pi4-1: running for 60s, 2 restarts, last end: killed by signal 9, native
while nobody above was there:
  2026-11-22T10:19:13Z  dead  exit code 1
"
        );
    }

    #[test]
    fn who_cannot_be_asked_is_named_and_nothing_disturbs_a_terminal() {
        let answer = json!({"path": [
            {"tier": "root", "name": "root", "state": "unknown", "detail": "ber\u{1b}[2Jlin\nis",
             "since_unix_ms": NOW, "placed": null},
            {"tier": "cluster", "name": "berlin", "unreachable": "is not connected",
             "seen_unix_ms": NOW - 60_000},
            {"tier": null, "unreachable": "it did not answer in time"},
            7,
        ]});
        let drawn = draw(&answer, NOW);
        assert!(!drawn.contains('\u{1b}'), "{drawn}");
        assert!(
            drawn.contains("  cluster berlin: cannot be asked: is not connected, seen 60s ago\n")
        );
        assert!(drawn.contains("  further down: cannot be asked: it did not answer in time\n"));
        assert!(drawn.contains("placed nowhere"));
    }
}
