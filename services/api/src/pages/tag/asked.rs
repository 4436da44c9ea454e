//! The question in the address of a tag's page.

use axum::http::Uri;
use tagtrail_history::instant::Instant;
use tagtrail_proto::Image;
use time::{Duration, OffsetDateTime};

use crate::http::error::Error;
use crate::http::paging::CURSOR;
use crate::http::parameters::{AT, KNOWN_AT, Parameter, Parameters, optional, text};
use crate::operations::history::BEFORE;
use crate::pages::part::image;
use crate::pages::part::lane::Window;
use crate::pages::part::question::past;

const WINDOW: Parameter = optional("window", "The time that the row covers.", "30d", text);
const KNOWN: &[Parameter] = &[AT, KNOWN_AT, WINDOW, CURSOR, BEFORE];

/// The time that the row of a tag covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    Day,
    Week,
    Month,
    Quarter,
    All,
}

impl Span {
    pub(crate) const ALL: [(Span, &'static str, &'static str); 5] = [
        (Span::Day, "24h", "24 h"),
        (Span::Week, "7d", "7 d"),
        (Span::Month, "30d", "30 d"),
        (Span::Quarter, "90d", "90 d"),
        (Span::All, "all", "all"),
    ];

    /// Returns the window of this length that ends now, or whose middle is the time asked for.
    pub(crate) fn window(
        self,
        since: OffsetDateTime,
        at: Option<OffsetDateTime>,
        now: OffsetDateTime,
    ) -> Window {
        let days = match self {
            Span::Day => 1,
            Span::Week => 7,
            Span::Month => 30,
            Span::Quarter => 90,
            Span::All => {
                let least = now - Duration::HOUR;
                return Window {
                    from: since.min(at.unwrap_or(since)).min(least),
                    until: now,
                };
            }
        };
        let half = Duration::hours(12 * days);
        let until = at.and_then(|at| at.checked_add(half));
        Window::days(days, until.map_or(now, |until| until.min(now)))
    }
}

/// The question in the address.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) parameters: Parameters,
    /// The past that the page shows.
    pub(crate) at: Option<OffsetDateTime>,
    /// Revisions recorded later do not count for the answer.
    pub(crate) known_at: Option<OffsetDateTime>,
    /// The time that the reader chose for the row.
    pub(crate) chosen: Option<Span>,
    /// Whether a time was written in another form than the address has.
    pub(crate) lenient: bool,
}

impl Asked {
    pub(crate) fn read(uri: &Uri, now: OffsetDateTime) -> Result<Asked, Error> {
        let parameters = Parameters::read(uri, KNOWN)?;
        let at = past(&parameters, AT.name, now)?;
        let known_at = past(&parameters, KNOWN_AT.name, now)?;
        let lenient = at.iter().chain(&known_at).any(|time| !time.lasts);
        let [at, known_at] = [at, known_at].map(|time| time.map(|time| time.at));
        let word = parameters.written("window");
        let chosen = Span::ALL.iter().find(|(_, name, _)| Some(*name) == word);
        Ok(Asked {
            at: at.or(known_at),
            known_at,
            chosen: chosen.map(|(span, ..)| *span),
            lenient,
            parameters,
        })
    }

    /// Returns the time that the row covers for a tag that was first pushed at `since`: 30 days, or
    /// the whole history of a younger tag.
    pub(crate) fn span(&self, since: OffsetDateTime, now: OffsetDateTime) -> Span {
        let usual = match now - since < Duration::days(30) {
            true => Span::All,
            false => Span::Month,
        };
        self.chosen.unwrap_or(usual)
    }

    /// Returns the address of the same question, with these changes.
    pub(crate) fn address(&self, image: &Image, change: Change<'_>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let (at, known_at) = match change {
            Change::At { at, known_at } => (at, known_at),
            _ => (self.at, self.known_at),
        };
        for (name, time) in [("at", at), ("known_at", known_at)] {
            if let Some(time) = time {
                query.append_pair(name, &Instant(time).to_string());
            }
        }
        let span = match change {
            Change::Span(span) => Some(span),
            _ => self.chosen,
        };
        let word = Span::ALL.iter().find(|(one, ..)| Some(*one) == span);
        if let Some((_, word, _)) = word {
            query.append_pair("window", word);
        }
        match change {
            Change::Older(cursor) => {
                query.append_pair("cursor", cursor);
            }
            Change::Newer(cursor) => {
                query.append_pair("before", cursor);
            }
            _ => {}
        }
        let address = image::address(image);
        match query.finish() {
            query if query.is_empty() => address,
            query => format!("{address}?{query}"),
        }
    }
}

/// The difference of another address of a tag's page from the present one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    At {
        at: Option<OffsetDateTime>,
        known_at: Option<OffsetDateTime>,
    },
    Span(Span),
    Older(&'a str),
    Newer(&'a str),
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> OffsetDateTime {
        tagtrail_proto::instant::parse("2026-11-23T14:31:08Z").unwrap()
    }

    fn asked(query: &str) -> Result<Asked, Error> {
        let uri = format!("/i/r.example.com/a:b?{query}").parse().unwrap();
        Asked::read(&uri, now())
    }

    #[test]
    fn a_time_in_another_form_leads_to_the_form_of_the_address() {
        let image: Image = "r.example.com/a:b".parse().unwrap();
        let typed = asked("at=3+Mar+14:02&known_at=&window=7d").unwrap();
        assert!(typed.lenient && typed.known_at.is_none());
        let address = typed.address(&image, Change::Nothing);
        let expected = "/i/r.example.com/a:b?at=2026-03-03T14%3A02%3A00Z&window=7d";
        assert_eq!(address, expected);
        let (_, query) = address.split_once('?').unwrap();
        assert!(!asked(query).unwrap().lenient);
        assert!(matches!(
            asked("at=soon"),
            Err(Error::PastTyped { field: "at" })
        ));
        assert!(asked("when=now").is_err());
    }

    #[test]
    fn the_row_of_a_young_tag_covers_its_whole_history() {
        let span = |query: &str, days| {
            let since = now() - Duration::days(days);
            asked(query).unwrap().span(since, now())
        };
        assert_eq!((span("", 29), span("", 31)), (Span::All, Span::Month));
        assert_eq!(span("window=30d", 1), Span::Month);
    }

    #[test]
    fn a_window_ends_now_or_has_the_moment_in_its_middle() {
        let window = |at| Span::Month.window(now(), at, now());
        assert_eq!(window(None).until, now());
        let at = now() - Duration::days(100);
        assert_eq!(window(Some(at)).until, at + Duration::days(15));
        assert_eq!(window(Some(now())).until, now());
        let since = now() - Duration::days(700);
        assert_eq!(Span::All.window(since, None, now()).from, since);
    }
}
