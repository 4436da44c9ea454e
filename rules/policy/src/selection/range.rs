//! Ranges of versions as Masterminds/semver reads them (v3.4.0 and later). The code of the library
//! counts, not its documentation: [`Range::warnings`] names the spellings where the two differ.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};

use super::semver::{Version, compare_prereleases, number, split};

/// Most bytes of a range.
const LONGEST: usize = 512;

/// The prereleases that a range takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prereleases {
    /// Those that a group of the range takes: all within its bounds if one of its versions has a
    /// prerelease, else none.
    #[default]
    Range,
    /// All within the bounds.
    All,
    /// None.
    None,
}

/// A range: groups joined by `||`, of comparisons joined by commas or blanks.
#[derive(Debug, Clone)]
pub struct Range {
    groups: Vec<Group>,
    /// Ranges with a hyphen that swallowed a `||` before them.
    swallowed: Vec<String>,
}

/// Comparisons that must all hold.
#[derive(Debug, Clone)]
struct Group {
    comparisons: Vec<Comparison>,
    /// True if one version of the group has a prerelease: then all prereleases are compared.
    prereleases: bool,
}

#[derive(Debug, Clone)]
struct Comparison {
    operator: Operator,
    open: Open,
    version: Version<'static>,
    /// The comparison as written.
    text: String,
    /// True if numbers stand after a wildcard.
    ignored: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Above,
    Below,
    AtLeast,
    AtMost,
    Tilde,
    Caret,
}

/// The parts of a version that are missing or wildcards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    All,
    /// Minor and patch.
    Minor,
    Patch,
}

/// The longer signs first.
const SIGNS: [(&str, Operator); 11] = [
    ("!=", Operator::Unequal),
    (">=", Operator::AtLeast),
    ("=>", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("=<", Operator::AtMost),
    ("~>", Operator::Tilde),
    ("=", Operator::Equal),
    (">", Operator::Above),
    ("<", Operator::Below),
    ("~", Operator::Tilde),
    ("^", Operator::Caret),
];

impl Range {
    /// Parses a range of at most 512 bytes.
    ///
    /// # Errors
    /// For text that the library refuses, with the cause.
    pub fn parse(text: &str) -> Result<Range, String> {
        if text.len() > LONGEST || !text.is_ascii() {
            return Err(format!("a range is at most {LONGEST} bytes of ASCII"));
        }
        let (rewritten, swallowed) = hyphens(text);
        let groups = rewritten.split("||").map(Group::parse);
        let groups = groups
            .collect::<Result<_, String>>()
            .map_err(|cause| format!("{text:?} is no range of versions: {cause}"))?;
        Ok(Range { groups, swallowed })
    }

    /// Returns true if the range takes the version.
    #[must_use]
    pub fn has(&self, version: &Version<'_>, prereleases: Prereleases) -> bool {
        self.groups.iter().any(|group| {
            let open = match prereleases {
                Prereleases::Range => group.prereleases,
                Prereleases::All => true,
                Prereleases::None => false,
            };
            (open || version.is_release()) && group.comparisons.iter().all(|one| one.holds(version))
        })
    }

    /// Returns a sentence for each spelling that takes other versions than most people expect.
    #[must_use]
    pub fn warnings(&self, prereleases: Prereleases) -> Vec<String> {
        let swallowed = self.swallowed.iter().map(|text| {
            format!(
                "{text:?} is read as \">={}\": the part before || belongs to the hyphen range; write a blank after ||",
                text.split("||").next().unwrap_or_default()
            )
        });
        let groups = self.groups.iter().flat_map(|group| {
            let open = match prereleases {
                Prereleases::Range => group.prereleases,
                Prereleases::All => true,
                Prereleases::None => false,
            };
            let warning = move |one: &Comparison| one.warning(open);
            group.comparisons.iter().filter_map(warning)
        });
        swallowed.chain(groups).collect()
    }
}

impl Group {
    fn parse(text: &str) -> Result<Group, String> {
        let mut rest = text.trim_ascii_start();
        if rest.is_empty() {
            return Err("a part beside || is empty, or all of it".to_owned());
        }
        let mut comparisons = Vec::new();
        loop {
            let (comparison, after) = Comparison::take(rest)?;
            comparisons.push(comparison);
            rest = after.trim_ascii_start();
            if rest.is_empty() {
                break;
            }
            if let Some(after) = rest.strip_prefix(',') {
                rest = after.trim_ascii_start();
                if rest.is_empty() {
                    return Err("nothing follows the last comma".to_owned());
                }
            }
        }
        let prereleases = comparisons.iter().any(|one| !one.version.is_release());
        Ok(Group {
            comparisons,
            prereleases,
        })
    }
}

impl Comparison {
    /// Parses the first comparison of a text. Returns the rest of the text with it.
    fn take(text: &str) -> Result<(Comparison, &str), String> {
        let signed = SIGNS.iter().find_map(|(sign, operator)| {
            let after = text.strip_prefix(sign)?;
            Some((*operator, after.trim_ascii_start()))
        });
        let (operator, after) = signed.unwrap_or((Operator::Equal, text));
        let is_end = |c: char| c.is_ascii_whitespace() || c == ',';
        let (word, rest) = after.split_at(after.find(is_end).unwrap_or(after.len()));
        let written = text[..text.len() - rest.len()].to_owned();
        let comparison = Comparison::of(operator, word, written)
            .ok_or_else(|| format!("{word:?} is no version of a range, such as 1.2.3 or 1.x"))?;
        Ok((comparison, rest))
    }

    fn of(operator: Operator, word: &str, text: String) -> Option<Comparison> {
        let (core, prerelease) = split(word.strip_prefix('v').unwrap_or(word))?;
        let parts: Vec<&str> = core.split('.').collect();
        // The class of the library's expression has `|` too; a part with it is no number.
        let allowed = |byte: u8| byte.is_ascii_digit() || b"xX*|".contains(&byte);
        if parts.len() > 3
            || parts
                .iter()
                .any(|part| part.is_empty() || !part.bytes().all(allowed))
        {
            return None;
        }
        let is_open = |part: Option<&&str>| part.is_none_or(|part| is_wildcard(part));
        let known = (0..3).find(|n| is_open(parts.get(*n))).unwrap_or(3);
        let open = [Open::All, Open::Minor, Open::Patch, Open::Nothing][known];
        let mut numbers = [0; 3];
        for (number_, part) in numbers.iter_mut().zip(&parts[..known]) {
            *number_ = number(part)?;
        }
        Some(Comparison {
            operator,
            open,
            version: Version {
                parts: numbers,
                prerelease: Cow::Owned(prerelease.unwrap_or_default().to_owned()),
            },
            ignored: parts.iter().skip(known).any(|part| !is_wildcard(part)),
            text,
        })
    }

    fn holds(&self, version: &Version<'_>) -> bool {
        let bound = &self.version;
        match (self.operator, self.open) {
            (Operator::Equal, Open::Nothing) => version == bound,
            (Operator::Equal | Operator::Tilde, _) => version >= bound && self.same_minor(version),
            (Operator::Unequal, _) => self.differs(version),
            (Operator::Above, Open::Nothing | Open::All) => version > bound,
            (Operator::Above, Open::Minor) => version.parts[0] > bound.parts[0],
            (Operator::Above, Open::Patch) => version.parts[..2] > bound.parts[..2],
            (Operator::Below, _) => version < bound,
            (Operator::AtLeast, _) => version >= bound,
            (Operator::AtMost, Open::Nothing) => version <= bound,
            (Operator::AtMost, Open::Minor) => version.parts[0] <= bound.parts[0],
            (Operator::AtMost, Open::Patch | Open::All) => version.parts[..2] <= bound.parts[..2],
            (Operator::Caret, _) => version >= bound && self.compatible(version),
        }
    }

    /// The upper bound of `~`. `~0.0.0` and `*` have none.
    fn same_minor(&self, version: &Version<'_>) -> bool {
        let known = match self.open {
            Open::Nothing | Open::All if self.version.parts == [0; 3] => 0,
            Open::Minor => 1,
            Open::Nothing | Open::All | Open::Patch => 2,
        };
        version.parts[..known] == self.version.parts[..known]
    }

    /// The upper bound of `^`: the first number that is not zero, of those that are known.
    fn compatible(&self, version: &Version<'_>) -> bool {
        let [major, minor, _] = self.version.parts;
        let known = if major > 0 || self.open == Open::Minor {
            1
        } else if minor > 0 || self.open == Open::Patch {
            2
        } else {
            3
        };
        version.parts[..known] == self.version.parts[..known]
    }

    fn differs(&self, version: &Version<'_>) -> bool {
        let bound = &self.version;
        match self.open {
            Open::Nothing => version != bound,
            Open::All => version.parts != [0; 3] || version.prerelease != bound.prerelease,
            Open::Minor => version.parts[0] != bound.parts[0],
            Open::Patch => {
                version.parts[..2] != bound.parts[..2]
                    || compare_prereleases(&version.prerelease, &bound.prerelease).is_ne()
            }
        }
    }

    /// Returns a sentence if the comparison takes other versions than most people expect.
    /// `prereleases`: true if prereleases are compared.
    fn warning(&self, prereleases: bool) -> Option<String> {
        let text = &self.text;
        let Version { parts, .. } = self.version;
        let unbounded = self.operator == Operator::Tilde && parts == [0; 3];
        let next = |sign: &str| {
            format!(
                "{text:?} takes prereleases of {}; write \"{sign}{0}-0\" to leave them out",
                self.version
            )
        };
        Some(match (self.operator, self.open) {
            (Operator::Caret, Open::All) => format!("{text:?} takes 0.0.0 alone; write \"*\""),
            (Operator::AtMost, Open::All) => format!("{text:?} takes 0.0.x alone; write \"*\""),
            (Operator::Below, Open::All) => format!("{text:?} takes no version"),
            (Operator::Unequal, Open::All) => format!("{text:?} takes all versions but 0.0.0"),
            (Operator::Tilde, Open::Nothing) if unbounded => {
                format!("{text:?} takes every version; write \"=0.0.0\" or \"~0.0\"")
            }
            _ if self.ignored => {
                format!("{text:?} has numbers after a wildcard, which have no effect")
            }
            (Operator::Below, _) if prereleases && self.version.is_release() => next("<"),
            _ => return None,
        })
    }
}

fn is_wildcard(part: &str) -> bool {
    matches!(part, "x" | "X" | "*")
}

/// Rewrites `a - b` to `>= a, <= b `, as text and before anything else is read. So the blanks
/// around it are gone, and a `||` right before it belongs to its version. Returns also the hyphen
/// ranges with such a `||`.
fn hyphens(text: &str) -> (String, Vec<String>) {
    let mut swallowed = Vec::new();
    let rewritten = HYPHEN.replace_all(text, |found: &Captures<'_>| {
        if found[1].contains("||") {
            swallowed.push(found[0].trim_ascii().to_owned());
        }
        format!(">= {}, <= {} ", &found[1], &found[2])
    });
    (rewritten.into_owned(), swallowed)
}

#[expect(
    clippy::unwrap_used,
    reason = "a constant expression, which every test compiles"
)]
static HYPHEN: LazyLock<Regex> = LazyLock::new(|| {
    let part = r"[0-9|xX*]+";
    let identifiers = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*";
    let version =
        format!(r"v?{part}(?:\.{part})?(?:\.{part})?(?:-{identifiers})?(?:\+{identifiers})?");
    let blank = r"[\t\n\f\r ]";
    Regex::new(&format!(
        "{blank}*({version}){blank}+-{blank}+({version}){blank}*"
    ))
    .unwrap()
});
