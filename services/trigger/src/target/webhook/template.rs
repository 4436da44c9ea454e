//! The template of a body, over the rollout.
//!
//! Steps and output of a template are counted, but not the texts that it keeps. So a template may
//! not make a text from itself repeatedly: it sets no variables, its loops go over parts of the
//! rollout, and it does not multiply. Then no text is longer than the template times a name.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, Value, filters, tests};
use tagtrail_config::Trigger;
use tagtrail_proto::{Cause, CauseReason, Digest, Rollout, RolloutImage, RolloutState};
use time::OffsetDateTime;

/// Most steps of the template's program.
const STEPS: u64 = 50_000;
/// Most bytes of a body.
const LARGEST: usize = 1 << 20;
/// Most bytes of a template.
const LONGEST: usize = 16 << 10;
/// The tags that a template may have. Others, such as `set`, keep texts.
const TAGS: [&str; 6] = ["for", "endfor", "if", "elif", "else", "endif"];
/// Stands for `*` while a template is parsed and rendered, so that no expression multiplies a text.
/// The character is for private use, and no name has it.
const STAR: char = '\u{f0000}';

/// A template that can be rendered within bounds. It reads no file and no other template.
pub(crate) struct Template(Environment<'static>);

impl Template {
    /// Parses a template. With `json`, an expression prints its value as JSON.
    pub(crate) fn parse(text: &str, json: bool) -> Result<Template, String> {
        if text.len() > LONGEST {
            return Err(format!("the template has more than {LONGEST} bytes"));
        }
        check_tags(text)?;
        if text.contains(STAR) {
            return Err("the template has the character U+F0000; remove it".to_owned());
        }
        let text = text.replace('*', &STAR.to_string());
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(STEPS));
        environment.set_auto_escape_callback(move |_| match json {
            true => AutoEscape::Json,
            false => AutoEscape::None,
        });
        // None of these makes a text much longer: `replace` and `join`, applied repeatedly, would.
        environment.add_filter("default", filters::default);
        environment.add_filter("first", filters::first);
        environment.add_filter("items", filters::items);
        environment.add_filter("last", filters::last);
        environment.add_filter("length", filters::length);
        environment.add_filter("lower", filters::lower);
        environment.add_filter("safe", filters::safe);
        environment.add_filter("split", filters::split);
        environment.add_filter("trim", filters::trim);
        environment.add_filter("upper", filters::upper);
        environment.add_test("defined", tests::is_defined);
        environment.add_test("none", tests::is_none);
        environment.add_test("startingwith", tests::is_startingwith);
        environment.add_test("endingwith", tests::is_endingwith);
        let parsed = environment.add_template_owned("body", text);
        parsed.map_err(explain)?;
        Ok(Template(environment))
    }

    /// Renders the body for the rollout in the data of this event.
    pub(crate) fn render(&self, event: &[u8]) -> Result<Vec<u8>, String> {
        let mut event: serde_json::Value =
            serde_json::from_slice(event).map_err(|error| error.to_string())?;
        let rollout = Value::from(Serde(event["data"].take()));
        let template = self.0.get_template("body");
        let template = template.map_err(explain)?;
        let mut body = Bounded(Vec::new());
        let rendered = template.render_captured_to(rollout, &mut body);
        rendered.map_err(explain)?;
        let body = String::from_utf8(body.0).map_err(|error| error.to_string())?;
        Ok(body.replace(STAR, "*").into_bytes())
    }
}

/// Refuses all tags but conditions, and loops over parts of the rollout.
fn check_tags(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices("{%") {
        let tag = text[at + 2..].trim_start_matches(['-', '+']).trim_start();
        let inside = tag.find("%}").map_or(tag, |end| &tag[..end]);
        let inside = inside.trim_end_matches(['-', '+']);
        let mut words =
            inside.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let name = words.next().unwrap_or_default();
        let line = text[..at].matches('\n').count() + 1;
        if !TAGS.contains(&name) {
            return Err(format!(
                "line {line}: {{% {name} %}} is not supported; the tags are for, if, elif and else"
            ));
        }
        // Letters of a path with filters. Without quotes the tag ends at the first `%}`.
        let path = |letter: char| {
            letter.is_ascii_alphanumeric()
                || letter.is_ascii_whitespace()
                || "_.,|".contains(letter)
        };
        if name == "for" && !(inside.chars().all(path) && words.all(|word| word != "recursive")) {
            return Err(format!(
                "line {line}: a loop goes over a part of the rollout, such as {{% for name, one in images|items %}}"
            ));
        }
    }
    Ok(())
}

/// Returns the text of an error, with its line in the template.
fn explain(error: Error) -> String {
    let line = error.line();
    let line = line.map_or(String::new(), |line| format!("line {line}: "));
    let detail = error.detail();
    let detail = detail.map_or(String::new(), |detail| format!(": {detail}"));
    let cause = error.source();
    let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
    format!("{line}{}{detail}{cause}", error.kind()).replace(STAR, "*")
}

/// Returns the mistake of a body that must be JSON, with its place.
pub(super) fn check_json(body: &[u8]) -> Result<(), String> {
    let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(body) else {
        return Ok(());
    };
    /// Bytes shown before the mistake.
    const BEFORE: usize = 40;
    let mut lines = body.split(|byte| *byte == b'\n');
    let line = lines.nth(error.line().saturating_sub(1));
    let line = line.unwrap_or_default();
    let end = error.column().min(line.len());
    let shown = String::from_utf8_lossy(&line[end.saturating_sub(BEFORE)..end]);
    Err(format!(
        "with a sample rollout the body is not JSON: {error}, after {shown:?}; an expression prints its own quotes"
    ))
}

/// Returns the event of a rollout of the trigger as it may be, to try a template with.
pub(in super::super) fn sample(trigger: &Trigger) -> Result<Vec<u8>, String> {
    let images = trigger.all_images();
    let images = images.iter().filter_map(|(name, watched)| {
        let digest = Digest::sha256_of(name.as_bytes());
        let of_policy = || {
            let (registry, repository) = (watched.registry(), watched.repository());
            format!("{registry}/{repository}:1.0.0").parse().ok()
        };
        let image = watched.tag().cloned().or_else(of_policy)?;
        let image = RolloutImage {
            actor: None,
            previous: None,
            revision: 1,
            pinned: image.pinned(&digest),
            digest,
            image,
        };
        Some((name.clone(), image))
    });
    let images: BTreeMap<String, RolloutImage> = images.collect();
    let rollout = Rollout {
        id: "01900000-0000-7000-8000-000000000000".to_owned(),
        trigger: trigger.name.get_ref().to_string(),
        number: 1,
        epoch: OffsetDateTime::UNIX_EPOCH,
        state: RolloutState::Pending,
        cause: Cause {
            reason: CauseReason::Start,
            changed: images.keys().cloned().collect(),
            not_adopted: None,
        },
        images,
        attempts: 0,
        created_at: OffsetDateTime::UNIX_EPOCH,
        finished_at: None,
        error: None,
        gates: Vec::new(),
        opens_at: None,
    };
    let time = rollout.created_at;
    serde_json::to_vec(&rollout.event(time)).map_err(|error| error.to_string())
}

/// A body that grows to [`LARGEST`] at most.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LARGEST {
            return Err(io::Error::other("the body has more than 1 MiB"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
