//! The part of the files that the service needs: triggers, targets, and registries.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use tagtrail_config::{Broken, File, Follower, Table};
use tagtrail_failpoint::FailPoint;
use tagtrail_proto::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{self, TriggerSpec};
use crate::metrics::Metrics;
use crate::notify::{self, Entries};
use crate::target::{self, Targets, Verifies};

/// The triggers of the files. A broken one stops no other.
pub(crate) struct Settings {
    /// The triggers whose entry can be read, by name.
    pub(crate) triggers: BTreeMap<String, TriggerSpec>,
    /// The targets of the triggers that can be rolled out.
    pub(crate) targets: Arc<Targets>,
    /// The steps of `verify` of the triggers that have some.
    pub(crate) verifies: Arc<Verifies>,
    /// The mistakes, by the names of the triggers.
    pub(crate) problems: BTreeMap<String, Problem>,
    /// The receivers of messages that can be used.
    pub(crate) notify: Arc<Entries>,
    /// The mistakes in entries of receivers, by name.
    notify_problems: BTreeMap<String, String>,
    /// The receivers' entries as written, by name.
    notify_written: BTreeMap<String, toml::Value>,
    /// False if a file, or the name of an entry, can't be read: a trigger that is missing then may
    /// be there.
    pub(crate) whole: bool,
    /// The registries that can be asked.
    pub(crate) asked: BTreeSet<Registry>,
    /// The entries as written, by the names of the triggers.
    written: BTreeMap<String, toml::Value>,
    /// The triggers whose entry or secret has changed since the settings before.
    pub(crate) changed: BTreeSet<String>,
}

/// A mistake in the entry of a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The mistake, with file, line and cure.
    pub(crate) text: String,
    /// Whether the entry can't be used. Otherwise a second entry of the same name is passed over.
    pub(crate) broken: bool,
}

impl Settings {
    /// Reads the settings, secrets included. A trigger that is broken now and was good before stays
    /// as it was, and a target whose entry is the same stays too.
    pub(crate) fn read(file: &File, before: Option<&Settings>) -> Settings {
        let written = |name: &String| file.written(Table::Trigger, name);
        let same = |name: &String| {
            let before = before.and_then(|before| before.written.get(name));
            before.is_some() && before == written(name)
        };
        let target_before = |name: &String| before?.targets.get(name).cloned();
        let kept = |name: &String| target_before(name).filter(|_| same(name));
        let (mut targets, mut wrong) = target::targets(file, kept);
        let verify_before = |name: &String| before?.verifies.get(name).cloned();
        let kept = |name: &String| verify_before(name).filter(|_| same(name));
        let (mut verifies, unverified) = target::verifies(file, kept);
        for name in unverified.iter().filter_map(|one| one.name.as_ref()) {
            targets.remove(name);
        }
        wrong.extend(unverified);
        let triggers = config::triggers(file).into_iter();
        let mut triggers: BTreeMap<String, TriggerSpec> = triggers
            .map(|trigger| (trigger.name.clone(), trigger))
            .collect();
        let mut problems = BTreeMap::new();
        for one in file.broken_of(Table::Trigger).chain(&wrong) {
            let Some(name) = &one.name else { continue };
            let problem = Problem {
                text: one.problem.to_string(),
                broken: !one.second,
            };
            // The first mistake is shown.
            problems.entry(name.clone()).or_insert(problem);
        }
        for name in wrong.iter().filter_map(|one| one.name.as_ref()) {
            let spec = before.and_then(|before| before.triggers.get(name));
            if let (Some(target), Some(spec)) = (target_before(name), spec) {
                targets.insert(name.clone(), target);
                triggers.insert(name.clone(), spec.clone());
                match verify_before(name) {
                    Some(verify) => drop(verifies.insert(name.clone(), verify)),
                    None => drop(verifies.remove(name)),
                }
            }
        }
        for (name, problem) in &mut problems {
            if problem.broken && targets.contains_key(name) {
                problem.text += "; the entry before stays in force";
            }
        }
        let (notify, notify_problems) = read_notify(file, before);
        let notify_written = notify.keys().filter_map(|name| {
            let written = file.written(Table::Notify, name)?;
            Some((name.clone(), written.clone()))
        });
        let notify_written = notify_written.collect();
        let is_changed = |name: &&String| {
            let was_there = before.is_some_and(|before| before.triggers.contains_key(*name));
            let had_target = before.is_some_and(|before| before.targets.contains_key(*name));
            was_there && (!same(name) || !had_target && targets.contains_key(*name))
        };
        let changed = triggers.keys().filter(is_changed).cloned().collect();
        let written = triggers
            .keys()
            .filter_map(|name| Some((name.clone(), written(name)?.clone())));
        let nameless = |broken: &Broken| broken.name.is_none();
        let mut unread = file
            .broken_of(Table::File)
            .chain(file.broken_of(Table::Trigger));
        Settings {
            whole: !unread.any(nameless),
            written: written.collect(),
            changed,
            triggers,
            targets: Arc::new(targets),
            verifies: Arc::new(verifies),
            problems,
            notify: Arc::new(notify),
            notify_problems,
            notify_written,
            asked: config::asked(file),
        }
    }

    /// Logs the mistakes that were not there before, and at the start the warnings about targets.
    pub(crate) fn report(&self, before: Option<&Settings>) {
        if before.is_none() {
            let lines = target::warnings(&self.targets, &self.verifies).into_iter();
            for line in lines.chain(notify::warnings(&self.notify)) {
                tracing::warn!("{}", line.trim_start_matches("warning: "));
            }
        }
        for (name, problem) in &self.notify_problems {
            let known = before.and_then(|before| before.notify_problems.get(name));
            if known != Some(problem) {
                tracing::error!(notify = name, "notify {name} is broken: {problem}");
            }
        }
        let known = |name: &String| before.and_then(|before| before.problems.get(name));
        for (trigger, problem) in &self.problems {
            if known(trigger) == Some(problem) {
                continue;
            }
            match problem.broken {
                true => tracing::error!(trigger, "trigger {trigger} is broken: {}", problem.text),
                false => tracing::error!(
                    trigger,
                    "a second trigger {trigger} is passed over: {}",
                    problem.text
                ),
            }
        }
    }
}

/// Reads the receivers of messages. One that is broken now and was good before stays as it was, and
/// one whose entry is the same stays too.
fn read_notify(file: &File, before: Option<&Settings>) -> (Entries, BTreeMap<String, String>) {
    let old = |name: &String| before?.notify.get(name).cloned();
    let same = |name: &String| {
        let before = before.and_then(|before| before.notify_written.get(name));
        before.is_some() && before == file.written(Table::Notify, name)
    };
    let (mut entries, wrong) = notify::entries(file, |name| old(name).filter(|_| same(name)));
    let mut problems = BTreeMap::new();
    for one in file.broken_of(Table::Notify).chain(&wrong) {
        let Some(name) = &one.name else { continue };
        let mut text = one.problem.to_string();
        if let (Some(entry), false) = (old(name), entries.contains_key(name)) {
            entries.insert(name.clone(), entry);
        }
        if entries.contains_key(name) && !one.second {
            text += "; the entry before stays in force";
        }
        problems.entry(name.clone()).or_insert(text);
    }
    (entries, problems)
}

/// Follows the files until shutdown, and hands new settings to all tasks.
pub(crate) async fn follow(
    mut files: Follower,
    settings: watch::Sender<Arc<Settings>>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let file = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            file = files.changed() => file,
        };
        FailPoint::TriggerReloaded.pass();
        if FailPoint::TriggerReload.skipped() {
            continue;
        }
        let before = Arc::clone(&settings.borrow());
        let now = Settings::read(&file, Some(&before));
        now.report(Some(&before));
        metrics.triggers(&now);
        let (triggers, changed) = (now.triggers.len(), now.changed.len());
        tracing::info!(
            triggers,
            changed,
            "read the changed files again: {triggers} triggers, of which {changed} have changed"
        );
        settings.send_replace(Arc::new(now));
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (triggers, problems) = (self.triggers.len(), self.problems.len());
        write!(f, "Settings({triggers} triggers, {problems} problems)")
    }
}
