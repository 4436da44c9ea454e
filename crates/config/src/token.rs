//! `[[token]]`: the callers of the API, with the role of each and the triggers on which it may act.

use std::fmt;

use serde::Deserialize;
use tagtrail_policy::glob::within_part;
use tagtrail_proto::Name;
use toml::Spanned;

use crate::Secrets;
use crate::file::Mistake;

/// Longest pattern over names of triggers, in bytes: that of a name.
const LONGEST: usize = 63;

/// A token for the API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The token's name, for the log and the record of acts.
    pub name: Spanned<Name>,
    /// The token itself; two during a change.
    pub secret: Secrets,
    /// The permissions.
    pub role: Role,
    /// The triggers on which the token may act. Without this setting: those that carry its name
    /// ([`Token::own`]), or all if no trigger does.
    pub triggers: Option<Vec<TriggerGlob>>,
}

impl Token {
    /// Returns the patterns of the triggers that carry the token's name: the name itself, and the
    /// name with a hyphen before more text.
    #[must_use]
    pub fn own(&self) -> [TriggerGlob; 2] {
        let name = self.name.get_ref();
        [
            TriggerGlob(name.to_string()),
            TriggerGlob(format!("{name}-*")),
        ]
    }

    /// Checks the entry.
    pub(crate) fn check(&mut self) -> Result<(), Mistake> {
        if self.triggers.as_ref().is_some_and(Vec::is_empty) {
            let message = "names no trigger; write patterns such as [\"team-a-*\"], or leave the key out for all triggers";
            let at = self.name.span().start;
            return Err(Mistake::new(at, "token.triggers", message));
        }
        Ok(())
    }
}

/// The permissions of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read history and state.
    Read,
    /// Read, and approve or reject rollouts.
    Approve,
    /// Read, and give orders to triggers.
    Operate,
    /// Post the outcomes of rollouts, and nothing else.
    Report,
}

impl Role {
    /// Returns whether a token of this role has the rights of `needed`.
    #[must_use]
    pub fn includes(self, needed: Role) -> bool {
        self == needed || needed == Role::Read && matches!(self, Role::Approve | Role::Operate)
    }

    /// Returns the word of the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Approve => "approve",
            Role::Operate => "operate",
            Role::Report => "report",
        }
    }
}

/// A pattern over names of triggers, in which `*` is any text, such as `team-a-*`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TriggerGlob(String);

impl TryFrom<String> for TriggerGlob {
    type Error = String;

    fn try_from(text: String) -> Result<TriggerGlob, String> {
        let of_a_name =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-*".contains(&byte);
        if (1..=LONGEST).contains(&text.len()) && text.bytes().all(of_a_name) {
            return Ok(TriggerGlob(text));
        }
        Err(format!(
            "{text:?} is not a pattern over names of triggers; write 1 to {LONGEST} of a-z 0-9 - and *, such as \"team-a-*\""
        ))
    }
}

impl TriggerGlob {
    /// Returns whether the name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        within_part(self.0.as_bytes(), name.as_bytes())
    }

    /// Returns whether some name may match both patterns.
    #[must_use]
    pub fn meets(&self, other: &TriggerGlob) -> bool {
        meet(self.0.as_bytes(), other.0.as_bytes())
    }

    /// Returns whether the pattern matches each name.
    #[must_use]
    pub fn is_of_all(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'*')
    }

    /// Returns whether each name that `other` matches also matches this pattern. May be false for
    /// a pattern with several `*` that is covered nevertheless.
    #[must_use]
    pub fn covers(&self, other: &TriggerGlob) -> bool {
        // A star of `other` can only meet a star of this pattern, which takes any text.
        within_part(self.0.as_bytes(), other.0.as_bytes())
    }
}

/// Returns whether some text matches both patterns. Row by row over the ends of the patterns.
fn meet(one: &[u8], other: &[u8]) -> bool {
    // `row[at]`: whether the rest of `one` and `other[at..]` have a text in common.
    let mut row: Vec<bool> = (0..=other.len())
        .map(|at| other[at..].iter().all(|byte| *byte == b'*'))
        .collect();
    for first in one.iter().rev() {
        let below = row.clone();
        for at in (0..=other.len()).rev() {
            let second = other.get(at);
            row[at] = match (first, second) {
                (b'*', None) => below[at],
                (b'*', Some(_)) => below[at] || row[at + 1],
                (_, Some(b'*')) => below[at] || row[at + 1],
                (first, Some(second)) => first == second && below[at + 1],
                (_, None) => false,
            };
        }
    }
    row[0]
}

impl AsRef<str> for TriggerGlob {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TriggerGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(text: &str) -> TriggerGlob {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn approving_and_operating_include_reading_and_not_each_other() {
        use Role::{Approve, Operate, Read, Report};
        let included = |role: Role| {
            [Read, Approve, Operate, Report].map(|needed| u8::from(role.includes(needed)))
        };
        assert_eq!(included(Read), [1, 0, 0, 0]);
        assert_eq!(included(Approve), [1, 1, 0, 0]);
        assert_eq!(included(Operate), [1, 0, 1, 0]);
        assert_eq!(included(Report), [0, 0, 0, 1]);
    }

    #[test]
    fn a_pattern_covers_narrower_patterns() {
        let team = glob("team-a-*");
        assert!(team.matches("team-a-web") && !team.matches("team-b-web"));
        for (other, covered) in [
            ("team-a-web", true),
            ("team-a-*", true),
            ("team-a-web-*", true),
            ("team-*", false),
            ("*", false),
        ] {
            assert_eq!(team.covers(&glob(other)), covered, "{other}");
        }
        assert!(glob("*").covers(&glob("*-a*")));
        for (one, other, meets) in [
            ("team-a-*", "team-*", true),
            ("team-a-*", "*-web", true),
            ("team-a", "team-b", false),
            ("a*b", "*c", false),
            ("a*b*", "a-b", true),
            ("*", "**", true),
            ("a*", "b*", false),
        ] {
            assert_eq!(glob(one).meets(&glob(other)), meets, "{one} {other}");
            assert_eq!(glob(other).meets(&glob(one)), meets, "{other} {one}");
        }
        for wrong in ["", "Team-*", "team_a", "a/b", &"a".repeat(64)] {
            assert!(TriggerGlob::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
