//! How clusters and nodes are addressed: by name, by pattern, by labels.
//!
//! ```text
//! selector   = part *( "&" part )          all parts hold for the same cluster or node
//! part       = pattern / expression        an expression has a ",", a "=" or a "!"
//! expression = term *( "," term )          all terms hold
//! term       = key                         the label is there, whatever its value
//!            / "!" key                     it is not there
//!            / key "=" pattern             it is there with such a value
//!            / key "!=" pattern            it is not there with such a value
//! pattern    = 1*( character / "*" / "?" ) "*" is any text, "?" any one character
//! ```
//!
//! A word alone is a name: whoever asks for a label alone writes `gpu=*`, or asks where only
//! labels can be meant ([`Labels`]). A label is `key=value` or `key`; the same key may stand
//! on one thing several times.
//!
//! Invariants: a pattern is matched whole, never as a part of a name; reading and matching
//! are total, and take at most the product of both lengths.

use std::fmt;
use std::str::FromStr;

/// Longest selector: some labels and a name of the longest form, a line for people.
pub const SELECTOR_BYTES_MAX: usize = 512;

/// Terms and parts of one selector, as a bound on the work of matching it.
pub const SELECTOR_TERMS_MAX: usize = 32;

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Longer than [`SELECTOR_BYTES_MAX`].
    #[error("a selector has at most {SELECTOR_BYTES_MAX} bytes, got {0}")]
    TooLong(usize),
    /// More than [`SELECTOR_TERMS_MAX`].
    #[error("a selector has at most {SELECTOR_TERMS_MAX} terms")]
    TooManyTerms,
    /// A wrong character, or none where one belongs.
    #[error("selector {text:?}, character {at}: {why}")]
    Form {
        /// The whole.
        text: String,
        /// Where, from 1.
        at: usize,
        /// What is wrong there.
        why: &'static str,
    },
}

/// Chooses clusters or nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Name(Pattern),
    Labels(Labels),
}

/// An expression over labels: here a word alone is a label's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    key: String,
    /// `None` is whatever value.
    value: Option<Pattern>,
    /// Whether such a label has to be there, or must not.
    wanted: bool,
}

/// A text with `*` and `?` in it, or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    is_exact: bool,
}

impl Selector {
    /// Whether what has this name and these labels is chosen.
    pub fn matches<S: AsRef<str>>(&self, name: &str, labels: &[S]) -> bool {
        self.parts.iter().all(|part| match part {
            Part::Name(pattern) => pattern.matches(name),
            Part::Labels(expression) => expression.matches(labels),
        })
    }

    /// The pattern of names, if the selector is nothing else.
    pub fn pattern(&self) -> Option<&Pattern> {
        match &self.parts[..] {
            [Part::Name(pattern)] => Some(pattern),
            _ => None,
        }
    }
}

impl Labels {
    /// Whether something with these labels is chosen.
    pub fn matches<S: AsRef<str>>(&self, labels: &[S]) -> bool {
        self.terms.iter().all(|term| term.is_there(labels) == term.wanted)
    }

    /// Whether something may be chosen of many that have these labels together: what is
    /// asked for has to be there at least once, and what must not be there may be missing on
    /// one of them.
    pub fn may_match_one_of<S: AsRef<str>>(&self, labels: &[S]) -> bool {
        self.terms.iter().all(|term| !term.wanted || term.is_there(labels))
    }
}

impl Term {
    fn is_there<S: AsRef<str>>(&self, labels: &[S]) -> bool {
        labels.iter().any(|label| {
            let label = label.as_ref();
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            key == self.key && self.value.as_ref().is_none_or(|pattern| pattern.matches(value))
        })
    }
}

impl Pattern {
    /// The one text that it matches, if it is one.
    pub fn exact(&self) -> Option<&str> {
        self.is_exact.then_some(&self.text)
    }

    /// Whether the whole text is as the pattern says.
    pub fn matches(&self, text: &str) -> bool {
        if self.is_exact {
            return self.text == text;
        }
        glob(&self.text, text)
    }
}

/// Matches from the left; after a mismatch the last `*` takes one character more.
fn glob(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    let mut star: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let here = text.clone();
        match (pattern.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                text = here;
                star = Some((pattern.clone(), text.clone()));
            }
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {}
            _ => {
                let Some((after_star, taken)) = &mut star else { return false };
                if taken.next().is_none() {
                    return false;
                }
                pattern = after_star.clone();
                text = taken.clone();
            }
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let reader = Reader::new(text)?;
        let mut parts = Vec::new();
        let mut terms = 0;
        for (at, part) in pieces(text, 0, '&') {
            let part = if part.contains(['=', ',', '!']) {
                let labels = reader.labels(at, part)?;
                terms += labels.terms.len();
                Part::Labels(labels)
            } else {
                terms += 1;
                Part::Name(reader.pattern(at, part)?)
            };
            if terms > SELECTOR_TERMS_MAX {
                return Err(SelectorError::TooManyTerms);
            }
            parts.push(part);
        }
        Ok(Self { parts })
    }
}

impl FromStr for Labels {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Reader::new(text)?.labels(0, text)
    }
}

/// Pieces between separators, each with the place where it begins.
fn pieces(text: &str, start: usize, separator: char) -> impl Iterator<Item = (usize, &str)> {
    let mut at = start;
    text.split(separator).map(move |piece| {
        let here = at;
        at += piece.len() + separator.len_utf8();
        (here, piece)
    })
}

/// Reads pieces of one text; places are bytes in it.
struct Reader<'a> {
    text: &'a str,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Result<Self, SelectorError> {
        match text.len() {
            0..=SELECTOR_BYTES_MAX => Ok(Self { text }),
            bytes => Err(SelectorError::TooLong(bytes)),
        }
    }

    fn wrong(&self, at: usize, why: &'static str) -> SelectorError {
        let before = self.text.get(..at).unwrap_or(self.text);
        SelectorError::Form { text: self.text.to_owned(), at: before.chars().count() + 1, why }
    }

    fn labels(&self, at: usize, text: &str) -> Result<Labels, SelectorError> {
        let mut terms = Vec::new();
        for (at, term) in pieces(text, at, ',') {
            if terms.len() >= SELECTOR_TERMS_MAX {
                return Err(SelectorError::TooManyTerms);
            }
            terms.push(self.term(at, term)?);
        }
        Ok(Labels { terms })
    }

    fn term(&self, at: usize, text: &str) -> Result<Term, SelectorError> {
        if let Some((key, value)) = text.split_once('=') {
            let value = self.pattern(at + key.len() + 1, value)?;
            let (key, wanted) = key.strip_suffix('!').map_or((key, true), |key| (key, false));
            return Ok(Term { key: self.key(at, key)?, value: Some(value), wanted });
        }
        let start = text.len() - text.trim_start().len();
        match text.trim_start().strip_prefix('!') {
            Some(key) => {
                Ok(Term { key: self.key(at + start + 1, key)?, value: None, wanted: false })
            }
            None => Ok(Term { key: self.key(at, text)?, value: None, wanted: true }),
        }
    }

    fn key(&self, at: usize, text: &str) -> Result<String, SelectorError> {
        let key = self.word(at, text)?;
        match key.find(['*', '?']) {
            None => Ok(key.to_owned()),
            Some(_) => Err(self.wrong(at, "a label's key is no pattern")),
        }
    }

    fn pattern(&self, at: usize, text: &str) -> Result<Pattern, SelectorError> {
        let text = self.word(at, text)?.to_owned();
        Ok(Pattern { is_exact: !text.contains(['*', '?']), text })
    }

    /// A word without the spaces around it.
    fn word<'b>(&self, at: usize, text: &'b str) -> Result<&'b str, SelectorError> {
        let start = at + text.len() - text.trim_start().len();
        let word = text.trim();
        if word.is_empty() {
            return Err(self.wrong(at, "a word is missing"));
        }
        for (offset, c) in word.char_indices() {
            let why = match c {
                '=' | '!' | ',' | '&' => "'=', '!', ',' and '&' cannot stand in a word",
                ';' => "';' parts selectors and cannot stand in one",
                c if c.is_control() => "control characters cannot stand in a word",
                _ => continue,
            };
            return Err(self.wrong(start + offset, why));
        }
        Ok(word)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.parts.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "&" })?;
            match part {
                Part::Name(pattern) => f.write_str(&pattern.text)?,
                Part::Labels(labels) => labels.fmt(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Term { key, value, wanted }) in self.terms.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            match (value, wanted) {
                (Some(value), true) => write!(f, "{key}={}", value.text)?,
                (Some(value), false) => write!(f, "{key}!={}", value.text)?,
                (None, true) => f.write_str(key)?,
                (None, false) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
