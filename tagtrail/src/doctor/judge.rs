//! The findings that follow from the answers, and the cure for each. Pure.

pub(super) mod comparison;
pub(super) mod reasons;
pub(super) mod refused;

use std::path::Path;

use serde_json::Value;
use tagtrail_config::{Broken, File, RegistryAccess};
use tagtrail_proto::{Registry, instant};
use tagtrail_resolver::{CheckError, Ping};
use tagtrail_trigger::{TargetProblem, TargetReport};
use time::{Duration, OffsetDateTime};

use super::ask::{GatewayAnswer, RegistryAnswers, SourceAnswers};
use super::report::Finding;

/// Largest error of a clock without a warning. A larger error orders events wrongly.
const CLOCK_WARNING: Duration = Duration::seconds(5);
/// Largest error of a clock that leaves history right: an event counts as at most this much later
/// than received.
const CLOCK_ERROR: Duration = Duration::seconds(60);
/// Largest share of lost events without a warning.
const MAX_LOST_SHARE: f64 = 0.01;

/// The cure for a broken entry.
const UNTIL_EDITED: &str = "edit the entry as found: until then it is not used";

/// Judges the entries that can't be used.
pub(super) fn broken(file: &File) -> Vec<Finding> {
    let broken = file.broken.iter();
    let finding = |one: &Broken| Finding::error("entry", &one.problem, UNTIL_EDITED);
    broken.map(finding).collect()
}

/// Judges the file as a whole.
pub(super) fn file(path: &Path, file: &File) -> Finding {
    let path = path.display();
    match (file.source.len(), file.registry.len()) {
        (0, _) => Finding::warning(
            "entries",
            format!("{path} has no [[source]], so no events are accepted"),
            "add a [[source]]; docs/registries.md has an example for each kind of registry",
        ),
        (sources, registries) => Finding::ok(
            "entries",
            format!("{path} has {sources} [[source]] and {registries} [[registry]]"),
        ),
    }
}

/// Judges a source, except its events. `configured` are the registries with an entry.
pub(super) fn source(answers: &SourceAnswers, configured: &[&Registry]) -> Vec<Finding> {
    let setup = match &answers.setup {
        Ok(setup) => setup,
        Err(wrong) => {
            return vec![Finding::error("entry", wrong, UNTIL_EDITED)];
        }
    };
    let mut findings = Vec::new();
    if !setup.names_registry {
        findings.push(Finding::warning(
            "registry",
            "the source names no registry, so its events can move the images of every registry",
            "set `registry` of the source; registry = \"any\" if that is intended",
        ));
    }
    for (place, answer) in &answers.secrets {
        findings.push(match answer {
            Err(why) => Finding::error(
                "secret",
                why,
                "let the user who runs this command read the secret",
            ),
            Ok(answer) => gateway(answer, &setup.url, Some(place)),
        });
    }
    if let Some(answer) = &answers.without_secret {
        let mut finding = gateway(answer, &setup.url, None);
        if *answer == GatewayAnswer::Refused && setup.wants_token {
            finding.found += "; its identity token can't be tested by this command";
        } else if *answer == GatewayAnswer::Refused && setup.nats_subject.is_some() {
            finding.found += "; its NATS subject is not tested by this command";
        }
        findings.push(finding);
    }
    if !setup.has_digest {
        findings.push(digests(setup.kind, setup.registry.as_ref(), configured));
    } else if !setup.has_time {
        findings.push(replays(setup.kind, setup.registry.as_ref(), configured));
    }
    findings
}

/// Judges the gateway's answer to the secret from this place, or to a request without a secret.
fn gateway(answer: &GatewayAnswer, url: &str, place: Option<&str>) -> Finding {
    const CHECK: &str = "gateway";
    let address = "set its address with --gateway or TAGTRAIL_GATEWAY";
    match (answer, place) {
        (GatewayAnswer::Accepted, Some(place)) => {
            Finding::ok(CHECK, format!("{url} accepts {place}"))
        }
        (GatewayAnswer::Accepted, None) => Finding::error(
            CHECK,
            format!("{url} accepts events without a secret"),
            format!("this is not Tagtrail's gateway; {address}"),
        ),
        (GatewayAnswer::Refused, None) => Finding::ok(CHECK, format!("{url} has this source")),
        (GatewayAnswer::Refused, Some(place)) => Finding::error(
            CHECK,
            format!("{url} refuses {place}"),
            "the gateway reads secrets when it starts: restart it, and check that it reads the same secret",
        ),
        (GatewayAnswer::UnknownSource, _) => Finding::error(
            CHECK,
            format!("the gateway has no such source ({url})"),
            "the gateway reads tagtrail.toml when it starts: restart it, and check that it reads this file",
        ),
        (GatewayAnswer::Other(status @ (403 | 405 | 501)), _) => Finding::warning(
            CHECK,
            format!("{url} answers {status} to OPTIONS, so the secret can't be tested"),
            format!("let the proxy before the gateway pass OPTIONS requests, or {address}"),
        ),
        (GatewayAnswer::Other(status), _) => Finding::error(
            CHECK,
            format!("{url} answers {status}, which Tagtrail's gateway does not return"),
            address,
        ),
        (GatewayAnswer::Unreachable(why), _) => Finding::error(
            CHECK,
            format!("no answer from {url}: {why}"),
            format!("start it with `tagtrail up` or `tagtrail gateway`, or {address}"),
        ),
    }
}

/// Judges the lookup of digests, for a kind of source whose events lack digests.
fn digests(kind: &str, registry: Option<&Registry>, configured: &[&Registry]) -> Finding {
    const CHECK: &str = "digests";
    let cure = |name: &str| {
        format!(
            "add a [[registry]] with name = \"{name}\" and its url; until then its pushes are quarantined"
        )
    };
    match registry {
        Some(registry) if configured.contains(&registry) => Finding::ok(
            CHECK,
            format!("its events lack digests; {registry} is asked for them"),
        ),
        Some(registry) => Finding::error(
            CHECK,
            format!("events of kind {kind} lack digests, and {registry} has no [[registry]]"),
            cure(registry.as_ref()),
        ),
        None if configured.is_empty() => Finding::error(
            CHECK,
            format!("events of kind {kind} lack digests, and there is no [[registry]]"),
            cure("…"),
        ),
        None => {
            let names: Vec<&str> = configured.iter().map(|name| name.as_ref()).collect();
            Finding::ok(
                CHECK,
                format!(
                    "its events lack digests; the registry is asked for them, if it is {}",
                    names.join(" or ")
                ),
            )
        }
    }
}

/// Judges the protection from a body that is sent again, for a kind of source whose pushes need not
/// have a time of their own.
fn replays(kind: &str, registry: Option<&Registry>, configured: &[&Registry]) -> Finding {
    const CHECK: &str = "replays";
    let asked = match registry {
        Some(registry) => configured.contains(&registry),
        None => !configured.is_empty(),
    };
    let name = registry.map_or("its registry", AsRef::as_ref);
    if asked {
        let found = format!(
            "its events need not have a time; {name} is asked before a return to an older digest is rolled out"
        );
        return Finding::ok(CHECK, found);
    }
    Finding::warning(
        CHECK,
        format!(
            "events of kind {kind} need not have a time, so a body that is sent again rolls its tag back to the older digest"
        ),
        format!("add a [[registry]] for {name}, which is then asked first"),
    )
}

/// The part of the coverage report about a source.
#[derive(Debug, Default, PartialEq)]
pub(super) struct SourceCoverage {
    /// Start of the period of the report.
    pub(super) since: Option<String>,
    /// Time of the last event.
    pub(super) last_event: Option<OffsetDateTime>,
    /// Changes of tags.
    pub(super) changes: u64,
    /// The changes whose digest the registry was asked for.
    pub(super) resolved: u64,
    /// The changes without an event.
    pub(super) lost: u64,
    /// Of those, the changes that a pull showed.
    pub(super) observed: u64,
    /// The changes whose events came in another order than the registry wrote the tag.
    pub(super) reordered: u64,
    /// The share of changes without an event, if reported.
    pub(super) lost_share: Option<f64>,
}

impl SourceCoverage {
    /// Reads the response of `GET /v1/coverage`. Missing fields keep their defaults, since the API
    /// may be of another version.
    pub(super) fn of(source: &str, registry: Option<&str>, report: &Value) -> SourceCoverage {
        let text = |item: &Value, key: &str| item.get(key)?.as_str().map(str::to_owned);
        let items = report.get("items").and_then(Value::as_array);
        let items = items.map_or(&[][..], Vec::as_slice);
        let mut of_source: Vec<&Value> = items
            .iter()
            .filter(|item| text(item, "source").as_deref() == Some(source))
            .collect();
        if of_source.is_empty() && registry.is_some() {
            // Changes in the same registry that no source has reported yet.
            let without_source = |item: &&Value| {
                text(item, "source").is_none() && text(item, "registry").as_deref() == registry
            };
            of_source = items.iter().filter(without_source).collect();
        }
        let mut sum = SourceCoverage {
            since: text(report, "since"),
            ..SourceCoverage::default()
        };
        for item in of_source {
            let count = |origin: &str| {
                let changes = item.get("changes");
                let count = changes.and_then(|changes| changes.get(origin)?.as_u64());
                count.unwrap_or_default()
            };
            let last = text(item, "last_event_at").and_then(|text| instant::parse(&text));
            sum.last_event = sum.last_event.max(last);
            sum.resolved += count("resolved");
            sum.observed += count("observed");
            sum.reordered += count("reordered");
            let lost = count("reconciled") + count("observed");
            sum.lost += lost;
            sum.changes += count("event") + count("resolved") + count("reordered") + lost;
            let share = item.get("lost_share").and_then(Value::as_f64);
            sum.lost_share = match (sum.lost_share, share) {
                (Some(one), Some(other)) => Some(one.max(other)),
                (one, other) => one.or(other),
            };
        }
        sum
    }

    /// Returns true if no event was received. An event without a digest has no time in the report;
    /// such events count as resolved changes.
    pub(super) fn is_silent(&self) -> bool {
        self.last_event.is_none() && self.resolved == 0
    }
}

/// Judges the events of a source: received at all, and lost.
pub(super) fn events(coverage: &SourceCoverage, now: OffsetDateTime) -> Vec<Finding> {
    const CHECK: &str = "events";
    let since = coverage.since.as_ref();
    let since = since.map_or(String::new(), |since| format!(" since {since}"));
    if coverage.is_silent() {
        return vec![Finding::warning(
            CHECK,
            format!("no event received{since}"),
            "apply the settings below to its registry, push an image, and run this command again",
        )];
    }
    let found = match coverage.last_event {
        Some(last) => format!("last event received {} ago", rough(now - last)),
        None if coverage.resolved == 1 => format!("1 change recorded{since}"),
        None => format!("{} changes recorded{since}", coverage.resolved),
    };
    let mut findings = vec![Finding::ok(CHECK, found)];
    let share = coverage.lost_share.filter(|share| *share > MAX_LOST_SHARE);
    if let Some(share) = share {
        let percent = share * 100.0;
        if coverage.observed == coverage.lost && coverage.observed == coverage.changes {
            findings.push(Finding::ok(
                "lost",
                format!(
                    "all {} changes were shown by pulls and none by a push, as a pull-through cache does",
                    coverage.changes
                ),
            ));
            return findings;
        }
        let found = match coverage.lost {
            0 => format!("the registry lost {percent:.1} % of its webhooks"),
            lost => format!(
                "the registry lost {lost} of {} webhooks ({percent:.1} %)",
                coverage.changes
            ),
        };
        findings.push(Finding::warning(
            "lost",
            found,
            "compare its settings with the output of --setup; docs/registries.md lists the events that this kind of registry loses, and why",
        ));
    }
    if coverage.reordered > 0 {
        findings.push(Finding::warning(
            "order",
            format!(
                "{} of {} changes were corrected by a comparison, because the registry reported two pushes of one tag in another order than it wrote the tag; no webhook was lost",
                coverage.reordered, coverage.changes
            ),
            "let only one client at a time push or delete a tag: several clients push the same tags at the same time",
        ));
    }
    findings
}

/// Judges the target of a trigger.
pub(super) fn target(report: &TargetReport) -> Vec<Finding> {
    const CHECK: &str = "target";
    if report.problems.is_empty() {
        return vec![Finding::ok(
            CHECK,
            match report.kind.as_str() {
                "kubernetes" => "the objects can be read, changed and watched".to_owned(),
                kind => format!("the {kind} can be reached"),
            },
        )];
    }
    problems(CHECK, &report.problems)
}

/// Judges the discovery of annotated objects of a cluster.
pub(super) fn cluster(found: &[TargetProblem]) -> Vec<Finding> {
    const CHECK: &str = "annotations";
    if found.is_empty() {
        return vec![Finding::ok(CHECK, "annotated objects can be followed")];
    }
    problems(CHECK, found)
}

/// Judges the receiver of messages of an entry `[[notify]]`.
pub(super) fn receiver(found: &[TargetProblem]) -> Vec<Finding> {
    const CHECK: &str = "receiver";
    if found.is_empty() {
        let hint = "it can be reached; tagtrail notify test sends it a sample";
        return vec![Finding::ok(CHECK, hint)];
    }
    problems(CHECK, found)
}

fn problems(check: &'static str, found: &[TargetProblem]) -> Vec<Finding> {
    let finding = |problem: &TargetProblem| match problem.fatal {
        true => Finding::error(check, &problem.found, &problem.cure),
        false => Finding::warning(check, &problem.found, &problem.cure),
    };
    found.iter().map(finding).collect()
}

/// Judges the images of a trigger that have no history.
pub(super) fn images(unseen: &[String]) -> Option<Finding> {
    let subject = match unseen {
        [] => return None,
        [image] => format!("{image} was never seen"),
        images => format!("{} were never seen", images.join(", ")),
    };
    Some(Finding::warning(
        "images",
        format!("{subject}, so the trigger starts no rollout"),
        "push each image once, or correct its name: tagtrail images lists the images that were seen",
    ))
}

/// Formats a duration in the largest unit, rounded down.
fn rough(age: Duration) -> String {
    let seconds = age.whole_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

/// The finding for a coverage report that can't be read.
pub(super) fn no_coverage(why: &str) -> Finding {
    Finding::warning(
        "events",
        format!("the last events are unknown: {why}"),
        "start the API, or correct its address; an older version has no coverage report",
    )
}

/// Judges a registry.
pub(super) fn registry(access: &RegistryAccess, answers: &RegistryAnswers) -> Vec<Finding> {
    let (name, url) = (access.name.get_ref(), access.url.get_ref());
    let ping = match &answers.ping {
        Ok(ping) => ping,
        Err(CheckError::Entry(wrong)) => {
            return vec![Finding::error("entry", wrong, UNTIL_EDITED)];
        }
        Err(why @ (CheckError::Unreachable(_) | CheckError::TooLate(_))) => {
            return vec![Finding::error(
                "answer",
                format!("{url}: {why}"),
                format!(
                    "check that it runs, that url of [[registry]] {name} is its address, and that this machine can reach it"
                ),
            )];
        }
    };
    let mut findings = vec![Finding::ok("answer", format!("{url} answers"))];
    findings.push(credentials(access, ping));
    // Without the right credentials no list can be read either.
    let list = answers.list.as_ref().filter(|_| ping.admitted.is_ok());
    findings.extend(list.map(|(repository, answer)| comparison::tags(repository, answer)));
    findings.extend(ping.ahead.map(clock));
    findings
}

/// Judges the registry's answer to the credentials.
fn credentials(access: &RegistryAccess, ping: &Ping) -> Finding {
    const CHECK: &str = "credentials";
    let name = access.name.get_ref();
    match (&ping.admitted, ping.scheme, &access.username) {
        (Ok(()), None, _) => Finding::ok(CHECK, "none required"),
        (Ok(()), Some(scheme), Some(user)) => {
            Finding::ok(CHECK, format!("it accepts those of {user} ({scheme})"))
        }
        (Ok(()), Some(scheme), None) => {
            Finding::ok(CHECK, format!("it permits anonymous access ({scheme})"))
        }
        // Some registries issue anonymous tokens only for single public repositories.
        (Err(why), Some("Bearer"), None) => Finding::warning(
            CHECK,
            format!("without a password: {why}"),
            format!(
                "add username and password to [[registry]] {name}, unless all its repositories are public"
            ),
        ),
        (Err(why), None, _) => Finding::error(
            CHECK,
            why,
            format!(
                "check url of [[registry]] {name}, and the proxies between it and this machine"
            ),
        ),
        (Err(why), Some(_), _) => Finding::error(
            CHECK,
            why,
            format!(
                "correct username and password of [[registry]] {name}, and restart the resolver"
            ),
        ),
    }
}

/// Judges the clock of a registry that is ahead of this machine's clock by this much.
fn clock(ahead: Duration) -> Finding {
    const CHECK: &str = "clock";
    let off = ahead.abs();
    let found = format!(
        "{} s {} this machine's clock",
        off.whole_seconds(),
        if ahead.is_negative() {
            "behind"
        } else {
            "ahead of"
        }
    );
    let cure = "synchronize both clocks by NTP: history has the times of the registry's clock";
    match () {
        () if off > CLOCK_ERROR => Finding::error(CHECK, found, cure),
        () if off > CLOCK_WARNING => Finding::warning(CHECK, found, cure),
        () => Finding::ok(CHECK, "it agrees with this machine's clock"),
    }
}

#[cfg(test)]
mod tests;
