//! `verify`: the steps that a rollout must pass after its target is healthy. They are tried in
//! order, for any kind of target.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tagtrail_config::{Broken, ConfigError, File, Table, Trigger, VerifyStep};
use tagtrail_policy::watch::StepTimes;

use super::clusters::Clusters;
use super::contract::{Order, Target, TargetProblem};
use super::{command, webhook};

/// The keys of a step with `http`, besides those of all steps.
const HTTP: [&str; 6] = [
    "http",
    "status",
    "headers",
    "ca",
    "proxy",
    "timeout_seconds",
];

/// The steps of all triggers that have some, by the triggers' names.
pub(crate) type Verifies = BTreeMap<String, Arc<Verify>>;

/// The steps of a trigger.
pub(crate) struct Verify {
    steps: Vec<Step>,
    times: Vec<StepTimes>,
}

enum Step {
    /// A request whose answer is judged.
    Http(Box<webhook::Probe>),
    /// A command, under the rules of the target `command`.
    Command(Box<dyn Target>),
}

/// Makes the steps of all triggers of the file, except those that `kept` has. A trigger with a step
/// that can't be made is broken, and stops no other.
pub(crate) fn verifies(
    file: &File,
    kept: impl Fn(&String) -> Option<Arc<Verify>>,
) -> (Verifies, Vec<Broken>) {
    let (mut all, mut broken) = (Verifies::new(), Vec::new());
    for trigger in file.trigger.iter().filter(|one| !one.verify.is_empty()) {
        let name = trigger.name.get_ref().to_string();
        let verify = match kept(&name) {
            Some(kept) => Ok(kept),
            None => Verify::new(file, trigger).map(Arc::new),
        };
        match verify {
            Ok(verify) => drop(all.insert(name, verify)),
            Err(problem) => broken.push(Broken::new(Table::Trigger, name, problem)),
        }
    }
    (all, broken)
}

impl Verify {
    pub(super) fn new(file: &File, trigger: &Trigger) -> Result<Verify, ConfigError> {
        let mut verify = Verify {
            steps: Vec::new(),
            times: Vec::new(),
        };
        for written in &trigger.verify {
            let step = step(written.get_ref(), trigger, file).map_err(|message| {
                trigger.error_at(written.span().start, "trigger.verify", message)
            })?;
            verify.steps.push(step);
            verify.times.push(times(written.get_ref()));
        }
        Ok(verify)
    }

    /// Returns the times of the steps, in order.
    pub(crate) fn times(&self) -> &[StepTimes] {
        &self.times
    }

    /// Returns the time in which a command of a step ends when it is told to. `None`: no step runs a
    /// command.
    pub(crate) fn grace(&self) -> Option<Duration> {
        let graces = self.steps.iter().filter_map(|step| match step {
            Step::Http(_) => None,
            Step::Command(command) => Some(command.grace()),
        });
        graces.max()
    }

    /// Tries the step of this number, from 1 on, bounded in time. An error says why it did not pass.
    pub(crate) async fn attempt(&self, stage: u32, order: &Order) -> Result<(), String> {
        let place = usize::try_from(stage).unwrap_or(usize::MAX);
        match self.steps.get(place.saturating_sub(1)) {
            None => Ok(()),
            Some(Step::Http(probe)) => probe.attempt(&order.said).await,
            Some(Step::Command(command)) => match command.apply(order).await.error() {
                None => Ok(()),
                Some(error) => Err(error.to_owned()),
            },
        }
    }

    /// Judges the settings, without trying the steps.
    pub(super) fn judge(&self) -> Vec<TargetProblem> {
        let mut problems = Vec::new();
        for (place, step) in self.steps.iter().enumerate() {
            let found = match step {
                Step::Http(probe) => probe.judge(),
                Step::Command(command) => command.judge(),
            };
            problems.extend(found.into_iter().map(|problem| TargetProblem {
                found: format!("step {} of verify: {}", place + 1, problem.found),
                ..problem
            }));
        }
        problems
    }
}

fn step(written: &VerifyStep, trigger: &Trigger, file: &File) -> Result<Step, String> {
    let keys: Vec<&str> = written.check.keys().map(String::as_str).collect();
    let has = |key: &str| keys.contains(&key);
    match (has("http"), has("command")) {
        (true, false) => {
            if let Some(key) = keys.iter().find(|key| !HTTP.contains(key)) {
                return Err(format!(
                    "a step with http has no key {key}; it has times, every, within, {}",
                    HTTP[1..].join(", ")
                ));
            }
            webhook::Probe::new(&written.check, trigger, file)
                .map(|probe| Step::Http(Box::new(probe)))
        }
        (false, true) => {
            let mut settings = written.check.clone();
            if has("run") {
                return Err("a step has command in place of run; remove run".to_owned());
            }
            if let Some(run) = settings.remove("command") {
                settings.insert("run".to_owned(), run);
            }
            let named = |message: String| message.replace("run ", "command ");
            let settings = toml::Value::Table(settings);
            let command =
                (command::COMMAND.configure)(&settings, trigger, (file, &Clusters::default()));
            command.map(Step::Command).map_err(named)
        }
        (true, true) => Err("a step has either http or command; write two steps".to_owned()),
        (false, false) => {
            Err("a step has http = \"https://…\" or command = [\"./smoke.sh\"]; add one".to_owned())
        }
    }
}

fn times(written: &VerifyStep) -> StepTimes {
    StepTimes {
        times: written.times,
        every: written.every,
        within: written.within,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn found(step: &str) -> String {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let text = format!(
            "[[trigger]]\nname = \"shop\"\nimages.web = \"registry.example.com/shop/web\"\ntarget.command = {{ run = [\"true\"] }}\nverify = [{step}]\n"
        );
        let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
        match Verify::new(&file, &file.trigger[0]) {
            Ok(verify) => verify
                .judge()
                .iter()
                .map(|problem| problem.found.clone())
                .filter(|found| !found.contains("runs as root"))
                .collect(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_wrong_step_is_named_with_its_cure() {
        let place = "tagtrail.toml:5: trigger.verify: ";
        for (step, expected) in [
            (
                "{ http = \"https://a.b\", status = [200, 401], headers.X-Token = \"x\" }",
                "",
            ),
            (
                "{ command = [\"true\"], grace_seconds = 3, set.STAGE = \"prod\" }",
                "",
            ),
            (
                "{ times = 2 }",
                "a step has http = \"https://…\" or command = [\"./smoke.sh\"]; add one",
            ),
            (
                "{ http = \"https://a.b\", command = [\"true\"] }",
                "a step has either http or command; write two steps",
            ),
            (
                "{ http = \"https://a.b\", method = \"PUT\" }",
                "a step with http has no key method; it has times, every, within, status, headers, ca, proxy, timeout_seconds",
            ),
            (
                "{ http = \"ftp://a.b\" }",
                "http must start with https:// (or http://)",
            ),
            (
                "{ http = \"https://a.b\", status = [99] }",
                "status is a list of HTTP statuses from 200 to 599, such as status = [200, 401]",
            ),
            (
                "{ http = \"https://a.b\", timeout_seconds = 0 }",
                "timeout_seconds must be 1 to 600",
            ),
            (
                "{ command = [] }",
                "command is empty; give the program and its arguments, such as command = [\"./deploy.sh\"]",
            ),
            (
                "{ command = [\"true\"], run = [\"x\"] }",
                "a step has command in place of run; remove run",
            ),
        ] {
            let expected = match expected {
                "" => String::new(),
                expected => format!("{place}{expected}"),
            };
            assert_eq!(found(step), expected, "{step}");
        }
        let missing = found("{ command = [\"./no-such-program\"] }");
        assert!(
            missing.starts_with("step 1 of verify: ")
                && missing.contains("no program ./no-such-program"),
            "{missing}"
        );
        for (step, expected) in [
            ("{ http = \"http://169.254.169.254/\" }", "link-local"),
            (
                "{ http = \"http://a.b\", headers = { token = \"x\" } }",
                "a.b receives its credentials over plain http",
            ),
        ] {
            assert!(found(step).contains(expected), "{step}: {}", found(step));
        }
        assert_eq!(found("{ http = \"http://a.b\" }"), "");
    }
}
