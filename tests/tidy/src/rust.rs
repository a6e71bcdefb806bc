//! Just enough of Rust's grammar to measure functions and to find undocumented limits.
//!
//! A lexer, not a parser: it knows comments, strings and characters, so that a brace inside one
//! doesn't count, and nothing of types. That is why it needs no dependency and is quick.

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line its `fn` stands on, from 1.
    pub line: usize,
    /// From that line to the closing brace, both counted.
    pub lines: usize,
}

/// The functions of a file, in the order they begin.
#[must_use]
pub fn functions(text: &str) -> Vec<Function> {
    let code = blank(text);
    let mut found = Vec::new();
    let mut position = 0;
    while let Some(start) = next_keyword_fn(&code, position) {
        position = start + 2;
        let after = &code[position..];
        let name: String =
            after.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        // `fn(u8)` is a type.
        if name.is_empty() {
            continue;
        }
        let Some(end) = body_end(after) else { continue };
        let line = 1 + newlines(&code[..start]);
        found.push(Function { name, line, lines: 1 + newlines(&after[..end]) });
    }
    found
}

/// Constants of a module's top level named `…_MAX` that no `///` explains, as line (from 1) and
/// name. One comment may explain constants that follow each other without a blank line; tables of
/// numbers that a standard gives stand in a module of their own.
#[must_use]
pub fn undocumented_limits(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let declares = line.starts_with("const ") || line.starts_with("pub");
        let Some((_, rest)) = line.split_once("const ").filter(|_| declares) else { continue };
        let Some(name) = rest.split(':').next().filter(|name| name.ends_with("_MAX")) else {
            continue;
        };
        let skipped = |line: &str| line.starts_with("#[") || line.contains("const ");
        let above = lines[..index].iter().rev().find(|above| !skipped(above));
        if !above.is_some_and(|above| above.starts_with("///")) {
            found.push((index + 1, name.to_owned()));
        }
    }
    found
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

fn next_keyword_fn(code: &str, from: usize) -> Option<usize> {
    let bytes = code.as_bytes();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'#';
    (from..bytes.len().saturating_sub(2)).find(|&at| {
        &bytes[at..at + 2] == b"fn" && !word(bytes[at + 2]) && (at == 0 || !word(bytes[at - 1]))
    })
}

/// Where the body closes, or nothing for a declaration that ends in `;`.
fn body_end(after: &str) -> Option<usize> {
    let mut braces = 0_usize;
    let mut brackets = 0_usize;
    for (at, byte) in after.bytes().enumerate() {
        match byte {
            // `[u8; 4]` in a signature holds a semicolon that ends nothing.
            b'[' | b'(' if braces == 0 => brackets += 1,
            b']' | b')' if braces == 0 => brackets = brackets.saturating_sub(1),
            b';' if braces == 0 && brackets == 0 => return None,
            b'{' => braces += 1,
            b'}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 && brackets == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// The text with comments, strings and characters replaced by spaces, newlines kept.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = token_end(bytes, at);
        if end == at + 1 && !matches!(bytes[at], b'"') {
            // A byte of a longer character would leave the copy invalid; none means anything here.
            out.push(if bytes[at].is_ascii() { bytes[at] } else { b' ' });
        } else {
            out.extend(bytes[at..end].iter().map(|&b| if b == b'\n' { b'\n' } else { b' ' }));
        }
        at = end;
    }
    String::from_utf8(out).unwrap_or_default()
}

/// Where the comment, string or character that begins here ends; otherwise one byte on.
fn token_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + block_comment_length(rest),
        [b'"', ..] => at + string_length(rest),
        [b'r', b'"' | b'#', ..] if !after_word => at + raw_string_length(rest, 1),
        [b'b', b'r', b'"' | b'#', ..] if !after_word => at + raw_string_length(rest, 2),
        [b'\'', ..] => at + character_length(rest),
        _ => at + 1,
    }
}

fn block_comment_length(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string_length(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|&&b| b == b'#').count();
    // `r#type` is an identifier.
    if rest.get(prefix + hashes) != Some(&b'"') {
        return 1;
    }
    let mut closing = vec![b'"'];
    closing.resize(1 + hashes, b'#');
    let body = prefix + hashes + 1;
    let found = rest[body..].windows(closing.len()).position(|window| window == closing);
    found.map_or(rest.len(), |position| body + position + closing.len())
}

/// `'{'` is a character, `'static` a lifetime.
fn character_length(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        let close = rest.iter().skip(3).position(|&b| b == b'\'');
        return close.map_or(1, |position| position + 4);
    }
    // A character takes one to four bytes.
    let close = rest.iter().take(6).skip(2).position(|&b| b == b'\'');
    match close {
        Some(0) => 3,
        Some(position) if !rest[1].is_ascii() => position + 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(text: &str) -> Vec<(String, usize, usize)> {
        functions(text).into_iter().map(|f| (f.name, f.line, f.lines)).collect()
    }

    #[test]
    fn braces_in_text_do_not_count() {
        let text = "fn a() {\n let _ = (\"}\", '}', '\\'', r#\"}\"#, b'}', 'é'); // }\n /* } /* } */ } */\n}\n\
                    fn b<'x>(_: &'x str) {}\n";
        assert_eq!(lengths(text), [("a".into(), 1, 4), ("b".into(), 5, 1)]);
    }

    #[test]
    fn types_and_declarations_are_not_functions() {
        let text =
            "type F = fn(u8) -> u8;\ntrait T {\n fn x(&self, _: [u8; 4]);\n fn y() {\n }\n}\n";
        assert_eq!(lengths(text), [("y".into(), 4, 2)]);
    }

    #[test]
    fn nested_functions_are_found_too() {
        let text = "fn outer() {\n fn inner() {\n }\n let r#fn = 1;\n}\n";
        assert_eq!(lengths(text), [("outer".into(), 1, 5), ("inner".into(), 2, 2)]);
    }

    #[test]
    fn a_limit_without_a_reason_is_found() {
        let text = "/// Why.\n#[rustfmt::skip]\npub const A_MAX: usize = 1;\nconst A_B_MAX: u8 = 2;\n\nconst B_MAX: usize = 2;\n\
                    mod property {\n const C_MAX: u8 = 3;\n}\n";
        assert_eq!(undocumented_limits(text), [(6, "B_MAX".to_owned())]);
    }
}
