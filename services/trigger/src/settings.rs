//! The part of the files that the service needs: triggers, targets, and registries.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use tagtrail_config::{File, Table};
use tagtrail_proto::Registry;

use crate::config::{self, TriggerSpec};
use crate::target::{self, Targets};

/// The triggers of the files. A broken one stops no other.
pub(crate) struct Settings {
    /// The triggers whose entry can be read, by name.
    pub(crate) triggers: BTreeMap<String, TriggerSpec>,
    /// The targets of the triggers that can be rolled out.
    pub(crate) targets: Arc<Targets>,
    /// The mistakes, by the names of the triggers.
    pub(crate) problems: BTreeMap<String, Problem>,
    /// The registries that can be asked.
    pub(crate) asked: BTreeSet<Registry>,
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
    /// Reads the settings, secrets included.
    pub(crate) fn read(file: &File) -> Settings {
        let (targets, wrong) = target::targets(file);
        let triggers = config::triggers(file).into_iter();
        let triggers = triggers.map(|trigger| (trigger.name.clone(), trigger));
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
        Settings {
            triggers: triggers.collect(),
            targets: Arc::new(targets),
            problems,
            asked: config::asked(file),
        }
    }

    /// Logs the mistakes, and the warnings about targets.
    pub(crate) fn report(&self) {
        for line in target::warnings(&self.targets) {
            tracing::warn!("{}", line.trim_start_matches("warning: "));
        }
        for (trigger, problem) in &self.problems {
            match problem.broken {
                true => tracing::error!(
                    trigger,
                    "trigger {trigger} is broken, and is not rolled out: {}",
                    problem.text
                ),
                false => tracing::error!(
                    trigger,
                    "a second trigger {trigger} is passed over: {}",
                    problem.text
                ),
            }
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (triggers, problems) = (self.triggers.len(), self.problems.len());
        write!(f, "Settings({triggers} triggers, {problems} problems)")
    }
}
