//! What was measured, with its budget beside, for terminals and for docs/SPECIFICATION.md.

/// One line of the table.
#[derive(Debug)]
struct Row {
    what: String,
    budget: String,
    known: String,
    measured: String,
    /// `None` without a budget.
    kept: Option<bool>,
}

/// All lines.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

/// What is promised: the text for people and what others need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promise {
    pub(crate) what: &'static str,
    pub(crate) budget: &'static str,
    pub(crate) known: &'static str,
}

impl Table {
    /// A figure with a budget: each value beside the most that is allowed.
    pub(crate) fn promised(&mut self, promise: Promise, values: &[(f64, f64)], measured: String) {
        self.0.push(Row {
            what: promise.what.to_owned(),
            budget: promise.budget.to_owned(),
            known: promise.known.to_owned(),
            measured,
            kept: Some(values.iter().all(|(value, most)| value <= most)),
        });
    }

    /// A figure that explains another.
    pub(crate) fn noted(&mut self, what: &str, measured: String) {
        let (budget, known) = (String::new(), String::new());
        self.0.push(Row { what: what.to_owned(), budget, known, measured, kept: None });
    }

    /// Columns for a terminal.
    pub(crate) fn text(&self) -> String {
        let width = |of: fn(&Row) -> &String| {
            self.0.iter().map(|row| of(row).chars().count()).max().unwrap_or_default()
        };
        let (what, budget) = (width(|row| &row.what), width(|row| &row.budget));
        let mut text = String::new();
        for row in &self.0 {
            let verdict = match row.kept {
                Some(true) => "ok",
                Some(false) => "MISSED",
                None => "",
            };
            text.push_str(&format!(
                "{:<what$}  {:<budget$}  {verdict:<6}  {}\n",
                row.what, row.budget, row.measured
            ));
        }
        text
    }

    /// The rows of the two tables in docs/SPECIFICATION.md.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for row in self.0.iter().filter(|row| row.kept.is_some()) {
            let missed = if row.kept == Some(false) { "**missed**: " } else { "" };
            text.push_str(&format!(
                "| {} | {} | {} | {missed}{} |\n",
                row.what, row.budget, row.known, row.measured
            ));
        }
        text.push('\n');
        for row in self.0.iter().filter(|row| row.kept.is_none()) {
            text.push_str(&format!("| {} | {} |\n", row.what, row.measured));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISE: Promise = Promise { what: "memory", budget: "≤ 4 MiB", known: "" };

    #[test]
    fn one_value_above_its_limit_misses_the_budget() {
        let mut table = Table::default();
        table.promised(PROMISE, &[(4.0, 4.0), (1.0, 2.0)], "4".into());
        assert!(table.text().contains(" ok "), "{}", table.text());
        table.promised(PROMISE, &[(4.0, 4.0), (2.1, 2.0)], "4".into());
        assert!(table.text().contains("MISSED"), "{}", table.text());
        assert!(table.markdown().contains("| **missed**: 4 |"));
    }

    #[test]
    fn notes_stand_in_a_table_of_their_own() {
        let mut table = Table::default();
        table.noted("start", "7 ms".into());
        table.promised(PROMISE, &[(1.0, 4.0)], "1 MiB".into());
        assert_eq!(table.markdown(), "| memory | ≤ 4 MiB |  | 1 MiB |\n\n| start | 7 ms |\n");
    }
}
