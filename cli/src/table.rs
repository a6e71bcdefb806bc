//! Tables: columns two spaces apart, cut to the width there is.
//!
//! Why our own: what is wanted is little, and a crate for it weighs more than the rest of the
//! command. Every character counts as one column wide, which holds for the names that the SLA
//! allows; an exotic one in an error text only shifts its own row.
//!
//! Invariant: a name is cut before its end, which tells it apart: service and number.

/// How a column gives way when the terminal is narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Not at all: half a number is a wrong number.
    Never,
    /// After a third: for names.
    Middle,
    /// At the end: for free text.
    End,
}

/// A heading and how its column gives way.
pub(crate) type Column = (&'static str, Cut);

/// Columns between columns.
const GAP: usize = 2;

/// What a cut column keeps at least: less tells nothing apart.
const CUT_COLUMNS_MIN: usize = 10;

/// Draws a table; `width` is `None` where nothing limits it. Cells have no line breaks.
pub(crate) fn render(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let widths = widths(columns, rows, width);
    let headings = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for ((cell, (_, cut)), width) in row.iter().zip(columns).zip(&widths) {
            let cell = if cell.is_empty() { "-" } else { cell };
            let cell = shorten(cell, *width, *cut);
            let pad = width - cell.chars().count().min(*width) + GAP;
            line.push_str(&cell);
            line.extend(std::iter::repeat_n(' ', pad));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn widths(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> Vec<usize> {
    let mut widths: Vec<usize> = columns.iter().map(|(heading, _)| heading.len()).collect();
    for row in rows {
        for (cell, width) in row.iter().zip(&mut widths) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let Some(limit) = width else { return widths };
    let gaps = GAP * columns.len().saturating_sub(1);
    // Free text gives way before names do, and the widest of each first.
    for cut in [Cut::End, Cut::Middle] {
        while widths.iter().sum::<usize>() + gaps > limit {
            let least = |index: usize| columns[index].0.len().max(CUT_COLUMNS_MIN);
            let gives = |index: &usize| columns[*index].1 == cut && widths[*index] > least(*index);
            match (0..widths.len()).filter(gives).max_by_key(|index| widths[*index]) {
                Some(index) => widths[index] -= 1,
                None => break,
            }
        }
    }
    widths
}

/// Cuts a text to a width, with a mark where something is missing.
pub(crate) fn shorten(text: &str, width: usize, cut: Cut) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= width || cut == Cut::Never || width == 0 {
        return text.to_owned();
    }
    let tail = if cut == Cut::Middle { (width - 1) * 2 / 3 } else { 0 };
    let head = width - 1 - tail;
    let end = &characters[characters.len() - tail..];
    characters[..head].iter().chain(&['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] =
        &[("NAME", Cut::Middle), ("RESTARTS", Cut::Never), ("DETAIL", Cut::End)];

    fn rows() -> Vec<Vec<String>> {
        let row = |name: &str, restarts: &str, detail: &str| {
            vec![name.to_owned(), restarts.to_owned(), detail.to_owned()]
        };
        vec![
            row("clientsrvr.test.nginx.test.0", "0", ""),
            row("a.b.c.d.12", "3", "exit code 1: cannot open /etc/nginx/nginx.conf"),
        ]
    }

    #[test]
    fn without_a_limit_nothing_is_cut() {
        let expected = "\
NAME                          RESTARTS  DETAIL
clientsrvr.test.nginx.test.0  0         -
a.b.c.d.12                    3         exit code 1: cannot open /etc/nginx/nginx.conf
";
        assert_eq!(render(COLUMNS, &rows(), None), expected);
        assert_eq!(render(COLUMNS, &rows(), Some(200)), expected);
    }

    #[test]
    fn narrow_terminals_cut_free_text_first() {
        assert_eq!(
            render(COLUMNS, &rows(), Some(60)),
            "\
NAME                          RESTARTS  DETAIL
clientsrvr.test.nginx.test.0  0         -
a.b.c.d.12                    3         exit code 1: cannot…
"
        );
        assert_eq!(
            render(COLUMNS, &rows(), Some(46)),
            "\
NAME                      RESTARTS  DETAIL
clientsr…st.nginx.test.0  0         -
a.b.c.d.12                3         exit code…
"
        );
    }

    #[test]
    fn too_narrow_is_drawn_all_the_same() {
        let drawn = render(COLUMNS, &rows(), Some(5));
        assert_eq!(
            drawn,
            "\
NAME        RESTARTS  DETAIL
cli…test.0  0         -
a.b.c.d.12  3         exit code…
"
        );
    }

    #[test]
    fn cuts_count_characters_not_bytes() {
        assert_eq!(shorten("äöüäöü", 4, Cut::Middle), "ä…öü");
        assert_eq!(shorten("äöüäöü", 4, Cut::End), "äöü…");
        assert_eq!(shorten("äöüäöü", 6, Cut::End), "äöüäöü");
        assert_eq!(shorten("äöüäöü", 1, Cut::Middle), "…");
    }
}
