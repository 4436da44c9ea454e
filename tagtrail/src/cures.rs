//! A test: every command, flag, variable and path of the API that a text of the program names
//! exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap::Parser as _;
use clap::error::ErrorKind;

use crate::Cli;

/// The lines of the program's own sources that are no comments, with their files.
fn lines() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // These name settings and flags of other programs.
    let foreign = [
        "services/gateway/src/source/",
        "services/gateway/src/setup.rs",
        "services/trigger/src/target.rs",
        "services/trigger/src/target/",
        "crates/embedded/",
        "crates/testkit/",
    ];
    let mut folders: Vec<PathBuf> = ["tagtrail", "services", "crates", "rules", "proto"]
        .map(|folder| root.join(folder))
        .into();
    let mut lines = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_path_buf();
            if foreign.iter().any(|foreign| name.starts_with(foreign)) || name.ends_with("cures.rs")
            {
                continue;
            }
            if path.is_dir() && !path.ends_with("tests") && !path.ends_with("examples") {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.lines().map(str::trim);
                let code = code.filter(|line| !line.starts_with("//"));
                lines.extend(code.map(|line| (name.clone(), line.to_owned())));
            }
        }
    }
    lines
}

fn flags_of(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(clap::Arg::get_long);
    own.map(|flag| format!("--{flag}")).collect()
}

fn all_commands() -> Vec<clap::Command> {
    let (mut found, mut open) = (Vec::new(), vec![Cli::command()]);
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().cloned());
        found.push(command);
    }
    found
}

/// The words of a line that begin with `start`, up to the first character of no name.
fn words<'a>(line: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(start).map(move |(at, _)| {
        let rest = &line[at..];
        let named = |letter: char| letter.is_ascii_alphanumeric() || "-_/".contains(letter);
        let end = rest[start.len()..].find(|letter| !named(letter));
        &rest[..end.map_or(rest.len(), |end| start.len() + end)]
    })
}

#[test]
fn every_command_that_a_text_names_can_be_given() {
    let mut checked = 0;
    for (file, line) in lines() {
        for code in line.split('`').skip(1).step_by(2) {
            let Some(rest) = code.strip_prefix("tagtrail ") else {
                continue;
            };
            let words = rest.split_whitespace();
            let given = std::iter::once("tagtrail").chain(words);
            if let Err(error) = Cli::try_parse_from(given)
                // A text may leave out the argument that the reader has in mind.
                && error.kind() != ErrorKind::MissingRequiredArgument
                && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            {
                panic!("{}: {code}: {error}", file.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 8, "{checked} commands found");
}

#[test]
fn every_flag_and_variable_that_a_text_names_exists() {
    let commands = all_commands();
    let flags: BTreeSet<String> = commands.iter().flat_map(flags_of).collect();
    let variables: BTreeSet<String> = commands
        .iter()
        .flat_map(|command| command.get_arguments())
        .filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()))
        .collect();
    let (mut checked, mut wrong) = (0, BTreeSet::new());
    for (file, line) in lines() {
        let mut known = |known: bool| {
            checked += 1;
            if !known {
                wrong.insert(format!("{}: {line}", file.display()));
            }
        };
        for start in [" --", "`--", "(--"] {
            for flag in words(&line, start) {
                known(flags.contains(&flag[1..]));
            }
        }
        for start in ["set TAGTRAIL_", "or TAGTRAIL_", "with TAGTRAIL_"] {
            for variable in words(&line, start) {
                known(variables.contains(variable.split_once(' ').unwrap().1));
            }
        }
        for (at, _) in line.match_indices("` of `tagtrail ") {
            let flag = line[..at].rsplit('`').next().unwrap();
            let name = line[at..].split('`').nth(2).unwrap();
            let name = name.strip_prefix("tagtrail ").unwrap();
            let command = commands.iter().find(|command| command.get_name() == name);
            known(command.is_some_and(|command| flags_of(command).contains(flag)));
        }
    }
    assert_eq!(wrong, BTreeSet::new());
    assert!(checked > 20, "{checked} flags and variables found");
}

#[test]
fn every_path_of_the_api_that_a_text_names_exists() {
    let document = tagtrail_api::openapi();
    let paths = document["paths"].as_object().unwrap();
    let mut checked = 0;
    for (file, line) in lines() {
        if file.starts_with("services/api/src/operations") {
            continue;
        }
        for path in words(&line, "GET /v1") {
            let path = path.strip_prefix("GET ").unwrap();
            assert!(paths.contains_key(path), "{}: {line}", file.display());
            checked += 1;
        }
    }
    assert!(checked > 1, "{checked} paths found");
}
