//! Progress of instances: lines that are written over on a terminal, plain lines elsewhere.
//!
//! Why apart: it must look right in three places (a terminal, a log of some CI, nowhere), and
//! the waiting must not know which.

use std::collections::BTreeMap;
use std::io::Write;

use crate::instance::Instance;
use crate::table::{Cut, shorten};
use crate::ui::Ui;

/// Columns of the state: the longest is `cluster-scheduled`.
const STATE_COLUMNS: usize = 17;

/// Where progress goes.
pub(crate) struct Progress<W> {
    out: W,
    form: Form,
    lines: BTreeMap<String, Instance>,
    /// Lines on the terminal that belong to us, above the cursor.
    drawn: usize,
}

#[derive(Clone, Copy)]
enum Form {
    Quiet,
    Plain,
    Live { rows: usize, columns: usize },
}

impl Progress<std::io::Stderr> {
    /// Progress on standard error, as it suits the operator.
    pub(crate) fn new(ui: Ui) -> Self {
        let form = match ui.live_area() {
            _ if ui.quiet => Form::Quiet,
            Some((rows, columns)) => Form::Live { rows, columns },
            None => Form::Plain,
        };
        Self { out: std::io::stderr(), form, lines: BTreeMap::new(), drawn: 0 }
    }
}

impl<W: Write> Progress<W> {
    /// Shows how an instance stands now.
    pub(crate) fn show(&mut self, instance: &Instance) {
        let before = self.lines.insert(instance.id.clone(), instance.clone());
        if before.as_ref() == Some(instance) {
            return;
        }
        match self.form {
            Form::Quiet => {}
            Form::Plain => {
                // A detail such as "12 of 40 MiB" changes all the time; a log wants the states.
                let told = before.is_some_and(|before| {
                    before.state == instance.state && before.restarts == instance.restarts
                });
                if !told {
                    self.write(&format!("{}\n", line(instance)));
                }
            }
            Form::Live { rows, columns } => self.draw(rows, columns),
        }
    }

    /// Shows a line that is about none of the instances.
    pub(crate) fn note(&mut self, text: &str) {
        let text = crate::text::line(text);
        match self.form {
            Form::Quiet => {}
            Form::Plain => self.write(&format!("{text}\n")),
            Form::Live { rows, columns } => {
                let up = self.back();
                self.write(&format!("{up}{text}\n"));
                self.draw(rows, columns);
            }
        }
    }

    /// To the first of our lines, with everything below it cleared. Forgets them.
    fn back(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            drawn => format!("\x1b[{drawn}A\x1b[J"),
        }
    }

    fn draw(&mut self, rows: usize, columns: usize) {
        let mut text = self.back();
        // One row is left for the cursor, and one column so that no line wraps.
        let room = rows.saturating_sub(1).max(1);
        let hidden = if self.lines.len() > room { self.lines.len() - (room - 1) } else { 0 };
        let mut lines: Vec<&Instance> = self.lines.values().collect();
        if hidden > 0 {
            use crate::instance::Standing;
            lines.sort_by_key(|one| one.standing() == Standing::Up);
            lines.truncate(room - 1);
        }
        for instance in &lines {
            text.push_str(&shorten(&line(instance), columns.saturating_sub(1), Cut::End));
            text.push('\n');
        }
        self.drawn = lines.len();
        if hidden > 0 {
            text.push_str(&format!("and {hidden} more\n"));
            self.drawn += 1;
        }
        self.write(&text);
    }

    fn write(&mut self, text: &str) {
        // Progress that nobody can see is no reason to stop.
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).ok();
    }
}

fn line(instance: &Instance) -> String {
    let name = if instance.name.is_empty() { &instance.id } else { &instance.name };
    let mut text = format!("{name}  {:STATE_COLUMNS$}", instance.state);
    if !instance.node.is_empty() {
        text.push_str(&format!("  on {}", instance.node));
    }
    if instance.restarts > 0 {
        text.push_str(&format!("  restarts {}", instance.restarts));
    }
    let why = instance.why();
    if !why.is_empty() {
        text.push_str(&format!("  {why}"));
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn progress(form: Form) -> Progress<Vec<u8>> {
        Progress { out: Vec::new(), form, lines: BTreeMap::new(), drawn: 0 }
    }

    fn instance(name: &str, state: &str, detail: &str) -> Instance {
        Instance::read(&json!({
            "instance_id": format!("{name}-id"), "name": format!("{name}.0"), "state": state,
            "detail": detail, "node": {"name": "pi"},
        }))
    }

    fn text(progress: Progress<Vec<u8>>) -> String {
        String::from_utf8(progress.out).unwrap()
    }

    #[test]
    fn plain_lines_tell_each_state_once() {
        let mut progress = progress(Form::Plain);
        progress.show(&instance("a", "creating", "1 of 9 MiB"));
        progress.show(&instance("a", "creating", "2 of 9 MiB"));
        progress.note("no server");
        progress.show(&instance("a", "running", ""));
        progress.show(&instance("a", "running", ""));
        assert_eq!(
            text(progress),
            "a.0  creating           on pi  1 of 9 MiB\nno server\na.0  running            on pi\n"
        );
    }

    #[test]
    fn live_lines_are_written_over() {
        let mut progress = progress(Form::Live { rows: 24, columns: 30 });
        progress.show(&instance("a", "creating", "1 of 9 MiB"));
        progress.show(&instance("b", "running", ""));
        progress.note("no server");
        let a = "a.0  creating           on p…\n";
        let b = "b.0  running            on pi\n";
        assert_eq!(text(progress), format!("{a}\x1b[1A\x1b[J{a}{b}\x1b[2A\x1b[Jno server\n{a}{b}"));
    }

    #[test]
    fn a_small_terminal_shows_what_is_not_up() {
        let mut progress = progress(Form::Live { rows: 4, columns: 80 });
        for name in ["a", "b", "c", "d"] {
            progress.show(&instance(name, "running", ""));
        }
        progress.show(&instance("e", "creating", ""));
        let text = text(progress);
        let last = text.rsplit("\x1b[J").next().unwrap();
        assert_eq!(last.lines().count(), 3, "{last}");
        assert!(last.starts_with("e.0  creating"), "{last}");
        assert!(last.ends_with("and 3 more\n"), "{last}");
    }

    #[test]
    fn quiet_is_quiet() {
        let mut progress = progress(Form::Quiet);
        progress.show(&instance("a", "running", ""));
        progress.note("x");
        assert_eq!(text(progress), "");
    }
}
