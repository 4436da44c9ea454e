//! Patterns over tags: regular expressions with an extracted text, and globs over whole tags.

use std::borrow::Cow;

use regex::bytes::{Captures, Regex, RegexBuilder};

use super::dialect;

/// Most bytes of a pattern, and of a template.
const LONGEST: usize = 1024;
/// Most bytes of a compiled pattern, and of the states that a search keeps.
const LARGEST: usize = 1 << 20;
/// Most references to groups in a template, which bounds the extracted text.
const MOST_GROUPS: usize = 16;

/// A regular expression (RE2 syntax), found anywhere in the tag.
#[derive(Debug, Clone)]
pub struct Pattern {
    regex: Regex,
}

impl Pattern {
    /// Compiles a pattern of at most 1,024 bytes, which needs at most 1 MiB.
    ///
    /// # Errors
    /// For text that is no pattern, with the cause.
    pub fn parse(pattern: &str) -> Result<Pattern, String> {
        let refused = |cause: &str| format!("{pattern:?} is no regular expression: {cause}");
        if pattern.len() > LONGEST {
            return Err(format!("a regular expression is at most {LONGEST} bytes"));
        }
        let pattern = dialect::from_go(pattern).map_err(|cause| refused(&cause))?;
        let regex = RegexBuilder::new(&pattern)
            .unicode(false)
            .size_limit(LARGEST)
            .dfa_size_limit(LARGEST)
            .nest_limit(64)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => {
                    refused("it needs more than 1 MiB; use smaller counts")
                }
                // The message repeats the pattern on lines of its own; the last line is the cause.
                error => {
                    let message = error.to_string();
                    let cause = message.lines().last().unwrap_or_default();
                    refused(cause.trim_start_matches("error: "))
                }
            })?;
        Ok(Pattern { regex })
    }

    /// Returns true if the pattern is found in the text.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text.as_bytes())
    }

    /// Returns the groups of the first match.
    pub(super) fn captures<'a>(&self, text: &'a str) -> Option<Captures<'a>> {
        self.regex.captures(text.as_bytes())
    }

    /// Returns the number of a named group.
    pub(super) fn group(&self, name: &str) -> Option<usize> {
        let mut names = self.regex.capture_names();
        names.position(|group| group == Some(name))
    }
}

/// Returns the text of a group, if the group took part in the match.
pub(super) fn group<'a>(captures: &Captures<'a>, number: usize) -> Option<&'a str> {
    let bytes = captures.get(number)?.as_bytes();
    // A tag is ASCII, so each part of it is UTF-8.
    std::str::from_utf8(bytes).ok()
}

/// The text that is made of a match, as by `Regexp.Expand` of Go: `$1` and `$name` take the longest
/// name of letters, digits and `_`; `${name}` ends it; `$$` is `$`. A group that is unknown or took
/// no part in the match is empty.
#[derive(Debug, Clone)]
pub struct Template {
    pieces: Vec<Piece>,
    /// The references to unknown groups.
    unknown: Vec<String>,
}

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    Group(usize),
}

impl Template {
    /// Parses a template of at most 1,024 bytes of printable ASCII, with at most 16 references.
    ///
    /// # Errors
    /// For a template beyond these bounds.
    pub fn parse(template: &str, pattern: &Pattern) -> Result<Template, String> {
        if template.len() > LONGEST || !template.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(format!(
                "a template is at most {LONGEST} bytes of printable ASCII"
            ));
        }
        let (mut pieces, mut unknown) = (Vec::new(), Vec::new());
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('$') {
            pieces.push(Piece::Text(before.to_owned()));
            if let Some(after) = after.strip_prefix('$') {
                pieces.push(Piece::Text("$".to_owned()));
                rest = after;
            } else if let Some((name, after)) = reference(after) {
                match number_of(name, pattern) {
                    Some(number) => pieces.push(Piece::Group(number)),
                    None => unknown.push(name.to_owned()),
                }
                rest = after;
            } else {
                pieces.push(Piece::Text("$".to_owned()));
                rest = after;
            }
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let groups = pieces
            .iter()
            .filter(|piece| matches!(piece, Piece::Group(_)));
        if groups.count() > MOST_GROUPS {
            return Err(format!(
                "a template has at most {MOST_GROUPS} references to groups"
            ));
        }
        Ok(Template { pieces, unknown })
    }

    /// Returns the text for the first match of the pattern in a tag, or none without a match.
    #[must_use]
    pub fn expand<'a>(&'a self, pattern: &Pattern, tag: &'a str) -> Option<Cow<'a, str>> {
        let captures = pattern.captures(tag)?;
        let mut text = Cow::Borrowed("");
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text += piece.as_str(),
                Piece::Group(number) => text += group(&captures, *number).unwrap_or_default(),
            }
        }
        Some(text)
    }

    /// Returns the references that are always empty.
    #[must_use]
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }
}

/// Returns the name of a reference and the text after it, or none if the `$` is a plain one.
fn reference(text: &str) -> Option<(&str, &str)> {
    let braced = text.strip_prefix('{');
    let text = braced.unwrap_or(text);
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !in_name(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    match braced {
        Some(_) => Some((name, rest.strip_prefix('}')?)),
        None => Some((name, rest)),
    }
}

/// Returns the group that a reference names. A number with a leading zero is a name.
fn number_of(name: &str, pattern: &Pattern) -> Option<usize> {
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    if digits && (name == "0" || !name.starts_with('0')) {
        let number = name.parse().ok()?;
        return (number < pattern.regex.captures_len()).then_some(number);
    }
    pattern.group(name)
}

/// A pattern over a whole tag: `*` is any text, `?` one character, `[a-z]` and `[!a-z]` one of a
/// class, `{a,b}` one of several. At most 256 bytes.
#[derive(Debug, Clone)]
pub struct TagGlob {
    pattern: Pattern,
    text: String,
}

impl TagGlob {
    /// Parses a glob.
    ///
    /// # Errors
    /// For text that is no glob, with the cause.
    pub fn parse(glob: &str) -> Result<TagGlob, String> {
        let refused = |cause: String| format!("{glob:?} is no pattern over tags: {cause}");
        if glob.is_empty() || glob.len() > 256 {
            return Err(refused("it has 1 to 256 bytes".to_owned()));
        }
        let expression = expression_of(glob).map_err(refused)?;
        Ok(TagGlob {
            pattern: Pattern::parse(&expression).map_err(|_| {
                refused("a class such as [a-z] names the lower end first".to_owned())
            })?,
            text: glob.to_owned(),
        })
    }

    /// Returns true if the tag matches.
    #[must_use]
    pub fn matches(&self, tag: &str) -> bool {
        self.pattern.is_match(tag)
    }

    /// Returns the glob as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Returns the regular expression of a glob.
fn expression_of(glob: &str) -> Result<String, String> {
    let mut expression = String::from("^");
    let mut depth = 0_u32;
    let mut rest = glob;
    while let Some(next) = rest.chars().next() {
        rest = &rest[next.len_utf8()..];
        match next {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '[' => {
                let (class, after) = rest
                    .split_once(']')
                    .filter(|(class, _)| is_class(class))
                    .ok_or("[ begins a class such as [a-z], [ab] or [!ab]")?;
                let (sign, class) = match class.strip_prefix(['!', '^']) {
                    Some(class) => ("^", class),
                    None => ("", class),
                };
                expression.push_str(&format!("[{sign}{class}]"));
                rest = after;
            }
            '{' => {
                depth += 1;
                expression.push_str("(?:");
            }
            ',' if depth > 0 => expression.push('|'),
            '}' if depth > 0 => {
                depth -= 1;
                expression.push(')');
            }
            '.' => expression.push_str(r"\."),
            next if next.is_ascii_alphanumeric() || "_-".contains(next) => expression.push(next),
            next => return Err(format!("no tag contains {next:?}")),
        }
    }
    if depth > 0 {
        return Err("{ begins a list such as {dev,main}, and a } is missing".to_owned());
    }
    expression.push('$');
    Ok(expression)
}

/// Returns true for the characters of a class: those of tags, with a hyphen in ranges alone.
fn is_class(class: &str) -> bool {
    let class = class.strip_prefix(['!', '^']).unwrap_or(class);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !class.is_empty() && class.bytes().all(allowed) && !class.contains("--")
}
