//! Go's regular expressions as those of the crate `regex`. Both are of the RE2 family.
//!
//! Differences, for texts of ASCII as tags are:
//! - `\Q…\E` (a literal text) is Go's alone. It is rewritten here.
//! - Within `[…]` the crate takes `&&`, `--`, `~~` and `[` for operators of sets, which are plain
//!   characters in Go; `\<`, `\>` and `\b{start}` are borders of words in the crate, and plain
//!   characters in Go. A pattern with one of these is refused here, so none has another meaning
//!   than in Go.
//! - `{` that begins no count is a plain character in Go. The crate refuses it.
//! - `\d`, `\w`, `\s`, `\b` and `[[:alpha:]]` are of ASCII in both: patterns are compiled without
//!   Unicode classes. `\pL` is refused.
//! - Names of groups that begin with a digit, and octal escapes (`\012`), are refused.
//! - The crate takes a few forms that Go refuses: the flag `x`, counts above 1,000, `a**`.

/// Rewrites a pattern of Go for the crate `regex`.
///
/// # Errors
/// For a pattern that the crate would read in another way than Go, with the cure.
pub(super) fn from_go(pattern: &str) -> Result<String, String> {
    if !pattern.is_ascii() {
        return Err("tags are ASCII; leave out other characters".to_owned());
    }
    let mut rewritten = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut class = Class::Outside;
    while let Some(next) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix(r"\Q").filter(|_| class == Class::Outside) {
            // Without \E, the literal text goes on to the end, as in Go.
            let (literal, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            rewritten.push_str(&regex::escape(literal));
            rest = after;
            continue;
        }
        let length = match (next, class) {
            ('\\', _) => escape(rest)?,
            ('[', Class::Outside) => {
                let opening = opening(rest);
                class = Class::Inside;
                opening
            }
            ('[', Class::Inside) => named_class(rest).ok_or_else(|| refused("[", r"\["))?,
            (']', Class::Inside) => {
                class = Class::Outside;
                1
            }
            ('&' | '-' | '~', Class::Inside) if rest[1..].starts_with(next) => {
                return Err(refused(&rest[..2], &format!(r"\{next}\{next}")));
            }
            _ => 1,
        };
        let (taken, after) = rest.split_at(length);
        rewritten.push_str(taken);
        rest = after;
    }
    Ok(rewritten)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Outside,
    Inside,
}

/// Returns the length of an escape.
fn escape(rest: &str) -> Result<usize, String> {
    match rest.as_bytes().get(1) {
        Some(b'<' | b'>') => Err("no tag contains < or >; leave them out".to_owned()),
        Some(b'b') if rest.as_bytes().get(2) == Some(&b'{') => {
            Err(r"\b{ has several meanings; write \b alone".to_owned())
        }
        Some(_) => Ok(2),
        None => Ok(1),
    }
}

/// Returns the length of `[`, `[^`, `[]` or `[^]`: a bracket that closes nothing is a plain one.
fn opening(rest: &str) -> usize {
    let negated = usize::from(rest[1..].starts_with('^'));
    let literal = usize::from(rest[1 + negated..].starts_with(']'));
    1 + negated + literal
}

/// Returns the length of `[:alpha:]`.
fn named_class(rest: &str) -> Option<usize> {
    let name = rest.strip_prefix("[:")?;
    let end = name.find(|c: char| !(c.is_ascii_alphabetic() || c == '^'))?;
    name[end..].starts_with(":]").then_some(2 + end + 2)
}

fn refused(operator: &str, cure: &str) -> String {
    format!("{operator} within [ ] has several meanings; write {cure} for the plain characters")
}
