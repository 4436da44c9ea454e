//! Calendar versions by a form of calver.org, such as `YYYY.0M.MICRO[-MODIFIER]`.
//!
//! | word | values |
//! |---|---|
//! | `YYYY`, `YY`, `0Y` | the year: `2006`, or the years since 2000: `6`, or with a zero: `06` |
//! | `MM`, `0M` | the month, `0M` with a zero |
//! | `WW`, `0W` | the week, 1 to 53, `0W` with a zero |
//! | `DD`, `0D` | the day of the month, `0D` with a zero |
//! | `MAJOR`, `MINOR`, `MICRO` | a number of any length without leading zeros |
//! | `MODIFIER` | the rest: letters, digits, `.`, `_` and `-`, compared as a prerelease of `SemVer` |
//!
//! Small letters, digits, `.`, `_` and `-` stand for themselves. Parts in brackets may be missing.

use regex::bytes::Captures;
use time::{Date, Month};

use super::key::{Number, Values};
use super::pattern::{Pattern, group};

/// Most bytes of a form.
const LONGEST: usize = 128;

/// The words, the longer ones before their begins, with their values as regular expressions.
const WORDS: [(&str, Word, &str); 13] = [
    ("YYYY", Word::Year, "[1-9][0-9]{3}"),
    ("YY", Word::ShortYear, "(?:0|[1-9][0-9]{0,2})"),
    ("0Y", Word::ShortYear, "(?:[0-9]{2}|[1-9][0-9]{2})"),
    ("MM", Word::Month, "(?:[1-9]|1[0-2])"),
    ("0M", Word::Month, "(?:0[1-9]|1[0-2])"),
    ("WW", Word::Week, "(?:[1-9]|[1-4][0-9]|5[0-3])"),
    ("0W", Word::Week, "(?:0[1-9]|[1-4][0-9]|5[0-3])"),
    ("DD", Word::Day, "(?:[1-9]|[12][0-9]|3[01])"),
    ("0D", Word::Day, "(?:0[1-9]|[12][0-9]|3[01])"),
    ("MAJOR", Word::Count, "(?:0|[1-9][0-9]*)"),
    ("MINOR", Word::Count, "(?:0|[1-9][0-9]*)"),
    ("MICRO", Word::Count, "(?:0|[1-9][0-9]*)"),
    ("MODIFIER", Word::Modifier, "[0-9A-Za-z._-]+"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Year,
    ShortYear,
    Month,
    Week,
    Day,
    Count,
    Modifier,
}

impl Word {
    /// Returns the place of the word in a date, the largest unit first.
    fn unit(self) -> Option<u8> {
        match self {
            Word::Year | Word::ShortYear => Some(0),
            Word::Month | Word::Week => Some(1),
            Word::Day => Some(2),
            Word::Count | Word::Modifier => None,
        }
    }
}

/// A form of calendar versions.
#[derive(Debug, Clone)]
pub struct Calver {
    pattern: Pattern,
    /// The word of each group of the pattern, from group 1 on.
    words: Vec<Word>,
}

impl Calver {
    /// Parses a form.
    ///
    /// # Errors
    /// For text that is no form, with the cause.
    pub fn parse(form: &str) -> Result<Calver, String> {
        let refused = |cause: String| format!("{form:?} is no calendar version: {cause}");
        if form.len() > LONGEST {
            return Err(format!("a calendar version is at most {LONGEST} bytes"));
        }
        let (expression, words) = expression_of(form).map_err(refused)?;
        let units: Vec<u8> = words.iter().filter_map(|word| word.unit()).collect();
        if units.first() != Some(&0) {
            return Err(refused(
                "write the year, YYYY, YY or 0Y, before month, week and day".into(),
            ));
        }
        if !units.is_sorted_by(|a, b| a < b) {
            return Err(refused(
                "fields are compared from the left, so write year, month or week, and day in this order, each once; for tags in another order use match with order".into(),
            ));
        }
        let modifier = words.iter().position(|word| *word == Word::Modifier);
        if modifier.is_some_and(|at| at + 1 < words.len()) {
            return Err(refused("MODIFIER is the last word".into()));
        }
        let pattern = Pattern::parse(&expression).map_err(refused)?;
        Ok(Calver { pattern, words })
    }

    /// Returns true if the text has this form and its date exists.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.fields(text).is_some()
    }

    /// Adds the fields of a text to a key. Returns none if the text has another form.
    pub(super) fn key(&self, text: &str, values: &mut Values) -> Option<()> {
        let captures = self.fields(text)?;
        for (number, word) in self.words.iter().enumerate() {
            match (group(&captures, number + 1), word) {
                // A version without modifier is above those with one.
                (modifier, Word::Modifier) => values.prerelease(modifier.unwrap_or_default()),
                (Some(field), _) => values.number(Number::whole(field)?),
                (None, _) => values.missing(),
            }
        }
        Some(())
    }

    fn fields<'a>(&self, text: &'a str) -> Option<Captures<'a>> {
        let captures = self.pattern.captures(text)?;
        self.date_exists(&captures)?.then_some(captures)
    }

    fn date_exists(&self, captures: &Captures<'_>) -> Option<bool> {
        let (mut year, mut month, mut day) = (2000, None, None);
        for (number, word) in self.words.iter().enumerate() {
            let Some(field) = group(captures, number + 1) else {
                continue;
            };
            match word {
                Word::Year => year = field.parse().ok()?,
                Word::ShortYear => year = 2000 + field.parse::<i32>().ok()?,
                Word::Month => month = Some(field.parse::<u8>().ok()?),
                Word::Day => day = Some(field.parse::<u8>().ok()?),
                Word::Week | Word::Count | Word::Modifier => {}
            }
        }
        let (Some(month), Some(day)) = (month, day) else {
            return Some(true);
        };
        let month = Month::try_from(month).ok()?;
        Some(Date::from_calendar_date(year, month, day).is_ok())
    }
}

/// Returns the regular expression of a form, and the word of each of its groups.
fn expression_of(form: &str) -> Result<(String, Vec<Word>), String> {
    let (mut expression, mut words) = (String::from("^"), Vec::new());
    let (mut rest, mut depth) = (form, 0_u32);
    while let Some(next) = rest.chars().next() {
        if let Some((name, word, values)) = WORDS.iter().find(|(name, ..)| rest.starts_with(name)) {
            expression.push_str(&format!("({values})"));
            words.push(*word);
            rest = &rest[name.len()..];
            continue;
        }
        rest = &rest[next.len_utf8()..];
        match next {
            '[' => {
                depth += 1;
                expression.push_str("(?:");
            }
            ']' if depth > 0 => {
                depth -= 1;
                expression.push_str(")?");
            }
            '.' => expression.push_str(r"\."),
            'a'..='z' | '0'..='9' | '_' | '-' => expression.push(next),
            next => return Err(format!("{next:?} begins no word such as YYYY, 0M or MICRO")),
        }
    }
    if depth > 0 {
        return Err("a ] is missing".to_owned());
    }
    expression.push('$');
    Ok((expression, words))
}
