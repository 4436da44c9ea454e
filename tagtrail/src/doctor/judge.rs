//! What the answers mean, and what to do about it.

use std::path::Path;

use serde_json::Value;
use tagtrail_config::{File, RegistryAccess, Source};
use tagtrail_proto::{Registry, instant};
use tagtrail_resolver::{CheckError, Ping};
use time::{Duration, OffsetDateTime};

use super::ask::{Asked, Knock};
use super::report::Finding;

/// A clock that is off by more makes events wrongly ordered; by more than [`CLOCK_WRONG`], history itself is wrong, because no
/// event counts as later than that after its receipt.
const CLOCK_OFF: Duration = Duration::seconds(5);
const CLOCK_WRONG: Duration = Duration::seconds(60);
/// A larger share of pushes without an event is worth a look.
const LOST: f64 = 0.01;

/// The file as a whole.
pub(super) fn file(path: &Path, file: &File) -> Finding {
    let path = path.display();
    match (file.source.len(), file.registry.len()) {
        (0, _) => Finding::warning(
            "entries",
            format!("{path} has no [[source]]: nobody may send events"),
            "add a [[source]]; docs/registries.md has one for each kind of registry",
        ),
        (sources, registries) => Finding::ok(
            "entries",
            format!("{path} has {sources} [[source]] and {registries} [[registry]]"),
        ),
    }
}

/// A source, but for its events; `known` are the registries that can be asked.
pub(super) fn source(entry: &Source, asked: &Asked, known: &[&Registry]) -> Vec<Finding> {
    let setup = match &asked.setup {
        Ok(setup) => setup,
        Err(wrong) => {
            return vec![Finding::error(
                "entry",
                wrong,
                "correct the entry: no service starts with it",
            )];
        }
    };
    let mut findings = Vec::new();
    for (kept, tried) in &asked.secrets {
        findings.push(match tried {
            Err(why) => Finding::error("secret", why, "make it readable for whoever runs this"),
            Ok(knock) => gateway(knock, &setup.url, Some(kept)),
        });
    }
    if let Some(knock) = &asked.plain {
        let mut finding = gateway(knock, &setup.url, None);
        if *knock == Knock::Refused && entry.audience.is_some() {
            finding.found += ", and wants a token, which can't be tried from here";
        } else if *knock == Knock::Refused && entry.nats.is_some() {
            finding.found += ", and hears it on a NATS subject, which is not tried from here";
        }
        findings.push(finding);
    }
    if !setup.has_digest {
        findings.push(digests(setup.kind, setup.registry.as_ref(), known));
    }
    findings
}

/// What came of showing the secret that is kept there, or none.
fn gateway(knock: &Knock, url: &str, kept: Option<&str>) -> Finding {
    const CHECK: &str = "gateway";
    let elsewhere = "say where it is with --gateway or TAGTRAIL_GATEWAY";
    match (knock, kept) {
        (Knock::Welcome, Some(kept)) => Finding::ok(CHECK, format!("{url} takes {kept}")),
        (Knock::Welcome, None) => Finding::error(
            CHECK,
            format!("{url} takes events without a secret"),
            format!("that is no gateway of Tagtrail's; {elsewhere}"),
        ),
        (Knock::Refused, None) => Finding::ok(CHECK, format!("{url} knows the source")),
        (Knock::Refused, Some(kept)) => Finding::error(
            CHECK,
            format!("{url} does not take {kept}"),
            "the gateway reads secrets at its start: restart it, and check that it finds there what you find",
        ),
        (Knock::UnknownSource, _) => Finding::error(
            CHECK,
            format!("the gateway knows no such source ({url})"),
            "it reads tagtrail.toml at its start: restart it, and check that it reads this file",
        ),
        (Knock::Other(status @ (403 | 405 | 501)), _) => Finding::warning(
            CHECK,
            format!("{url} answers {status} to OPTIONS, so the secret can't be tried"),
            format!("let OPTIONS pass where a proxy stands before the gateway, or {elsewhere}"),
        ),
        (Knock::Other(status), _) => Finding::error(
            CHECK,
            format!("{url} answers {status}, as no gateway of Tagtrail's does"),
            elsewhere,
        ),
        (Knock::Unreachable(why), _) => Finding::error(
            CHECK,
            format!("nobody answers at {url}: {why}"),
            format!("start it with `tagtrail up` or `tagtrail gateway`, or {elsewhere}"),
        ),
    }
}

/// Whether the digests that its events don't name can be asked for.
fn digests(kind: &str, registry: Option<&Registry>, known: &[&Registry]) -> Finding {
    const CHECK: &str = "digests";
    let cure = |name: &str| {
        format!(
            "add a [[registry]] with name = \"{name}\" and its url; until then its pushes end in quarantine"
        )
    };
    match registry {
        Some(registry) if known.contains(&registry) => Finding::ok(
            CHECK,
            format!("its events name none; {registry} is asked for them"),
        ),
        Some(registry) => Finding::error(
            CHECK,
            format!("events of kind {kind} name none, and {registry} can't be asked for them"),
            cure(registry.as_ref()),
        ),
        None if known.is_empty() => Finding::error(
            CHECK,
            format!("events of kind {kind} name none, and no registry can be asked for them"),
            cure("…"),
        ),
        None => {
            let known: Vec<&str> = known.iter().map(|name| name.as_ref()).collect();
            Finding::ok(
                CHECK,
                format!(
                    "its events name none; they are asked for where events name {}",
                    known.join(" or ")
                ),
            )
        }
    }
}

/// What the API says came of a source.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Heard {
    /// From when on it was looked at.
    pub(super) since: Option<String>,
    /// When the last event came.
    pub(super) last: Option<OffsetDateTime>,
    /// Changes of tags.
    pub(super) changes: u64,
    /// Those of them that were asked about, because an event named no digest or left a doubt.
    pub(super) asked: u64,
    /// Those of them that no event told of.
    pub(super) lost: u64,
    /// Their share, where it is known.
    pub(super) share: Option<f64>,
}

impl Heard {
    /// Reads the answer of `GET /v1/coverage` leniently: what is not there is not known.
    pub(super) fn of(source: &str, registry: Option<&str>, answer: &Value) -> Heard {
        let text = |item: &Value, key: &str| item.get(key)?.as_str().map(str::to_owned);
        let items = answer.get("items").and_then(Value::as_array);
        let items = items.map_or(&[][..], Vec::as_slice);
        let mut of_source: Vec<&Value> = items
            .iter()
            .filter(|item| text(item, "source").as_deref() == Some(source))
            .collect();
        if of_source.is_empty() && registry.is_some() {
            let nobodys = |item: &&Value| {
                text(item, "source").is_none() && text(item, "registry").as_deref() == registry
            };
            of_source = items.iter().filter(nobodys).collect();
        }
        let mut heard = Heard {
            since: text(answer, "since"),
            ..Heard::default()
        };
        for item in of_source {
            let count = |origin: &str| {
                let changes = item.get("changes");
                let count = changes.and_then(|changes| changes.get(origin)?.as_u64());
                count.unwrap_or_default()
            };
            let last = text(item, "last_event_at").and_then(|text| instant::parse(&text));
            heard.last = heard.last.max(last);
            heard.asked += count("resolved");
            heard.lost += count("reconciled");
            heard.changes += count("event") + count("resolved") + count("reconciled");
            let share = item.get("lost_share").and_then(Value::as_f64);
            heard.share = match (heard.share, share) {
                (Some(one), Some(other)) => Some(one.max(other)),
                (one, other) => one.or(other),
            };
        }
        heard
    }

    /// Whether nothing ever came. An event that names no digest is not told as one, but as what was asked because of it.
    pub(super) fn is_silent(&self) -> bool {
        self.last.is_none() && self.asked == 0
    }
}

/// Whether events come, and all of them.
pub(super) fn events(heard: &Heard, now: OffsetDateTime) -> Vec<Finding> {
    const CHECK: &str = "events";
    let since = heard.since.as_ref();
    let since = since.map_or(String::new(), |since| format!(" since {since}"));
    if heard.is_silent() {
        return vec![Finding::warning(
            CHECK,
            format!("none came{since}"),
            "set in its registry what stands below, push an image, and run this again",
        )];
    }
    let found = match heard.last {
        Some(last) => format!("the last one came {} ago", rough(now - last)),
        None if heard.asked == 1 => format!("they told of 1 change{since}"),
        None => format!("they told of {} changes{since}", heard.asked),
    };
    let mut findings = vec![Finding::ok(CHECK, found)];
    if let Some(share) = heard.share.filter(|share| *share > LOST) {
        let percent = share * 100.0;
        let found = match heard.lost {
            0 => format!("the registry lost {percent:.1} % of its webhooks"),
            lost => format!(
                "the registry lost {lost} of {} webhooks ({percent:.1} %)",
                heard.changes
            ),
        };
        findings.push(Finding::warning(
            "lost",
            found,
            "compare its settings with those of --setup; docs/registries.md says what registries of this kind lose, and why",
        ));
    }
    findings
}

/// The largest whole unit.
fn rough(age: Duration) -> String {
    let seconds = age.whole_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

/// The API does not say when events came.
pub(super) fn no_coverage(why: &str) -> Finding {
    Finding::warning(
        "events",
        format!("when events came is not known: {why}"),
        "start the API, or say where it is with --api or TAGTRAIL_API; one of an older version can't tell",
    )
}

/// A registry that is asked.
pub(super) fn registry(access: &RegistryAccess, answer: &Result<Ping, CheckError>) -> Vec<Finding> {
    let (name, url) = (access.name.get_ref(), access.url.get_ref());
    let ping = match answer {
        Ok(ping) => ping,
        Err(CheckError::Entry(wrong)) => {
            return vec![Finding::error(
                "entry",
                wrong,
                "correct the entry: no service starts with it",
            )];
        }
        Err(why @ (CheckError::Unreachable(_) | CheckError::TooLate(_))) => {
            return vec![Finding::error(
                "answer",
                format!("{url}: {why}"),
                format!(
                    "check that it runs, that url of [[registry]] {name} is its address, and that this machine may reach it"
                ),
            )];
        }
    };
    let mut findings = vec![Finding::ok("answer", format!("{url} answers"))];
    findings.push(credentials(access, ping));
    findings.extend(ping.ahead.map(clock));
    findings
}

fn credentials(access: &RegistryAccess, ping: &Ping) -> Finding {
    const CHECK: &str = "credentials";
    let name = access.name.get_ref();
    match (&ping.admitted, ping.scheme, &access.username) {
        (Ok(()), None, _) => Finding::ok(CHECK, "it asks for none"),
        (Ok(()), Some(scheme), Some(user)) => {
            Finding::ok(CHECK, format!("it takes those of {user} ({scheme})"))
        }
        (Ok(()), Some(scheme), None) => {
            Finding::ok(CHECK, format!("it lets anybody in ({scheme})"))
        }
        // Some issue tokens to strangers for single, public repositories alone.
        (Err(why), Some("Bearer"), None) => Finding::warning(
            CHECK,
            format!("without a password {why}"),
            format!(
                "add username and password to [[registry]] {name}, unless all that is asked for is public"
            ),
        ),
        (Err(why), None, _) => Finding::error(
            CHECK,
            why,
            format!(
                "check url of [[registry]] {name}, and what stands between it and this machine"
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

fn clock(ahead: Duration) -> Finding {
    const CHECK: &str = "clock";
    let off = ahead.abs();
    let found = format!(
        "it is {} s {} ours",
        off.whole_seconds(),
        if ahead.is_negative() {
            "behind"
        } else {
            "ahead of"
        }
    );
    let cure =
        "let both machines keep their time by NTP: events are ordered by the registry's clock";
    match () {
        () if off > CLOCK_WRONG => Finding::error(CHECK, found, cure),
        () if off > CLOCK_OFF => Finding::warning(CHECK, found, cure),
        () => Finding::ok(CHECK, "it agrees with ours"),
    }
}

#[cfg(test)]
mod tests;
