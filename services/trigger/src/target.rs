//! The systems that rollouts act on, as a table of kinds. A new kind of target is one file in
//! `target/` and one row of [`ALL`].

mod address;
mod claims;
mod clusters;
mod command;
mod contract;
mod git;
mod kubernetes;
mod news;
mod said;
mod signature;
mod verify;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;

use tagtrail_config::{Broken, ConfigError, File, Start, Table, TargetEntry, Trigger};
use tagtrail_proto::Pinned;

pub(crate) use claims::SharedClaims;
pub(crate) use clusters::{Clusters, unusable};
pub use command::supervise;
pub use contract::TargetProblem;
pub(crate) use contract::{OnForeignChange, Order, Places, Running, Seen, Target, Targets};
pub(crate) use git::Clones;
pub(crate) use news::TargetNews;
pub(crate) use said::Said;
pub(crate) use verify::{Verifies, Verify, verifies};
pub(crate) use webhook::{Caller, Settings, Template, Words};

use contract::TargetKind;

/// All kinds of targets.
const ALL: &[TargetKind] = &[
    webhook::WEBHOOK,
    command::COMMAND,
    kubernetes::KUBERNETES,
    git::GIT,
];

/// Makes the targets of all triggers of the file, except those that `kept` has. One that can't be
/// made is broken, and stops no other.
pub(crate) fn targets(
    file: &File,
    clusters: &Clusters,
    kept: impl Fn(&String) -> Option<Arc<dyn Target>>,
) -> (Targets, Vec<Broken>) {
    let (mut targets, mut broken) = (Targets::new(), Vec::new());
    for trigger in &file.trigger {
        let name = trigger.name.get_ref().to_string();
        if let Some(target) = kept(&name) {
            targets.insert(name, target);
            continue;
        }
        match configure(file, clusters, trigger) {
            Ok(target) => drop(targets.insert(name, Arc::from(target))),
            Err(problem) => broken.push(Broken::new(Table::Trigger, name, problem)),
        }
    }
    (targets, broken)
}

/// Makes the target of a trigger.
pub(crate) fn configure(
    file: &File,
    clusters: &Clusters,
    trigger: &Trigger,
) -> Result<Box<dyn Target>, ConfigError> {
    let entry = trigger.target();
    let kind = kind_of(trigger, &entry)?;
    if trigger.start == Start::Adopt && !kind.tells {
        let message = format!(
            "\"adopt\" needs a target that reports the images it runs, and {} does not; write \"next\", and images from before the trigger count as rolled out",
            kind.name
        );
        return Err(trigger.error_at(entry.at, "trigger.start", message));
    }
    if trigger.partial && !kind.tells {
        let message = format!(
            "needs a target that keeps the images which a rollout leaves out, and {} gets all images of each rollout; remove it, or write target.kubernetes or target.git",
            kind.name
        );
        return Err(trigger.error_at(entry.at, "trigger.partial", message));
    }
    (kind.configure)(entry.value, trigger, (file, clusters))
        .map_err(|message| trigger.error_at(entry.at, &key_of(&entry), message))
}

/// Judges the settings of all targets and of their verification, without trying them. Returns a
/// line for each problem.
pub(crate) fn warnings(targets: &Targets, verifies: &Verifies) -> Vec<String> {
    let mut lines = Vec::new();
    for (trigger, target) in targets {
        let line = |problem: TargetProblem| {
            let TargetProblem { found, cure, .. } = problem;
            format!("warning: trigger {trigger}: {found}; {cure}")
        };
        let verify = verifies.get(trigger).map(|verify| verify.judge());
        let problems = target
            .judge()
            .into_iter()
            .chain(verify.into_iter().flatten());
        lines.extend(problems.map(line));
    }
    let shared = SharedClaims::of(targets);
    lines.extend(
        shared
            .iter()
            .map(|(trigger, shared)| format!("warning: {}", shared.text(trigger))),
    );
    lines
}

fn kind_of(trigger: &Trigger, entry: &TargetEntry<'_>) -> Result<&'static TargetKind, ConfigError> {
    let kind = ALL.iter().find(|kind| kind.name == entry.kind);
    kind.ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().map(|kind| kind.name).collect();
        let meant = tagtrail_config::closest(entry.kind, &known);
        let meant = meant.map_or_else(String::new, |kind| format!("; did you mean {kind}?"));
        let message = format!(
            "is no kind of target; known are: {}{meant}",
            known.join(", ")
        );
        trigger.error_at(entry.at, &key_of(entry), message)
    })
}

fn key_of(entry: &TargetEntry<'_>) -> String {
    format!("trigger.target.{}", entry.kind)
}

/// The state of the target of one trigger, read without an effect on the target.
#[derive(Debug, Clone)]
pub struct TargetReport {
    /// The name of the trigger.
    pub trigger: String,
    /// The kind of the target, as in `target.<kind>`.
    pub kind: String,
    /// The steps that prepare a system for this kind of target.
    pub setup: &'static str,
    /// Problems of the settings and of the target, each with its cure.
    pub problems: Vec<TargetProblem>,
    /// The images that the target runs now, by their names in the trigger. `None`: the target
    /// cannot tell, or runs no set of pinned images.
    pub images: Option<BTreeMap<String, Pinned>>,
}

/// Inspects the target of the trigger at this place in the file, without an effect on it.
pub async fn inspect_target(file: &File, place: usize) -> Option<TargetReport> {
    let trigger = file.trigger.get(place)?;
    let entry = trigger.target();
    let mut report = TargetReport {
        trigger: trigger.name.get_ref().to_string(),
        kind: entry.kind.to_owned(),
        setup: kind_of(trigger, &entry).map_or("", |kind| kind.setup),
        problems: Vec::new(),
        images: None,
    };
    match configure(file, &Clusters::of(file, None), trigger) {
        Ok(target) => {
            report.problems = target.judge();
            report.problems.extend(target.try_out().await);
            if let Running::Images(images) = target.current().await {
                report.images = Some(images);
            }
            match Verify::new(file, trigger) {
                Ok(verify) => report.problems.extend(verify.judge()),
                Err(wrong) => report.problems.push(mistake(&wrong)),
            }
        }
        Err(wrong) => report.problems.push(mistake(&wrong)),
    }
    Some(report)
}

fn mistake(wrong: &ConfigError) -> TargetProblem {
    TargetProblem {
        fatal: true,
        found: wrong.to_string(),
        cure: "edit the entry as found: until then the trigger is not rolled out".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinSet;

    use super::*;

    fn refused(target: &str) -> String {
        let text = format!(
            "[[trigger]]\nname = \"shop\"\nimages.web = \"registry.example.com/shop/web\"\n{target}\n"
        );
        let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
        targets(&file, &Clusters::of(&file, None), |_| None).1[0]
            .problem
            .to_string()
    }

    #[test]
    fn a_wrong_target_is_named_with_its_line_and_cure() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "not a signing secret").unwrap();
        let secret = secret.path().display();
        let kinds: Vec<&str> = ALL.iter().map(|kind| kind.name).collect();
        let unknown = format!(
            "tagtrail.toml:4: trigger.target.telepathy: is no kind of target; known are: {}",
            kinds.join(", ")
        );
        for (target, expected) in [
            ("target.telepathy = {}", unknown),
            ("target.command = {}", "tagtrail.toml:4: trigger.target.command: missing field `run`".to_owned()),
            ("target.command = { run = [\"true\"], environment = [\"*\"] }", "tagtrail.toml:4: trigger.target.command: environment: \"*\" is no name of a variable; write names such as \"KUBECONFIG\", or \"HELM_*\" for all that begin with HELM_".to_owned()),
            ("target.command = { run = [] }", "tagtrail.toml:4: trigger.target.command: run is empty; give the program and its arguments, such as run = [\"./deploy.sh\"]".to_owned()),
            ("target.command = { run = [\"x\"], shell = true }", "tagtrail.toml:4: trigger.target.command: unknown field `shell`, expected one of `run`, `timeout_seconds`, `grace_seconds`, `environment`, `set`, `user`, `final_exit_codes`, `leftover`".to_owned()),
            ("target.webhook = { url = \"ftp://a.b\", secret = { env = \"X\" } }", "tagtrail.toml:4: trigger.target.webhook: url must start with https:// (or http://)".to_owned()),
            ("start = \"adopt\"\ntarget.command = { run = [\"true\"] }", "tagtrail.toml:5: trigger.start: \"adopt\" needs a target that reports the images it runs, and command does not; write \"next\", and images from before the trigger count as rolled out".to_owned()),
            ("partial = true\ntarget.command = { run = [\"true\"] }", "tagtrail.toml:5: trigger.partial: needs a target that keeps the images which a rollout leaves out, and command gets all images of each rollout; remove it, or write target.kubernetes or target.git".to_owned()),
            (
                &format!("target.webhook = {{ url = \"https://a.b\", secret = {{ file = \"{secret}\" }} }}"),
                "tagtrail.toml:4: trigger.target.webhook: the secret must be whsec_ and 24 to 64 bytes in Base64; make one with: echo \"whsec_$(head -c 32 /dev/urandom | base64)\"".to_owned(),
            ),
        ] {
            assert_eq!(refused(target), expected);
        }
    }

    #[test]
    fn each_kind_is_documented() {
        let page = include_str!("../../../docs/configuration.md");
        for kind in ALL {
            assert!(page.contains(&format!("| `target.{}` |", kind.name)));
            assert!(!kind.setup.is_empty(), "{}", kind.name);
        }
    }

    fn file(target: &str) -> File {
        let text = format!(
            "[[trigger]]\nname = \"shop\"\nimages.web = \"registry.example.com/shop/web\"\n{target}\n"
        );
        File::parse(&text, Path::new("tagtrail.toml")).unwrap()
    }

    /// The problems of a target: whether fatal, and the text.
    async fn problems(target: &str) -> Vec<(bool, String)> {
        let report = inspect_target(&file(target), 0).await.unwrap();
        assert_eq!((report.trigger.as_str(), report.images), ("shop", None));
        let text = |problem: TargetProblem| {
            assert!(!problem.cure.is_empty());
            (
                problem.fatal,
                format!("{}; {}", problem.found, problem.cure),
            )
        };
        report.problems.into_iter().map(text).collect()
    }

    #[tokio::test]
    async fn a_command_that_cannot_be_started_is_a_problem() {
        // The tests may run as root.
        let problems = async |target: &str| {
            let mut problems = problems(target).await;
            problems.retain(|(_, text)| !text.contains("runs as root"));
            problems
        };
        assert_eq!(problems("target.command = { run = [\"true\"] }").await, []);
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("noexec.sh");
        std::fs::write(&plain, "#!/bin/sh\n").unwrap();
        for (run, expected) in [
            ("[\"./no-such-program\"]", "no program ./no-such-program"),
            (
                "[\"no-such-program\"]",
                "PATH has no program no-such-program",
            ),
            (
                "[\"./deploy.sh --now && true\"]",
                "one text for each argument",
            ),
            (&format!("[{plain:?}]"), "chmod +x"),
            (&format!("[{:?}]", folder.path()), "is no file"),
        ] {
            let target = format!("target.command = {{ run = {run} }}");
            let found = problems(&target).await;
            assert_eq!(found.len(), 1, "{run}: {found:?}");
            assert!(found[0].1.contains(expected), "{run}: {found:?}");
            let file = file(&target);
            let targets = targets(&file, &Clusters::of(&file, None), |_| None).0;
            let lines = warnings(&targets, &Verifies::new());
            assert!(lines[0].starts_with("warning: trigger shop: "), "{lines:?}");
        }
    }

    #[tokio::test]
    async fn a_webhook_that_nobody_receives_is_a_problem() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let open = Permissions::from_mode(0o600);
        std::fs::set_permissions(&secret, open).unwrap();
        let target = |url: &str| {
            format!("target.webhook = {{ url = \"{url}\", secret = {{ file = {secret:?} }} }}")
        };
        let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = receiver.local_addr().unwrap();
        let mut answers = JoinSet::new();
        answers.spawn(async move {
            let (mut stream, _) = receiver.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let url = format!("http://{address}/hooks/hidden?key=hidden");
        assert_eq!(problems(&target(&url)).await, []);
        // The receiver takes no rollout for this request, and its log gets no secret.
        let request = answers.join_next().await.unwrap().unwrap();
        assert!(request.starts_with("HEAD / HTTP/1.1\r\n"), "{request}");
        assert!(!request.contains("hidden"), "{request}");
        for (url, fatal, expected) in [
            (url.as_str(), vec![true], "refused"),
            (
                "https://receiver.invalid/hidden",
                vec![true],
                "receiver.invalid",
            ),
            (
                "http://receiver.invalid/hidden",
                vec![false, true],
                "plain http",
            ),
            (
                "https://[fe80::1]:1/hidden",
                vec![false, true],
                "link-local",
            ),
        ] {
            let found = problems(&target(url)).await;
            let fatals: Vec<bool> = found.iter().map(|(fatal, _)| *fatal).collect();
            assert_eq!(fatals, fatal, "{url}: {found:?}");
            let text = format!("{found:?}");
            assert!(
                text.contains(expected) && !text.contains("hidden"),
                "{text}"
            );
        }
        std::fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
        let file = file(&target("https://receiver.invalid"));
        let targets = targets(&file, &Clusters::of(&file, None), |_| None).0;
        let lines = warnings(&targets, &Verifies::new());
        assert!(
            lines.len() == 1 && lines[0].contains("chmod 600"),
            "{lines:?}"
        );
    }

    #[tokio::test]
    async fn a_wrong_entry_is_reported_and_hides_no_other_target() {
        let found = problems("target.telepathy = {}").await;
        assert!(found[0].0 && found[0].1.contains("telepathy"), "{found:?}");
    }
}
