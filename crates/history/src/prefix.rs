//! Digests that begin with given digits.

use std::fmt;
use std::str::FromStr;

use sqlx::PgConnection;
use tagtrail_postgres::row;
use tagtrail_proto::{Algorithm, Digest};

/// Fewest digits of a prefix. Fewer digits would match many digests of a large history.
const FEWEST: usize = 6;
/// Bytes of the longest digest.
const LONGEST: usize = 64;

/// A whole digest, or its first digits, with or without the hash function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DigestPrefix {
    /// All digits.
    Whole(Digest),
    /// The first digits.
    Prefix {
        /// The hash function, if it is given.
        algorithm: Option<Algorithm>,
        /// The first digits, in lower-case hex.
        digits: String,
    },
}

/// The reason why a text is neither a digest nor the first digits of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDigits {
    /// The hash function is no known one.
    Function,
    /// There are other characters than hex digits.
    NotHex,
    /// There are too few digits.
    TooFew,
    /// There are more digits than a digest has.
    TooMany,
}

impl fmt::Display for NotDigits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotDigits::Function => {
                "the hash function before the colon must be sha256 or sha512, or left out"
            }
            NotDigits::NotHex => {
                "a digest is written with the hex digits 0 to 9 and a to f, in lower case, perhaps after sha256: or sha512:"
            }
            NotDigits::TooFew => {
                "write six or more of the first digits of the digest: fewer match too many digests"
            }
            NotDigits::TooMany => {
                "there are too many digits: a digest has 64 hex digits (sha256) or 128 (sha512)"
            }
        })
    }
}

impl FromStr for DigestPrefix {
    type Err = NotDigits;

    fn from_str(text: &str) -> Result<DigestPrefix, NotDigits> {
        if let Ok(digest) = text.parse() {
            return Ok(DigestPrefix::Whole(digest));
        }
        let (algorithm, digits) = match text.split_once(':') {
            None => (None, text),
            Some(("sha256", digits)) => (Some(Algorithm::Sha256), digits),
            Some(("sha512", digits)) => (Some(Algorithm::Sha512), digits),
            Some(_) => return Err(NotDigits::Function),
        };
        let most = match algorithm {
            Some(Algorithm::Sha256) => LONGEST,
            Some(Algorithm::Sha512) | None => 2 * LONGEST,
        };
        let hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        match digits.len() {
            _ if !digits.bytes().all(hex) => Err(NotDigits::NotHex),
            ..FEWEST => Err(NotDigits::TooFew),
            length if length > most => Err(NotDigits::TooMany),
            _ => Ok(DigestPrefix::Prefix {
                algorithm,
                digits: digits.to_owned(),
            }),
        }
    }
}

impl fmt::Display for DigestPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DigestPrefix::Whole(digest) => digest.fmt(f),
            DigestPrefix::Prefix { algorithm, digits } => {
                let algorithm = algorithm.map(Algorithm::as_str);
                let colon = if algorithm.is_some() { ":" } else { "" };
                write!(f, "{}{colon}{digits}", algorithm.unwrap_or_default())
            }
        }
    }
}

/// The statement of [`digests`]. Each step of the recursion finds the next digest in an index, so
/// that the time depends on the limit, and not on the number of revisions of a digest.
pub const STATEMENT: &str =
    "with recursive of_revision (digest) as (
         (select v.digest from revision v where v.digest >= $1 and v.digest <= $2 order by v.digest limit 1)
         union all
         select (select v.digest from revision v where v.digest > o.digest and v.digest <= $2 order by v.digest limit 1)
         from of_revision o where o.digest is not null
     ), of_manifest (digest) as (
         select m.digest from manifest m where m.digest >= $1 and m.digest <= $2 order by m.digest limit $3
     )
     select digest from (
         (select digest from of_revision where digest is not null limit $3) union select digest from of_manifest) found
     where $4::int is null or octet_length(digest) = $4
     order by digest limit $3";

/// Returns the digests of revisions and manifests that begin with these digits, in order; at most
/// `limit`. A whole digest is returned as it is, known or not.
pub async fn digests(
    db: &mut PgConnection,
    prefix: &DigestPrefix,
    limit: i64,
) -> Result<Vec<Digest>, sqlx::Error> {
    let (algorithm, digits) = match prefix {
        DigestPrefix::Whole(digest) => return Ok(vec![digest.clone()]),
        DigestPrefix::Prefix { algorithm, digits } => (algorithm, digits),
    };
    let bytes = |fill: char| -> Vec<u8> {
        let digits: String = digits
            .chars()
            .chain(std::iter::repeat(fill))
            .take(2 * LONGEST)
            .collect();
        let byte = |place: usize| u8::from_str_radix(&digits[place..place + 2], 16);
        (0..digits.len())
            .step_by(2)
            .filter_map(|place| byte(place).ok())
            .collect()
    };
    // Of digests that begin with the same bytes the shorter is the smaller, so the lower bound has
    // the given digits alone.
    let lower = bytes('0')[..digits.len().div_ceil(2)].to_vec();
    let found: Vec<Vec<u8>> = sqlx::query_scalar(STATEMENT)
        .bind(lower)
        .bind(bytes('f'))
        .bind(limit)
        .bind(algorithm.map(|algorithm| match algorithm {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }))
        .fetch_all(db)
        .await?;
    let digests = found.iter().map(|bytes| row::digest(Some(bytes)));
    Ok(digests
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_six_hex_digits_or_more_and_perhaps_the_function() {
        let whole = format!("sha256:{}", "ab".repeat(32));
        for text in [
            "abcdef",
            "sha256:012345",
            "sha512:0123456789abcdef",
            "abcdef0",
            &whole,
        ] {
            let prefix: DigestPrefix = text.parse().unwrap();
            assert_eq!(prefix.to_string(), text);
        }
        assert!(matches!(whole.parse(), Ok(DigestPrefix::Whole(_))));
        for (text, why) in [
            ("abcde", NotDigits::TooFew),
            ("sha256:abcde", NotDigits::TooFew),
            ("", NotDigits::TooFew),
            ("sha256:", NotDigits::TooFew),
            ("ABCDEF", NotDigits::NotHex),
            ("latest", NotDigits::NotHex),
            ("ab-def", NotDigits::NotHex),
            ("md5:abcdef", NotDigits::Function),
            (":abcdef", NotDigits::Function),
            (&format!("{whole}0"), NotDigits::TooMany),
        ] {
            assert_eq!(text.parse::<DigestPrefix>(), Err(why), "{text}");
        }
    }
}
