//! The form of the output: format, width, colour and time zone.

use anstream::AutoStream;
use clap::ValueEnum;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tagtrail_proto::instant;
use time::{OffsetDateTime, UtcOffset};

/// Width of tables if standard output is no terminal and no width is given.
const WIDTH: u16 = 80;
/// Most columns of a table: the eye loses the row in a wider one.
const WIDEST: u16 = 200;

/// Returns the width of the terminal of standard output; `None` if it is no terminal.
pub(crate) fn terminal() -> Option<u16> {
    comfy_table::Table::new().width()
}

/// The formats of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table as wide as the terminal: long names are cut, digests and times are short.
    Table,
    /// A table with whole names, digests and times.
    Wide,
    /// JSON, for programs.
    Json,
}

/// Arguments of all commands that print tables.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Format {
    /// Format of the output.
    #[arg(long, short, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
    /// Print the times of tables in UTC, and read times without a zone as UTC.
    #[arg(long, env = "TAGTRAIL_UTC", overrides_with = "local", global = true)]
    utc: bool,
    /// Print the times of tables in this machine's time zone (the default).
    #[arg(long, global = true)]
    local: bool,
    /// Width of tables, 200 at most [default: width of the terminal, or 80].
    #[arg(long, env = "COLUMNS", global = true)]
    width: Option<String>,
}

impl Format {
    /// Returns the form for standard output.
    pub(crate) fn screen(&self) -> Screen {
        // A text that is no number is ignored: other programs set `COLUMNS`, too.
        let given = self.width.as_deref().and_then(|width| width.parse().ok());
        let width = given.or_else(terminal);
        let never = anstream::ColorChoice::Never;
        Screen {
            output: self.output,
            width: (self.output != Output::Wide).then(|| width.unwrap_or(WIDTH).min(WIDEST)),
            colour: AutoStream::choice(&std::io::stdout()) != never,
            zone: (self.local || !self.utc).then(TimeZone::system),
        }
    }
}

/// The form of the output.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    pub(crate) output: Output,
    /// Most columns of a line. `None`: no limit, and nothing is shortened.
    pub(crate) width: Option<u16>,
    pub(crate) colour: bool,
    /// The zone of times. `None`: UTC.
    pub(crate) zone: Option<TimeZone>,
}

impl Screen {
    /// Formats a time of the API in the zone of the screen, with its offset: without the fraction,
    /// unless nothing is shortened.
    pub(crate) fn time(&self, text: &str) -> String {
        let Some(time) = instant::parse(text) else {
            return text.to_owned();
        };
        let (local, short) = (self.local(time), self.width.is_some());
        match short {
            true => format!("{} {}{}", local.date(), clock(local), offset(local)),
            false if self.zone.is_none() => text.to_owned(),
            false => {
                let rfc3339 = time::format_description::well_known::Rfc3339;
                local.format(&rfc3339).unwrap_or_else(|_| text.to_owned())
            }
        }
    }

    /// Returns the day with its offset, and the time of the day, of a time of the API.
    pub(crate) fn day_and_time(&self, text: &str) -> Option<(String, String)> {
        let local = self.local(instant::parse(text)?);
        let day = format!("{} {}", local.date(), offset(local));
        Some((day, clock(local)))
    }

    /// Shortens a digest to its first 12 hexadecimal digits, which every command accepts. Only an
    /// algorithm other than SHA-256 is named.
    pub(crate) fn digest(&self, digest: &str) -> String {
        let Some((algorithm, hex)) = digest.split_once(':').filter(|_| self.width.is_some()) else {
            return digest.to_owned();
        };
        let short = hex.get(..12).unwrap_or(hex);
        match algorithm {
            "sha256" => short.to_owned(),
            _ => format!("{algorithm}:{short}"),
        }
    }

    fn local(&self, time: OffsetDateTime) -> OffsetDateTime {
        let offset = self.zone.as_ref().and_then(|zone| {
            let moment = Timestamp::from_second(time.unix_timestamp()).ok()?;
            UtcOffset::from_whole_seconds(zone.to_offset(moment).seconds()).ok()
        });
        let local = offset.and_then(|offset| time.checked_to_offset(offset));
        local.unwrap_or(time)
    }
}

fn clock(time: OffsetDateTime) -> String {
    let (hour, minute, second) = time.to_hms();
    format!("{hour:02}:{minute:02}:{second:02}")
}

/// Formats the offset of a time as RFC 3339 does: `+01:00`, or `Z`.
fn offset(time: OffsetDateTime) -> String {
    let (hours, minutes, _) = time.offset().as_hms();
    match (time.offset().is_utc(), time.offset().is_negative()) {
        (true, _) => "Z".to_owned(),
        (false, negative) => {
            let sign = if negative { '-' } else { '+' };
            format!("{sign}{:02}:{:02}", hours.abs(), minutes.abs())
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A screen of this width.
    pub(crate) fn screen(width: u16) -> Screen {
        Screen {
            output: Output::Table,
            width: Some(width),
            colour: false,
            zone: None,
        }
    }

    /// The form of `--output wide`.
    pub(crate) fn wide() -> Screen {
        Screen {
            output: Output::Wide,
            width: None,
            ..screen(0)
        }
    }

    #[test]
    fn times_have_their_seconds_in_the_zone_of_the_screen() {
        let berlin = Screen {
            zone: Some(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()),
            ..screen(80)
        };
        for (time, utc, local) in [
            (
                "2026-01-01T23:30:00.123456Z",
                "2026-01-01 23:30:00Z",
                "2026-01-02 00:30:00+01:00",
            ),
            (
                "2026-07-01T23:30:00Z",
                "2026-07-01 23:30:00Z",
                "2026-07-02 01:30:00+02:00",
            ),
            ("-", "-", "-"),
        ] {
            assert_eq!(screen(80).time(time), utc);
            assert_eq!(berlin.time(time), local);
            assert_eq!(wide().time(time), time);
        }
        let newfoundland = Screen {
            zone: Some(TimeZone::posix("NST3:30NDT,M3.2.0,M11.1.0").unwrap()),
            ..screen(80)
        };
        assert_eq!(
            newfoundland.time("2026-01-01T23:30:00Z"),
            "2026-01-01 20:00:00-03:30"
        );
        let wide = Screen {
            width: None,
            ..berlin
        };
        assert_eq!(
            wide.time("2026-07-01T23:30:00.5Z"),
            "2026-07-02T01:30:00.5+02:00"
        );
    }

    #[test]
    fn digests_are_short_and_whole_in_wide_tables() {
        let sha256 = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let sha512 = format!("sha512:{}", "0123456789abcdef".repeat(8));
        assert_eq!(screen(80).digest(&sha256), "0123456789ab");
        assert_eq!(screen(80).digest(&sha512), "sha512:0123456789ab");
        assert_eq!(screen(80).digest("-"), "-");
        assert_eq!(wide().digest(&sha512), sha512);
    }
}
