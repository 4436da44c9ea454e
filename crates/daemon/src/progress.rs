//! The progress of long work: a bar on a terminal, and a line each ten seconds elsewhere.
//!
//! A command draws on standard error. A service writes lines to its log, even on a terminal, where
//! other lines of the log would tear a bar.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

/// Time between two lines, and before the first one: short work is silent.
const LINE: Duration = Duration::from_secs(10);
/// Time between two drawings of the bar, and before the first one.
const DRAW: Duration = Duration::from_millis(200);
/// Columns of the bar. The longest report beside it ends within 80 columns.
const WIDTH: u64 = 10;

/// The progress of long work.
#[derive(Debug)]
pub struct Progress {
    work: String,
    unit: &'static str,
    output: Output,
    pace: Pace,
    done: u64,
    total: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// A bar on standard error.
    Bar,
    /// Lines on standard error.
    Lines,
    /// Lines in the log.
    Log,
}

impl Progress {
    /// The progress of a command. `unit` is the plural of the counted things.
    #[must_use]
    pub fn of_command(work: impl Into<String>, unit: &'static str) -> Progress {
        let output = match stderr().is_terminal() {
            true => Output::Bar,
            false => Output::Lines,
        };
        Progress::new(work.into(), unit, output)
    }

    /// The progress of work of a service.
    #[must_use]
    pub fn of_service(work: impl Into<String>, unit: &'static str) -> Progress {
        Progress::new(work.into(), unit, Output::Log)
    }

    fn new(work: String, unit: &'static str, output: Output) -> Progress {
        let every = match output {
            Output::Bar => DRAW,
            Output::Lines | Output::Log => LINE,
        };
        Progress {
            work,
            unit,
            output,
            pace: Pace::new(every, Instant::now()),
            done: 0,
            total: 0,
        }
    }

    /// Reports how much is done, if a report is due.
    pub fn set(&mut self, done: u64, total: u64) {
        (self.done, self.total) = (done, total.max(done));
        self.tick();
    }

    /// Repeats the last report, if one is due. Work whose steps take long calls this in between.
    pub fn tick(&mut self) {
        let Some(elapsed) = self.pace.due(Instant::now()) else {
            return;
        };
        let text = text(&self.work, self.unit, self.done, self.total, elapsed);
        // A failed write to standard error can't be reported anywhere.
        match self.output {
            Output::Bar => {
                let bar = bar(self.done, self.total);
                let _ = write!(stderr(), "{}", drawing(&bar, &text));
            }
            Output::Lines => {
                let _ = writeln!(stderr(), "{text}");
            }
            Output::Log => tracing::info!(done = self.done, total = self.total, "{text}"),
        }
    }

    /// Runs a step of the work, and reports in between.
    pub async fn during<T>(&mut self, step: impl Future<Output = T>) -> T {
        let mut every = tokio::time::interval(DRAW);
        tokio::pin!(step);
        loop {
            tokio::select! {
                biased;
                done = &mut step => return done,
                _ = every.tick() => self.tick(),
            }
        }
    }

    /// Returns how much is done, and of how much.
    #[must_use]
    pub fn state(&self) -> (u64, u64) {
        (self.done, self.total)
    }

    /// Returns whether anything was reported.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        self.pace.reported
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.output == Output::Bar && self.is_visible() {
            let _ = write!(stderr(), "\r\x1b[2K");
        }
    }
}

/// Returns the text that replaces the line of the bar. Without automatic margins a terminal cuts
/// a line that is too long: the rest of a wrapped line would stay on the screen.
fn drawing(bar: &str, text: &str) -> String {
    format!("\r\x1b[2K\x1b[?7l[{bar}] {text}\x1b[?7h")
}

/// Decides when a report is due.
#[derive(Debug)]
struct Pace {
    every: Duration,
    started: Instant,
    last: Instant,
    reported: bool,
}

impl Pace {
    fn new(every: Duration, now: Instant) -> Pace {
        Pace {
            every,
            started: now,
            last: now,
            reported: false,
        }
    }

    /// Returns the time since the start, if a report is due.
    fn due(&mut self, now: Instant) -> Option<Duration> {
        if now.duration_since(self.last) < self.every {
            return None;
        }
        self.last = now;
        self.reported = true;
        Some(now.duration_since(self.started))
    }
}

/// Returns the report: `comparing r.example.com: 120 of 480 repositories, 12/s, 30s left`.
fn text(work: &str, unit: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let so_far = format!("{work}: {done} of {total} {unit}");
    if done == 0 || seconds == 0 {
        return format!("{so_far}, {} so far", rough(seconds));
    }
    let in_time = |span: u64| u128::from(done) * u128::from(span) / u128::from(seconds);
    let rate = match [(1, "s"), (60, "min"), (3600, "h")].map(|(span, unit)| (in_time(span), unit))
    {
        [_, _, (0, _)] => String::new(),
        [(0, _), (0, _), (rate, unit)] | [(0, _), (rate, unit), _] | [(rate, unit), ..] => {
            format!(" {rate}/{unit},")
        }
    };
    let left = u128::from(total.saturating_sub(done)) * u128::from(seconds) / u128::from(done);
    let left = rough(u64::try_from(left).unwrap_or(u64::MAX));
    format!("{so_far},{rate} {left} left")
}

/// Returns a time in its two largest units.
fn rough(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}min {}s", seconds % 60),
        _ => format!("{hours}h {}min", minutes % 60),
    }
}

fn bar(done: u64, total: u64) -> String {
    let full = u128::from(done) * u128::from(WIDTH) / u128::from(total.max(1));
    let full = usize::try_from(full.min(u128::from(WIDTH))).unwrap_or(0);
    "#".repeat(full) + &"-".repeat(WIDTH as usize - full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_due_each_ten_seconds_and_short_work_has_none() {
        let start = Instant::now();
        let mut pace = Pace::new(LINE, start);
        let mut due = |millis| pace.due(start + Duration::from_millis(millis));
        assert_eq!(due(0), None);
        assert_eq!(due(9_999), None);
        assert_eq!(due(10_000), Some(Duration::from_secs(10)));
        assert_eq!(due(10_001), None);
        assert_eq!(due(19_999), None);
        // A long step delays a report, and no two reports follow at once.
        assert_eq!(due(45_000), Some(Duration::from_secs(45)));
        assert_eq!(due(50_000), None);
        assert!(pace.reported);
    }

    #[test]
    fn a_report_has_what_is_done_the_rate_and_the_remaining_time() {
        let line = |done, total, seconds| {
            text(
                "comparing",
                "tags",
                done,
                total,
                Duration::from_secs(seconds),
            )
        };
        assert_eq!(line(0, 7, 20), "comparing: 0 of 7 tags, 20s so far");
        assert_eq!(
            line(120, 480, 10),
            "comparing: 120 of 480 tags, 12/s, 30s left"
        );
        assert_eq!(
            line(3, 16, 60),
            "comparing: 3 of 16 tags, 3/min, 4min 20s left"
        );
        assert_eq!(line(1, 3, 7200), "comparing: 1 of 3 tags, 4h 0min left");
        assert_eq!(line(5, 5, 10), "comparing: 5 of 5 tags, 30/min, 0s left");
        // No number is too large.
        let _ = line(1, u64::MAX, u64::MAX / 7200);
    }

    #[test]
    fn the_bar_has_the_same_width_at_all_times() {
        assert_eq!(bar(0, 0), "----------");
        assert_eq!(bar(1, 2), "#####-----");
        assert_eq!(bar(4, 4), "##########");
        assert_eq!(bar(u64::MAX, 1), "##########");
    }

    #[test]
    fn the_reports_of_all_commands_fit_80_columns() {
        let time = Duration::from_secs(110);
        for (work, unit, done, total) in [
            ("migrating the schema", "migrations", 10, 16),
            ("copying the database", "MB", 12_345, 99_999),
        ] {
            let line = format!(
                "[{}] {}",
                bar(done, total),
                text(work, unit, done, total, time)
            );
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn a_drawing_stays_on_its_line_and_leaves_the_terminal_as_it_was() {
        let drawing = drawing(&bar(1, 2), &"long ".repeat(40));
        let (start, end) = ("\r\x1b[2K\x1b[?7l", "\x1b[?7h");
        assert!(drawing.starts_with(start) && drawing.ends_with(end));
        assert!(!drawing.contains('\n'));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_step_is_reported_while_it_runs() {
        let mut progress = Progress::new("migrating".to_owned(), "steps", Output::Lines);
        progress.pace = Pace::new(Duration::ZERO, Instant::now());
        let step = tokio::time::sleep(Duration::from_secs(1));
        progress.during(step).await;
        assert!(progress.is_visible());
    }
}
