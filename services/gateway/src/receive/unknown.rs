//! Requests to paths that belong to no source: answered with 404, counted, and logged if the path
//! is nearly right. A registry with such an address sends its events in vain.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Sources;

/// Log lines that may follow one another at once. Anybody can send requests, and must not fill the
/// log.
const BURST: u32 = 10;
/// The time after which one more line may follow.
const INTERVAL: Duration = Duration::from_secs(6);

/// The limit on log lines about unknown paths.
#[derive(Debug)]
pub(crate) struct Throttle(Mutex<State>);

#[derive(Debug)]
struct State {
    lines: u32,
    refilled_at: Instant,
    /// Requests without a line since the last line.
    left_out: u64,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle(Mutex::new(State {
            lines: BURST,
            refilled_at: Instant::now(),
            left_out: 0,
        }))
    }
}

impl Throttle {
    /// Returns the number of requests without a line since the last line, if a line may be written
    /// now.
    fn line(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while state.lines < BURST && now.duration_since(state.refilled_at) >= INTERVAL {
            state.lines += 1;
            state.refilled_at += INTERVAL;
        }
        if state.lines == 0 {
            state.left_out += 1;
            return None;
        }
        if state.lines == BURST {
            state.refilled_at = now;
        }
        state.lines -= 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

/// Logs a request to a path below `/hooks` that belongs to no source. `remote` is the address of
/// the client, or of the proxy before the gateway.
pub(crate) fn log(throttle: &Throttle, sources: &Sources, path: &str, remote: Option<SocketAddr>) {
    let Some(rest) = below_hooks(path) else {
        return;
    };
    let Some(left_out) = throttle.line(Instant::now()) else {
        return;
    };
    let remote_address = remote.map_or_else(|| "unknown".to_owned(), |remote| remote.to_string());
    let name = rest.split('/').next().unwrap_or_default();
    match nearest(name, sources.good.keys().map(String::as_str)) {
        Some(source) => tracing::warn!(
            remote_address,
            source,
            left_out,
            "answered 404: no source has the path /hooks/{name}{}; the path of source {source} is /hooks/{source}, or /hooks/{source}/SECRET",
            after(name, rest),
        ),
        None => tracing::warn!(
            remote_address,
            left_out,
            "answered 404: no source has this path below /hooks/; the path of a source is /hooks/SOURCE, or /hooks/SOURCE/SECRET, and SOURCE is the `name` of a [[source]] in tagtrail.toml",
        ),
    }
}

/// Returns the part of a path after `/hooks/`.
fn below_hooks(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/hooks")?;
    match rest.is_empty() {
        true => Some(rest),
        false => rest.strip_prefix('/'),
    }
}

/// Returns the text for the rest of the path, which may hold a secret.
fn after(name: &str, rest: &str) -> &'static str {
    match rest.len() > name.len() {
        true => "/…",
        false => "",
    }
}

/// Returns the source whose name is most similar to `name`, if `name` is so similar that it is a
/// mistyped name. Any other text may be a secret.
fn nearest<'a>(name: &str, sources: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 63;
    if name.len() > LONGEST {
        return None;
    }
    let near = sources.filter_map(|source| {
        let distance = strsim::osa_distance(&name.to_lowercase(), source);
        (distance <= 2 && distance * 2 < source.len()).then_some((distance, source))
    });
    near.min().map(|(_, source)| source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mistyped_name_is_shown() {
        let nearest = |name| nearest(name, ["main", "harbor-eu", "q"].into_iter());
        for (name, expected) in [
            ("mian", Some("main")),
            ("Main", Some("main")),
            ("harbour-eu", Some("harbor-eu")),
            ("main", Some("main")),
            ("hush", None),
            ("5f", None),
            ("", None),
            ("mistyped-secret", None),
        ] {
            assert_eq!(nearest(name), expected, "{name}");
        }
        assert_eq!(below_hooks("/hooks"), Some(""));
        assert_eq!(below_hooks("/hooks/a/b"), Some("a/b"));
        assert_eq!(below_hooks("/hooksa"), None);
        assert_eq!(below_hooks("/webhook"), None);
        assert_eq!(after("mian", "mian/hush"), "/…");
    }

    #[test]
    fn a_flood_makes_few_lines_and_the_next_line_counts_the_rest() {
        let throttle = Throttle::default();
        let lines = |count: usize, now| -> Vec<u64> {
            (0..count).filter_map(|_| throttle.line(now)).collect()
        };
        let now = Instant::now();
        assert_eq!(lines(1000, now), [0; 10]);
        assert_eq!(lines(5, now + INTERVAL * 3), [990, 0, 0]);
        assert_eq!(lines(1000, now + INTERVAL * 1000).len(), 10);
    }
}
