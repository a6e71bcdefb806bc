//! Links and headings of a Markdown text, as GitHub and most viewers see them.

/// The targets of the links in a text, outside code, with the line each stands on (from 1).
#[must_use]
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let mut rest = line.as_str();
        while let Some(start) = rest.find("](") {
            rest = &rest[start + 2..];
            let Some(end) = rest.find(')') else { break };
            found.push((number, rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    found
}

/// What `#…` in a link may name: the headings in lower case, with `-` for each space.
#[must_use]
pub fn anchors(text: &str) -> Vec<String> {
    prose(text)
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// Numbered lines outside fenced blocks; what stands between backticks is taken out of them.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        let words = if line.starts_with('#') {
            line.replace('`', "")
        } else {
            line.split('`').step_by(2).collect()
        };
        (!fenced).then_some((index + 1, words))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_code_are_not_links() {
        let text = "[a](b.md) and [c](d#e)\n```\n[x](y)\n```\n`[p](q)`\n[z](w)";
        let expected = [(1, "b.md"), (1, "d#e"), (6, "w")];
        assert_eq!(links(text), expected.map(|(line, link)| (line, link.to_owned())));
    }

    #[test]
    fn anchors_are_as_viewers_make_them() {
        assert_eq!(anchors("# Add a `backend`, first\n\n## Two"), ["add-a-backend-first", "two"]);
    }
}
