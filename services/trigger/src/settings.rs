//! The part of the files that the service needs: triggers, targets, and registries.

mod follow;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tagtrail_config::{Allowances, Broken, Discover, Door, File, Table};
use tagtrail_proto::Registry;

pub(crate) use self::follow::{Recorded, follow, recorded};
use crate::config::{self, TriggerSpec};
use crate::notify::{self, Entries};
use crate::target::{self, Clusters, SharedClaims, Target, Targets, Verifies, Verify};

/// The SHA-256 of the settings of a trigger.
pub(crate) type Hash = [u8; 32];
/// Most generations that a process remembers as its own.
const REMEMBERED: usize = 100_000;

/// The triggers of the files. A broken one stops no other.
pub(crate) struct Settings {
    /// The triggers whose entry can be read, by name.
    pub(crate) triggers: BTreeMap<String, TriggerSpec>,
    /// The targets of the triggers that can be rolled out.
    pub(crate) targets: Arc<Targets>,
    /// The triggers that change images which a trigger before changes, too.
    pub(crate) shared: SharedClaims,
    /// The clusters that targets act on.
    pub(crate) clusters: Clusters,
    /// The clusters whose annotated objects are triggers.
    pub(crate) discovering: BTreeMap<String, Discovering>,
    /// The mistakes in entries of clusters, by name.
    pub(crate) cluster_problems: BTreeMap<String, String>,
    /// Reads the settings of further triggers.
    pub(crate) reader: File,
    /// The triggers of annotated objects.
    pub(crate) discovered: BTreeSet<String>,
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
    /// All that the files allow to triggers of the API.
    allowances: Allowances,
    /// The generations of the triggers of the API.
    pub(crate) loaded: BTreeMap<String, i64>,
    /// The number of mistakes in each file.
    pub(crate) mistakes: BTreeMap<String, usize>,
    /// The entries as written, by the names of the triggers.
    written: BTreeMap<String, toml::Value>,
    /// The triggers whose entry or secret has changed since the settings before.
    pub(crate) changed: BTreeSet<String>,
    /// The settings that this process had since its start, also absences: another process with
    /// these is not ahead of this one.
    had: BTreeSet<(String, Option<Hash>)>,
}

/// The annotations by which objects of a cluster are triggers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Discovering {
    pub(crate) systems: Vec<Discover>,
    /// The namespaces. `None`: all.
    pub(crate) namespaces: Option<BTreeSet<String>>,
    /// The repository of an image stream.
    pub(crate) streams: Option<String>,
    /// Most triggers.
    pub(crate) most: usize,
}

pub(crate) fn discovering(file: &File) -> BTreeMap<String, Discovering> {
    let entries = file.cluster.iter().filter(|one| !one.discover.is_empty());
    let entries = entries.map(|one| {
        let namespaces = one.namespaces.iter().map(|name| name.get_ref().clone());
        let namespaces: BTreeSet<String> = namespaces.collect();
        let entry = Discovering {
            systems: one.discover.clone(),
            namespaces: (!namespaces.contains("*")).then_some(namespaces),
            streams: one.imagestreams.as_ref().map(|text| text.get_ref().clone()),
            most: one.most as usize,
        };
        (one.name.get_ref().to_string(), entry)
    });
    entries.collect()
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
    /// as it was; after a start, as the database has it. A target whose entry is the same stays
    /// too.
    pub(crate) fn read(file: &File, recorded: &Recorded, before: Option<&Settings>) -> Settings {
        let mut file = file.clone();
        let discovering = discovering(&file);
        let named = |one: &Broken| Some((one.name.clone()?, one.problem.to_string()));
        let cluster_problems = file.broken_of(Table::Cluster).filter_map(named).collect();
        let reader = file.reader();
        let mut taken_out = BTreeMap::new();
        add_of_clusters(&mut file, recorded, &mut taken_out);
        let mut problems = add_of_api(&mut file, recorded);
        problems.extend(taken_out);
        let allowances = file.allowances();
        let allowed_before = before.is_none_or(|before| before.allowances == allowances);
        let unread = unread(&file, &problems);
        let restored = restore(&mut file, recorded, before, &unread);
        let written = |name: &String| file.written(Table::Trigger, name);
        let same = |name: &String| {
            let before = before.and_then(|before| before.written.get(name));
            let allowed = allowed_before || !recorded.api.contains_key(name);
            before.is_some() && before == written(name) && allowed
        };
        let target_before = |name: &String| before?.targets.get(name).cloned();
        let kept = |name: &String| target_before(name).filter(|_| same(name));
        let clusters = Clusters::of(&file, before.map(|before| &before.clusters));
        let (mut targets, mut wrong) = target::targets(&file, &clusters, kept);
        let verify_before = |name: &String| before?.verifies.get(name).cloned();
        let kept = |name: &String| verify_before(name).filter(|_| same(name));
        let (mut verifies, unverified) = target::verifies(&file, kept);
        for name in unverified.iter().filter_map(|one| one.name.as_ref()) {
            targets.remove(name);
        }
        wrong.extend(unverified);
        let triggers = config::triggers(&file).into_iter();
        let mut triggers: BTreeMap<String, TriggerSpec> = triggers
            .map(|trigger| (trigger.name.clone(), trigger))
            .collect();
        // A trigger of the API loses what the files no longer allow.
        let stands = |name: &&String| !recorded.api.contains_key(*name);
        let broken = wrong.iter().filter_map(|one| one.name.as_ref());
        for name in broken.filter(stands) {
            let spec = before.and_then(|before| before.triggers.get(name));
            let standing = match (spec, target_before(name)) {
                (Some(spec), Some(target)) => Some((spec.clone(), target, verify_before(name))),
                _ => earlier(&file, &clusters, recorded, name, &triggers),
            };
            let Some((spec, target, verify)) = standing else {
                continue;
            };
            targets.insert(name.clone(), target);
            triggers.insert(name.clone(), spec);
            match verify {
                Some(verify) => drop(verifies.insert(name.clone(), verify)),
                None => drop(verifies.remove(name)),
            }
        }
        // The first mistake is shown.
        for (name, problem) in self::problems(&wrong) {
            problems.entry(name).or_insert(problem);
        }
        for (name, of_file) in restored {
            problems.entry(name).or_insert(Problem {
                text: of_file,
                broken: true,
            });
        }
        for (name, problem) in &mut problems {
            if problem.broken && targets.contains_key(name) {
                problem.text += "; the entry before stays in force";
            }
        }
        let (notify, notify_problems) = read_notify(&file, before);
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
        let entries = triggers
            .keys()
            .filter_map(|name| Some((name.clone(), written(name)?.clone())));
        let nameless = |broken: &Broken| broken.name.is_none();
        let mut unread = file
            .broken_of(Table::File)
            .chain(file.broken_of(Table::Trigger));
        Settings {
            whole: !unread.any(nameless),
            discovering,
            cluster_problems,
            reader,
            discovered: recorded.discovered.keys().cloned().collect(),
            written: entries.collect(),
            had: had(before, &triggers),
            changed,
            asked: config::asked(&file),
            allowances,
            loaded: recorded
                .api
                .iter()
                .map(|(name, one)| (name.clone(), one.number))
                .collect(),
            mistakes: file.mistakes(&wrong),
            triggers,
            clusters,
            shared: SharedClaims::of(&targets),
            targets: Arc::new(targets),
            verifies: Arc::new(verifies),
            problems,
            notify: Arc::new(notify),
            notify_problems,
            notify_written,
        }
    }

    /// Returns whether an earlier entry of the trigger is in force, because the present one is
    /// broken.
    pub(crate) fn is_stale(&self, name: &str) -> bool {
        let broken = self
            .problems
            .get(name)
            .is_some_and(|problem| problem.broken);
        broken && self.targets.contains_key(name)
    }

    /// Returns whether this process had these settings of a trigger since its start; `None`: its
    /// absence.
    pub(crate) fn had(&self, name: &str, hash: Option<Hash>) -> bool {
        self.had.contains(&(name.to_owned(), hash))
    }

    /// Logs the mistakes that were not there before, and at the start the warnings about targets.
    pub(crate) fn report(&self, before: Option<&Settings>) {
        if before.is_none() {
            let lines = target::warnings(&self.targets, &self.verifies).into_iter();
            for line in lines.chain(notify::warnings(&self.notify)) {
                tracing::warn!("{}", line.trim_start_matches("warning: "));
            }
        }
        for (trigger, shared) in self.shared.iter() {
            let known = before.and_then(|before| before.shared.get(trigger));
            if known == Some(shared) {
                continue;
            }
            let text = shared.text(trigger);
            if before.is_some() {
                tracing::warn!(trigger, "{text}");
            }
            if let Some(target) = self.targets.get(trigger) {
                target.tell_shared(shared, &text);
            }
        }
        for (name, problem) in &self.notify_problems {
            let known = before.and_then(|before| before.notify_problems.get(name));
            if known != Some(problem) {
                tracing::error!(notify = name, "notify {name} is broken: {problem}");
            }
        }
        for (name, problem) in &self.cluster_problems {
            let known = before.and_then(|before| before.cluster_problems.get(name));
            if known != Some(problem) {
                tracing::error!(cluster = name, "cluster {name} is broken: {problem}");
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

/// Returns the mistakes, by the names of the triggers.
fn problems<'a>(broken: impl IntoIterator<Item = &'a Broken>) -> BTreeMap<String, Problem> {
    let mut problems = BTreeMap::new();
    for one in broken {
        let Some(name) = &one.name else { continue };
        let problem = Problem {
            text: one.problem.to_string(),
            broken: !one.second,
        };
        problems.entry(name.clone()).or_insert(problem);
    }
    problems
}

/// Adds the triggers of the API, and returns the mistakes of all triggers. One of the API with a
/// mistake is not in force: the files may have taken away what it had. An entry of a file with the
/// name of one of them is passed over.
fn add_of_api(file: &mut File, recorded: &Recorded) -> BTreeMap<String, Problem> {
    let mut of_api = BTreeMap::new();
    for (name, generation) in &recorded.api {
        let second = file.take_out(name, Door::Api).map(|second| (second, false));
        let wrong = match file.read_api_trigger(name, &generation.settings) {
            Ok(trigger) => {
                file.put(trigger);
                None
            }
            Err(error) => Some((error, true)),
        };
        if let Some((error, broken)) = wrong.or(second) {
            let text = error.to_string();
            of_api.insert(name.clone(), Problem { text, broken });
        }
    }
    // A broken trigger of another door is there, and heals.
    let others = recorded.api.keys().chain(recorded.discovered.keys());
    file.check_chains(others.map(String::as_str));
    let mut problems = problems(file.broken_of(Table::Trigger));
    for trigger in &file.trigger {
        let name: &str = trigger.name.get_ref().as_ref();
        // The broken entry of a file, with the name of a good trigger of the API.
        if recorded.api.contains_key(name) {
            problems.remove(name);
        }
    }
    problems.extend(of_api);
    problems
}

/// Adds the triggers of annotated objects. Those of a file with the name of one of them are passed
/// over. `problems`: gains the mistakes.
fn add_of_clusters(file: &mut File, recorded: &Recorded, problems: &mut BTreeMap<String, Problem>) {
    for (name, one) in &recorded.discovered {
        let second = file.take_out(name, Door::Kubernetes);
        let mut problem = second.map(|second| Problem {
            text: second.to_string(),
            broken: false,
        });
        if let Some(generation) = &one.generation {
            let origin = &generation.file;
            match file.read_trigger(Door::Kubernetes, origin, &generation.settings) {
                Ok(trigger) => file.put(trigger),
                Err(error) => {
                    let (text, broken) = (error.to_string(), true);
                    problem = Some(Problem { text, broken });
                }
            }
        }
        if let Some(text) = one.problem.clone() {
            problem = Some(Problem { text, broken: true });
        }
        problems.extend(problem.map(|problem| (name.clone(), problem)));
    }
}

/// Returns the broken triggers of which no entry can be read.
fn unread(file: &File, problems: &BTreeMap<String, Problem>) -> BTreeSet<String> {
    let there: BTreeSet<&str> = file
        .trigger
        .iter()
        .map(|trigger| trigger.name.get_ref().as_ref())
        .collect();
    let broken = problems.iter().filter(|(_, problem)| problem.broken);
    let names = broken.map(|(name, _)| name.clone());
    names
        .filter(|name| !there.contains(name.as_str()))
        .collect()
}

/// At a start, puts the last good generation of each trigger in force that can't be read: those
/// with a mistake, and those of a file that can't be read. Returns the latter, with the mistake of
/// the file.
fn restore(
    file: &mut File,
    recorded: &Recorded,
    before: Option<&Settings>,
    unread: &BTreeSet<String>,
) -> Vec<(String, String)> {
    if before.is_some() {
        return Vec::new();
    }
    let files: BTreeMap<PathBuf, String> = file
        .broken_of(Table::File)
        .map(|one| (one.problem.path().to_owned(), one.problem.to_string()))
        .collect();
    let mut of_files = Vec::new();
    for (name, good) in &recorded.good {
        let of_file = files.get(&good.file);
        let is_there = file
            .trigger
            .iter()
            .any(|one| one.name.get_ref().as_ref() == name);
        if is_there || of_file.is_none() && !unread.contains(name) {
            continue;
        }
        match file.read_trigger(Door::File, &good.file, &good.settings) {
            Ok(trigger) => file.put(trigger),
            Err(error) => {
                tracing::warn!(
                    trigger = name,
                    "generation {} of {name} can't be used: {error}",
                    good.number
                );
                continue;
            }
        }
        of_files.extend(of_file.map(|problem| (name.clone(), problem.clone())));
    }
    of_files
}

/// An earlier generation of a trigger, with its target and the steps that verify a rollout.
type Earlier = (TriggerSpec, Arc<dyn Target>, Option<Arc<Verify>>);

/// Returns the last good generation of a trigger whose entry can be read and whose target can't be
/// made, if it is another one.
fn earlier(
    file: &File,
    clusters: &Clusters,
    recorded: &Recorded,
    name: &String,
    now: &BTreeMap<String, TriggerSpec>,
) -> Option<Earlier> {
    let good = recorded.good.get(name)?;
    let trigger = file
        .read_trigger(Door::File, &good.file, &good.settings)
        .ok()?;
    let spec = config::trigger(&trigger, &config::asked(file));
    if now.get(name).is_some_and(|now| now.hash == spec.hash) {
        return None;
    }
    let target = target::configure(file, clusters, &trigger).ok()?;
    let mut only = file.clone();
    only.trigger = vec![trigger];
    let (mut verifies, wrong) = target::verifies(&only, |_| None);
    match wrong.is_empty() {
        true => Some((spec, Arc::from(target), verifies.remove(name))),
        false => None,
    }
}

/// Returns the settings that the process had since its start.
fn had(
    before: Option<&Settings>,
    now: &BTreeMap<String, TriggerSpec>,
) -> BTreeSet<(String, Option<Hash>)> {
    let mut had = BTreeSet::new();
    if let Some(before) = before {
        if before.had.len() < REMEMBERED {
            had.clone_from(&before.had);
        }
        let gone = before
            .triggers
            .keys()
            .filter(|name| !now.contains_key(*name));
        had.extend(gone.map(|name| (name.clone(), None)));
    }
    let present = now
        .iter()
        .map(|(name, spec)| (name.clone(), Some(spec.hash)));
    had.extend(present);
    had
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (triggers, problems) = (self.triggers.len(), self.problems.len());
        write!(f, "Settings({triggers} triggers, {problems} problems)")
    }
}
