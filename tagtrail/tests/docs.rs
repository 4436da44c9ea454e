//! The documentation matches the program: settings, keys, kinds of sources, links.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use tagtrail_config::File;
use tagtrail_policy::selection::{Fit, Outcome, TagHead, Times};
use tagtrail_proto::Digest;
use time::OffsetDateTime;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

fn tagtrail(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tagtrail"));
    command.args(arguments);
    command
}

fn help(arguments: &[&str]) -> String {
    let done = tagtrail(arguments).arg("--help").output().unwrap();
    String::from_utf8(done.stdout).unwrap()
}

/// All commands, with subcommands such as `quarantine replay`.
fn commands() -> Vec<Vec<String>> {
    let listed = |text: &str| -> Vec<String> {
        let (_, list) = text.split_once("\nCommands:\n").unwrap_or_default();
        list.lines()
            .take_while(|line| !line.is_empty())
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help")
            .map(str::to_owned)
            .collect()
    };
    let mut all = Vec::new();
    for command in listed(&help(&[])) {
        for below in listed(&help(&[&command])) {
            all.push(vec![command.clone(), below]);
        }
        all.push(vec![command]);
    }
    all
}

/// The flags and defaults of each environment variable, read from the help texts.
fn settings() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let mut all: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for command in commands() {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let text = help(&command);
        let (_, options) = text.split_once("\nOptions:\n").unwrap();
        // A line that begins with a flag begins an option.
        let mut flag = "";
        let mut about: BTreeMap<&str, String> = BTreeMap::new();
        for line in options.lines() {
            if let Some(found) = line
                .split_whitespace()
                .take(2)
                .find(|word| word.starts_with("--"))
            {
                flag = found;
            }
            let text = about.entry(flag).or_default();
            text.push(' ');
            text.push_str(line.trim());
        }
        for (flag, text) in about {
            let Some((_, env)) = text.split_once("[env: ") else {
                continue;
            };
            let env = env.split([']', '=']).next().unwrap();
            let (flags, defaults) = all.entry(env.to_owned()).or_default();
            flags.insert(flag.to_owned());
            if let Some((_, default)) = text.split_once("[default: ") {
                defaults.insert(default.split(']').next().unwrap().to_owned());
            }
        }
    }
    all
}

#[test]
fn the_table_of_settings_is_complete_and_right() {
    let page = page("docs/operations.md");
    let (_, section) = page.split_once("\n## Settings\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows: BTreeMap<&str, Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .map(|cells| (cells[1].trim_matches('`'), cells))
        .collect();
    let settings = settings();
    assert!(settings.len() > 15, "the help texts could not be parsed");
    assert_eq!(
        rows.keys().copied().collect::<Vec<_>>(),
        settings.keys().collect::<Vec<_>>()
    );
    for (variable, (flags, defaults)) in settings {
        let cells = &rows[variable.as_str()];
        let written: BTreeSet<String> = cells[2]
            .split('`')
            .filter(|word| word.starts_with("--"))
            .map(str::to_owned)
            .collect();
        assert_eq!(written, flags, "flags of {variable}");
        // A default with spaces is a description, not a value.
        for default in defaults.iter().filter(|default| !default.contains(' ')) {
            assert_eq!(cells[4].trim_matches('`'), default, "default of {variable}");
        }
    }
}

#[test]
fn the_example_file_is_valid_and_every_key_is_documented() {
    let page = page("docs/configuration.md");
    let (_, example) = page.split_once("```toml\n").unwrap();
    let example = example.split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagtrail.toml");
    std::fs::write(&path, example).unwrap();
    let done = tagtrail(&["config", "check", path.to_str().unwrap()])
        .env("MAIN_HOOK_SECRET", "0123456789abcdef")
        .env("REGISTRY_PASSWORD", "x")
        .env("DASHBOARD_TOKEN", "0123456789abcdef")
        .env(
            "SHOP_WEBHOOK_SECRET",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        )
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    // A wrong key makes the program list all keys, which differ by the kind of a source. Each must
    // have a row.
    let kinds = tagtrail_gateway::kinds("", "");
    let sources = kinds.iter().map(|kind| {
        let name = kind.names[0];
        format!("[[source]]\nname = \"a\"\nkind = \"{name}\"\nregistry = \"a.b\"\n")
    });
    let others = ["registry", "trigger", "token"].map(|table| format!("[[{table}]]\n"));
    for entry in sources.chain(others) {
        let table = entry.split(['[', ']']).nth(2).unwrap();
        std::fs::write(&path, format!("{entry}no_such_key = 1\n")).unwrap();
        let done = tagtrail(&["config", "check", path.to_str().unwrap()])
            .output()
            .unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        let (_, known) = said.split_once("expected one of ").unwrap();
        let keys: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        assert!(keys.contains(&"name"), "{said}");
        let (_, section) = page.split_once(&format!("## `[[{table}]]`")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        for key in keys {
            let told = [format!("`{key}`"), format!("`{key}."), format!("`{key}.<")];
            assert!(
                told.iter().any(|told| section.contains(told.as_str())),
                "docs/configuration.md has no row for {table}.{key}"
            );
        }
    }
}

/// The names in backquotes of a row of a table, from `from` to the end of its sentence.
fn names_of_row<'a>(page: &'a str, row: &str, from: &str) -> BTreeSet<&'a str> {
    let row = page.lines().find(|line| line.starts_with(row)).unwrap();
    let (_, names) = row.split_once(from).unwrap();
    let names = names.split(['(', ';', '.']).next().unwrap();
    names.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_page_on_configuration_names_every_kind_and_its_rules() {
    let page = page("docs/configuration.md");
    let kinds = tagtrail_gateway::kinds("", "");
    let names = |chosen: &dyn Fn(&tagtrail_gateway::KindSetup) -> bool| -> BTreeSet<&str> {
        let chosen = kinds.iter().filter(|kind| chosen(kind));
        chosen.flat_map(|kind| kind.names.clone()).collect()
    };
    assert_eq!(
        names_of_row(&page, "| `kind` |", "one of"),
        names(&|_| true)
    );
    assert_eq!(
        names_of_row(&page, "| `registry` |", "; not for"),
        names(&|kind| kind.needs_registry)
    );
    assert_eq!(
        names_of_row(&page, "| `secret` |", "list of two."),
        names(&|kind| kind.signs)
    );
}

#[test]
fn every_kind_of_source_has_a_section_with_the_settings_that_doctor_prints() {
    let page = page("docs/registries.md");
    let kinds = tagtrail_gateway::kinds("https://tagtrail.example.com/hooks/NAME", "SECRET");
    let mut sections = page.split("\n## ");
    let table = sections.next().unwrap();
    // The heading of a section names its kind as code.
    let is_kind = |section: &&str| {
        section
            .lines()
            .next()
            .is_some_and(|line| line.contains('`'))
    };
    let sections: Vec<&str> = sections.filter(is_kind).collect();
    assert_eq!(sections.len(), kinds.len(), "a section for each kind");
    for kind in kinds {
        let names: Vec<String> = kind.names.iter().map(|name| format!("`{name}`")).collect();
        let names = names.join(", ");
        assert!(
            table.contains(&format!("\n| {names} |")),
            "a row of {names}"
        );
        let title = format!(": {names}");
        let section = sections
            .iter()
            .find(|section| section.lines().next().unwrap().ends_with(&title))
            .unwrap_or_else(|| panic!("docs/registries.md has no section \"## …{title}\""));
        let block = format!("```text\n{}\n```\n", kind.text);
        assert!(
            format!("{section}\n").contains(&block),
            "docs/registries.md does not have these settings of {names}:\n{block}"
        );
        let examples: Vec<&str> = section.split("```toml\n").skip(1).collect();
        assert!(!examples.is_empty(), "an example of {names}");
        for example in examples {
            let example = example.split("```").next().unwrap();
            let file = File::parse(example, "docs/registries.md".as_ref()).unwrap();
            assert_eq!(file.source.len(), 1, "{example}");
            let gateway = "https://tagtrail.example.com";
            let setup = tagtrail_gateway::setup(&file, &file.source[0], gateway).unwrap();
            assert_eq!(setup.kind, kind.names[0], "{example}");
            let asked: Vec<_> = file
                .registry
                .iter()
                .map(|asked| asked.name.get_ref())
                .collect();
            assert!(
                kind.has_digest || setup.registry.iter().any(|name| asked.contains(&name)),
                "digests can't be asked for: {example}"
            );
        }
    }
}

/// A line `# of 1.0, 1.1: 1.1` below an image names the tags of a repository and the selected one.
#[test]
fn every_policy_of_the_documentation_selects_the_tag_that_it_names() {
    let text = page("docs/triggers.md");
    let mut checked = 0;
    for example in text.split("```toml\n").skip(1) {
        let example = example.split("```").next().unwrap();
        let file = File::parse(example, "docs/triggers.md".as_ref()).unwrap();
        assert_eq!(file.warnings(), Vec::<String>::new(), "{example}");
        assert_eq!(file.broken, [], "{example}");
        let mut name = "";
        for line in example.lines() {
            if let Some(image) = line.strip_prefix("images.") {
                name = image.split(' ').next().unwrap();
            }
            let Some((tags, selected)) = line
                .strip_prefix("# of ")
                .and_then(|line| line.split_once(": "))
            else {
                continue;
            };
            let mut images = file.trigger[0].images.iter();
            let (_, watched) = images.find(|(key, _)| key.get_ref() == name).unwrap();
            let heads: Vec<TagHead> = tags.split(", ").map(head).collect();
            let policy = &watched.policy().unwrap().policy;
            let now = OffsetDateTime::UNIX_EPOCH;
            let selection = policy.select(&heads, None, now);
            let Outcome::Select { head, .. } = &selection.outcome else {
                panic!("{line}: {selection:?}");
            };
            assert_eq!(head.tag.as_ref(), selected, "{line}");
            checked += 1;
        }
    }
    assert!(checked >= 10, "{checked}");
}

fn head(tag: &str) -> TagHead {
    TagHead {
        tag: tag.parse().unwrap(),
        digest: Some(Digest::sha256_of(tag.as_bytes())),
        times: Times {
            pushed: OffsetDateTime::UNIX_EPOCH,
            created: None,
        },
        recorded_at: OffsetDateTime::UNIX_EPOCH,
        tombstone: false,
        fit: Fit::Fits,
    }
}

#[test]
fn every_link_of_the_documentation_has_a_target() {
    let pages = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "docs/command.md",
        "docs/configuration.md",
        "docs/decisions.md",
        "docs/generic-source.md",
        "docs/operations.md",
        "docs/performance.md",
        "docs/registries.md",
        "docs/reliability.md",
        "docs/reports.md",
        "docs/security.md",
        "docs/subscribe.md",
        "docs/triggers.md",
        "docs/webhook.md",
    ];
    for name in pages {
        let text = page(name);
        let folder = root().join(name);
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            let link = link.split('#').next().unwrap();
            if link.is_empty() || link.starts_with("http") {
                continue;
            }
            assert!(
                folder.parent().unwrap().join(link).exists(),
                "{name} links to {link}, which is not there"
            );
        }
    }
}

/// Collects the files and folders below a folder, by their paths from the root, without builds and
/// tools.
fn tree(folder: &Path, all: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let of_cargo = name == "target" && !entry.path().with_extension("rs").exists();
        if name.starts_with('.') || of_cargo {
            continue;
        }
        let path = entry.path();
        let from_root = path.strip_prefix(root()).unwrap();
        all.insert(format!("/{}", from_root.to_str().unwrap()));
        if entry.file_type().unwrap().is_dir() {
            tree(&path, all);
        }
    }
}

#[test]
fn every_path_on_the_pages_for_developers_exists() {
    let mut all = BTreeSet::new();
    tree(&root(), &mut all);
    let exists = |path: &str| {
        let end = format!("/{}", path.trim_end_matches('/'));
        all.iter().any(|there| there.ends_with(&end))
    };
    let mut checked = 0;
    for name in [
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/reliability.md",
        "docs/security.md",
    ] {
        let text = page(name);
        let (mut in_block, mut words) = (false, Vec::new());
        for line in text.lines() {
            if line.starts_with("```") {
                in_block = !in_block;
            } else if in_block && name == "ARCHITECTURE.md" {
                // The tree names files without backquotes.
                words.extend(line.split([' ', ',', ';', ':', '(', ')']));
            } else if !in_block {
                words.extend(line.split('`').skip(1).step_by(2));
            }
        }
        let is_path = |word: &&str| {
            let extensions = [
                ".rs", ".sql", ".md", ".json", ".sh", ".py", ".toml", ".conf", "/",
            ];
            extensions.iter().any(|extension| word.ends_with(extension))
                && !word.contains(['<', ' ', '*'])
                && !word.starts_with(['/', '.'])
                && !word.starts_with("foo")
        };
        for path in words.into_iter().filter(is_path) {
            assert!(exists(path), "{name} names {path}, which does not exist");
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn every_test_that_the_page_on_security_names_exists() {
    let mut paths = BTreeSet::new();
    tree(&root(), &mut paths);
    let sources: String = paths
        .iter()
        .filter(|path| path.ends_with(".rs"))
        .map(|path| page(path.trim_start_matches('/')))
        .collect();
    let text = page("docs/security.md");
    let is_test = |word: &&str| {
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        word.chars().all(lower) && word.matches('_').count() >= 3
    };
    let mut checked = 0;
    for name in text.split('`').skip(1).step_by(2).filter(is_test) {
        assert!(
            sources.contains(&format!("fn {name}(")),
            "docs/security.md names {name}, which does not exist"
        );
        checked += 1;
    }
    assert!(checked > 60, "{checked}");
}

/// Returns the number of requirements in a list such as `1.2.6–1.2.8, 2.1.1`.
fn requirements(list: &str) -> u32 {
    let last = |number: &str| -> u32 { number.rsplit('.').next().unwrap().parse().unwrap() };
    list.split(", ")
        .map(|part| match part.split_once('–') {
            Some((from, to)) => last(to) - last(from) + 1,
            None => 1,
        })
        .sum()
}

#[test]
fn the_page_on_security_judges_every_requirement_of_levels_1_and_2() {
    let text = page("docs/security.md");
    let (_, table) = text.split_once("| requirement |").unwrap();
    let mut judged = 0;
    for row in table.lines().skip(2) {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let [numbers, _, holds, evidence] = cells[..] else {
            panic!("a row without four cells: {row}");
        };
        assert!(["yes", "partly", "no", "n/a"].contains(&holds), "{row}");
        assert!(!evidence.is_empty(), "{row}");
        judged += requirements(numbers);
    }
    assert_eq!(judged, 253);
}
