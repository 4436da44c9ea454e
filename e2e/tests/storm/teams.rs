//! The triggers of teams, in a folder of files that change during a storm: policies, commands, dead
//! targets, and triggers that end the storm behind a gate.

use std::path::{Path, PathBuf};

use crate::{clusters, repositories};

/// How an image of a trigger is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// This tag.
    Tag(&'static str),
    /// The highest version `1.N.M`.
    Version,
    /// The highest number.
    Number,
    /// The version `1.N.M` that was pushed last.
    Newest,
}

/// An image of a trigger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TeamImage {
    pub(crate) registry: &'static str,
    pub(crate) repository: &'static str,
    pub(crate) rule: Rule,
    /// Further settings of a policy.
    more: &'static str,
}

/// A trigger of a team.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Team {
    pub(crate) name: &'static str,
    pub(crate) images: &'static [TeamImage],
    /// Further settings of the trigger.
    more: &'static str,
    pub(crate) target: Target,
}

/// The target of a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The target of all other triggers.
    Sink,
    /// A target that hangs, and answers 404 and 410.
    Dying,
    /// The same as `Sink`, with the secret in a file.
    SecretInFile,
    /// The same as `Sink`, which reports the results later.
    Reported,
    Command,
    /// A file of a branch that others push to.
    Git,
    /// Objects of a cluster.
    Kubernetes,
}

const fn tag(registry: &'static str, repository: &'static str, tag: &'static str) -> TeamImage {
    of(registry, repository, Rule::Tag(tag), "")
}

const fn of(
    registry: &'static str,
    repository: &'static str,
    rule: Rule,
    more: &'static str,
) -> TeamImage {
    TeamImage {
        registry,
        repository,
        rule,
        more,
    }
}

const fn team(name: &'static str, images: &'static [TeamImage], target: Target) -> Team {
    Team {
        name,
        images,
        more: "settle = \"0s\"\n",
        target,
    }
}

const ONE: &str = "one.example.com";
const TWO: &str = "two.example.com";
/// The repository with versions.
pub(crate) const APP: &str = "rel/app";
/// The repositories of builds: those of one build have the same number.
pub(crate) const BUILDS: [&str; 2] = ["rel/web", "rel/worker"];

/// The trigger whose policy changes.
pub(crate) const RULED: &str = "t-ruled";
/// The triggers that end the storm behind a gate.
pub(crate) const FROZEN: &str = "t-frozen";
pub(crate) const PAUSED: &str = "t-paused";
pub(crate) const PINNED: &str = "t-pinned";
/// The trigger with a window, and one with a gap.
pub(crate) const WINDOWED: &str = "t-window";
pub(crate) const SPACED: &str = "t-spaced";
/// The triggers that take turns.
pub(crate) const TURNS: [&str; 2] = ["t-turn-a", "t-turn-b"];
/// The triggers whose images people approve to the end, approve during the storm alone, and reject
/// at its end.
pub(crate) const APPROVED: &str = "t-approved";
pub(crate) const UNAPPROVED: &str = "t-unapproved";
pub(crate) const REJECTED: &str = "t-rejected";
/// The triggers whose results come later.
pub(crate) const VERIFIED: &str = "t-verified";
pub(crate) const CHECKED: &str = "t-checked";
pub(crate) const REPORTED: &str = "t-reported";
/// A trigger whose receiver never reports.
pub(crate) const UNREPORTED: &str = "t-unreported";
/// A trigger that appears during the storm, and one that goes.
pub(crate) const ADDED: &str = "t-added";
pub(crate) const REMOVED: &str = "t-removed";

/// All triggers of teams, with those that come and go.
pub(crate) const TEAMS: &[Team] = &[
    team(
        "t-version",
        &[of(ONE, APP, Rule::Version, "")],
        Target::Sink,
    ),
    team(
        "t-aged",
        &[of(ONE, APP, Rule::Version, ", min_age = \"2s\"")],
        Target::Sink,
    ),
    team("t-newest", &[of(ONE, APP, Rule::Newest, "")], Target::Sink),
    Team {
        more: "settle = \"0s\"\nagree = \"tag\"\n",
        ..team(
            "t-group",
            &[
                of(TWO, BUILDS[0], Rule::Number, ""),
                of(TWO, BUILDS[1], Rule::Number, ""),
            ],
            Target::Sink,
        )
    },
    team(RULED, &[of(ONE, APP, Rule::Version, "")], Target::Sink),
    Team {
        more: "settle = \"1s\"\nsettle_max = \"3s\"\n",
        ..team(
            "t-settled",
            &[tag(TWO, "shop/web", "v1"), tag(TWO, "shop/worker", "v2")],
            Target::Sink,
        )
    },
    team(
        "t-deploy",
        &[tag(TWO, "shop/web", "latest")],
        Target::Command,
    ),
    team(
        "t-install",
        &[of(ONE, APP, Rule::Version, "")],
        Target::Command,
    ),
    team("t-git-a", &[tag(ONE, "foo/bar", "v1")], Target::Git),
    team("t-git-b", &[tag(TWO, "shop/web", "v1")], Target::Git),
    team("t-kube-a", &[tag(ONE, "foo/bar", "v1")], Target::Kubernetes),
    team(
        "t-kube-b",
        &[tag(TWO, "shop/web", "v1")],
        Target::Kubernetes,
    ),
    team("t-dying", &[tag(ONE, "foo/bar", "latest")], Target::Dying),
    team("t-retried", &[tag(ONE, "shop/web", "v1")], Target::Dying),
    team(
        "t-secret",
        &[tag(TWO, "foo/bar", "v1")],
        Target::SecretInFile,
    ),
    team("t-syntax", &[tag(TWO, "foo/bar", "v2")], Target::Sink),
    // No other trigger has this rule, so the repository is read for it.
    team(
        ADDED,
        &[of(ONE, APP, Rule::Version, ", ignore = [\"0.*\"]")],
        Target::Sink,
    ),
    team(REMOVED, &[tag(ONE, "foo/bar", "v3")], Target::Sink),
    Team {
        more: "settle = \"0s\"\nwindow = { open = [{ cron = \"$MINUTES * * * *\", for = \"1m\" }] }\n",
        ..team(WINDOWED, &[tag(ONE, "shop/web", "v2")], Target::Sink)
    },
    Team {
        more: "settle = \"0s\"\ngap = \"3s\"\n",
        ..team(SPACED, &[tag(ONE, "shop/web", "v3")], Target::Sink)
    },
    Team {
        more: "settle = \"0s\"\ngroup = \"turns\"\n",
        ..team(TURNS[0], &[tag(ONE, "foo/baz", "v1")], Target::Command)
    },
    Team {
        more: "settle = \"0s\"\ngroup = \"turns\"\n",
        ..team(TURNS[1], &[tag(ONE, "foo/baz", "v2")], Target::Sink)
    },
    Team {
        more: "settle = \"0s\"\napprovals = {}\n",
        ..team(APPROVED, &[tag(ONE, "shop/worker", "v1")], Target::Sink)
    },
    Team {
        more: "settle = \"0s\"\napprovals = { needs = 1, within = \"1h\" }\n",
        ..team(UNAPPROVED, &[tag(ONE, "shop/worker", "v2")], Target::Sink)
    },
    Team {
        more: "settle = \"0s\"\napprovals = {}\n",
        ..team(REJECTED, &[tag(ONE, "foo/bar", "v2")], Target::Sink)
    },
    Team {
        more: "settle = \"0s\"\nverify = [{ http = \"$HEALTH\", times = 2, every = \"1s\", within = \"6s\", timeout_seconds = 2 }]\n",
        ..team(VERIFIED, &[tag(ONE, "shop/worker", "v3")], Target::Sink)
    },
    Team {
        more: "settle = \"0s\"\nverify = [{ command = [\"$FOLDER/deploy.sh\", \"look\"], every = \"1s\", within = \"20s\", timeout_seconds = 4, \
               grace_seconds = 3, leftover = \"end\", set.STORM_NOTES = \"$FOLDER/notes\" }]\n",
        ..team(CHECKED, &[tag(ONE, "shop/worker", "edge")], Target::Command)
    },
    Team {
        more: "settle = \"0s\"\ntimeout = \"6s\"\n",
        ..team(REPORTED, &[tag(TWO, "shop/web", "v3")], Target::Reported)
    },
    Team {
        more: "settle = \"0s\"\ntimeout = \"3s\"\n",
        ..team(
            UNREPORTED,
            &[tag(TWO, "shop/worker", "v3")],
            Target::Reported,
        )
    },
    team(FROZEN, &[tag(TWO, "shop/worker", "latest")], Target::Sink),
    team(PAUSED, &[tag(TWO, "foo/baz", "v1")], Target::Sink),
    team(PINNED, &[tag(TWO, "foo/baz", "v2")], Target::Sink),
];

/// The triggers with a target `git`, each with the name of its image.
pub(crate) fn git_triggers() -> Vec<(&'static str, String)> {
    triggers_with(Target::Git)
}

/// The triggers with a target `kubernetes`, each with the name of its image.
pub(crate) fn kubernetes_triggers() -> Vec<(&'static str, String)> {
    triggers_with(Target::Kubernetes)
}

fn triggers_with(target: Target) -> Vec<(&'static str, String)> {
    let teams = TEAMS.iter().filter(|team| team.target == target);
    let image = |team: &Team| {
        let image = team.images[0];
        (
            team.name,
            format!("{}/{}", image.registry, image.repository),
        )
    };
    teams.map(image).collect()
}

/// The addresses in the files.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    pub(crate) sink: String,
    pub(crate) dying: String,
    /// The address that `verify` asks.
    pub(crate) health: String,
    /// The minutes of the window, as in a cron expression.
    pub(crate) minutes: &'static str,
}

/// The folder of triggers, as it is now.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    targets: Targets,
    /// The range of the policy that changes.
    pub(crate) narrow: bool,
    pub(crate) added: bool,
    pub(crate) removed: bool,
    /// A file is no TOML.
    pub(crate) no_toml: bool,
    /// The file of a secret is missing.
    pub(crate) no_secret: bool,
}

impl Files {
    /// Writes the folder `triggers.d` and the program of the commands below `folder`.
    pub(crate) fn start(folder: &Path, targets: Targets) -> Files {
        let files = Files {
            folder: folder.to_owned(),
            targets,
            narrow: false,
            added: false,
            removed: false,
            no_toml: false,
            no_secret: false,
        };
        std::fs::create_dir(folder.join("triggers.d")).unwrap();
        files.write();
        files
    }

    /// Writes all files that differ.
    pub(crate) fn write(&self) {
        let folder = self.folder.join("triggers.d");
        let secret = folder.join("team-secret");
        match self.no_secret {
            true => drop(std::fs::remove_file(&secret)),
            false => replace(&secret, tagtrail_e2e::SIGNING_SECRET),
        }
        for team in TEAMS {
            let path = folder.join(format!("{}.toml", team.name));
            let missing = match team.name {
                ADDED => !self.added,
                REMOVED => self.removed,
                _ => false,
            };
            match missing {
                true => drop(std::fs::remove_file(&path)),
                false => replace(&path, &self.text(team)),
            }
        }
    }

    fn text(&self, team: &Team) -> String {
        if self.no_toml && team.name == "t-syntax" {
            return "[[trigger]\nname = ".to_owned();
        }
        let folder = self.folder.display();
        let more = team.more.replace("$FOLDER", &folder.to_string());
        let more = more.replace("$HEALTH", &self.targets.health);
        let more = more.replace("$MINUTES", self.targets.minutes);
        let mut text = format!("[[trigger]]\nname = \"{}\"\n{more}", team.name);
        for (number, image) in team.images.iter().enumerate() {
            let TeamImage {
                registry,
                repository,
                more,
                ..
            } = image;
            let policy = match image.rule {
                Rule::Tag(tag) => {
                    text += &format!("images.i{number} = \"{registry}/{repository}:{tag}\"\n");
                    continue;
                }
                Rule::Version if team.name == RULED && self.narrow => "semver = \"<1.20\"",
                Rule::Version => "semver = \"*\"",
                Rule::Number => "numeric = \"highest\"",
                Rule::Newest => "newest = \"pushed\", glob = \"1.*.*\"",
            };
            text += &format!(
                "images.i{number} = {{ repository = \"{registry}/{repository}\", {policy}{more} }}\n"
            );
        }
        let Targets { sink, dying, .. } = &self.targets;
        let secret = "env = \"STORM_SIGNING_SECRET\"";
        text += &match team.target {
            Target::Sink => webhook(sink, secret, ""),
            Target::SecretInFile => webhook(sink, "file = \"team-secret\"", ""),
            Target::Dying => webhook(dying, secret, ""),
            Target::Reported => webhook(sink, secret, ", done = \"reported\""),
            Target::Git if repositories::is_release() => webhook(sink, secret, ""),
            Target::Git => format!(
                "[trigger.target.git]\nurl = \"file://{folder}/deploy.git\"\nbranch = \"main\"\ntimeout_seconds = 10\n"
            ),
            Target::Kubernetes => clusters::target(team.name),
            Target::Command => format!(
                "[trigger.target.command]\nrun = [\"{folder}/deploy.sh\"]\ntimeout_seconds = 4\ngrace_seconds = 3\n\
                 leftover = \"end\"\nset.STORM_NOTES = \"{folder}/notes\"\n"
            ),
        };
        text
    }
}

fn webhook(url: &str, secret: &str, more: &str) -> String {
    format!("target.webhook = {{ url = \"{url}\", secret = {{ {secret} }}{more} }}\n")
}

/// Replaces a file as a whole, if its content differs.
fn replace(path: &Path, text: &str) {
    if std::fs::read_to_string(path).is_ok_and(|before| before == text) {
        return;
    }
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

/// The images to push after a storm, as source, repository and tag: all tags that triggers name,
/// and a new highest build.
pub(crate) fn last_pushes() -> impl Iterator<Item = (&'static str, (&'static str, &'static str))> {
    let images = TEAMS.iter().flat_map(|team| team.images);
    // A person's order must mend the trigger of this one.
    let mended = |image: &&TeamImage| {
        (image.registry, image.repository, image.rule) == (ONE, "shop/web", Rule::Tag("v1"))
    };
    let images = images.filter(move |image| !mended(image));
    images.filter_map(|image| {
        let source = image.registry.split_once('.')?.0;
        let tag = match image.rule {
            Rule::Tag(tag) => tag,
            Rule::Number => "100000",
            // Without news, the candidates from before must do.
            Rule::Version | Rule::Newest => return None,
        };
        Some((source, (image.repository, tag)))
    })
}
