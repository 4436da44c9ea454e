//! The file of a program, and the reasons why it can't be started.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::super::contract::TargetProblem;

/// The folders of programs where the environment has no `PATH`.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Finds the program as the system does: by its path from the folder, or in `path`, the value of
/// the variable `PATH` of the program. An error says why the program can't be started here. Another
/// machine may have the program, so the problem is a warning.
pub(super) fn find(
    name: &str,
    folder: &Path,
    path: Option<&OsStr>,
) -> Result<PathBuf, TargetProblem> {
    let file = look(name, folder, path).ok_or_else(|| missing(name, folder))?;
    let shown = file.display();
    match std::fs::metadata(&file) {
        Ok(found) if !found.is_file() => {
            return Err(problem(format!("{shown} is no file"), "correct run"));
        }
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            let found = format!("{shown} is not executable");
            return Err(problem(found, "chmod +x makes it so"));
        }
        _ => {}
    }
    check_interpreter(&file, folder, path)?;
    // A path stays as written, relative to the folder: the program sees it.
    Ok(match name.contains('/') {
        true => PathBuf::from(name),
        false => file,
    })
}

fn look(name: &str, folder: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    if name.contains('/') {
        let file = folder.join(name);
        return file.exists().then_some(file);
    }
    let folders = std::env::split_paths(path.unwrap_or(OsStr::new(PATH)));
    let mut files = folders.map(|place| folder.join(place).join(name));
    files.find(|file| file.is_file())
}

fn missing(name: &str, folder: &Path) -> TargetProblem {
    if name.contains(' ') {
        return problem(
            format!("no program has the name {name:?}: there is no shell"),
            "write one text for each argument, run = [\"./deploy.sh\", \"--now\"], or for a shell, run = [\"sh\", \"-c\", \"…\"]",
        );
    }
    let place = match name.contains('/') {
        true => format!("{} has no program {name}", folder.display()),
        false => format!("PATH has no program {name}"),
    };
    problem(
        place,
        "install the program where the trigger service runs, or correct run",
    )
}

/// Checks the program that the first line of a script names, `#!/bin/sh`.
fn check_interpreter(
    file: &Path,
    folder: &Path,
    path: Option<&OsStr>,
) -> Result<(), TargetProblem> {
    let mut start = Vec::new();
    // Linux reads 256 bytes. A file that this user may not read is not checked.
    if std::fs::File::open(file)
        .and_then(|file| file.take(256).read_to_end(&mut start))
        .is_err()
    {
        return Ok(());
    }
    let line = start.split(|byte| *byte == b'\n').next();
    let Some(line) = line.and_then(|line| line.strip_prefix(b"#!")) else {
        return Ok(());
    };
    let shown = file.display();
    if line.ends_with(b"\r") {
        return Err(problem(
            format!("{shown} has the line ends of Windows, so its interpreter is not found"),
            "save it with LF as line ends",
        ));
    }
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let Some(interpreter) = words.next().map(|word| Path::new(OsStr::from_bytes(word))) else {
        return Ok(());
    };
    let cure = "install the interpreter where the trigger service runs, or correct the first line";
    if !folder.join(interpreter).exists() {
        let found = format!(
            "the interpreter {} of {shown} is missing",
            interpreter.display()
        );
        return Err(problem(found, cure));
    }
    // `env` finds another interpreter in PATH.
    if interpreter.ends_with("env")
        && let Some(Ok(name)) = words.next().map(std::str::from_utf8)
        && !name.starts_with('-')
        && !name.contains(['=', '/'])
        && look(name, folder, path).is_none()
    {
        let found = format!("PATH has no interpreter {name} of {shown}");
        return Err(problem(found, cure));
    }
    Ok(())
}

fn problem(found: String, cure: &str) -> TargetProblem {
    TargetProblem {
        fatal: false,
        found,
        cure: cure.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn a_script_needs_its_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("deploy.sh");
        let path = OsStr::new("/usr/bin:/bin");
        for (text, expected) in [
            ("#!/bin/sh\ntrue\n", None),
            ("#! /bin/sh -eu", None),
            ("#!/usr/bin/env sh\n", None),
            ("#!/usr/bin/env -S sh -eu\n", None),
            ("\u{7f}ELF", None),
            ("", None),
            (
                "#!/no/such/python\n",
                Some("the interpreter /no/such/python of "),
            ),
            (
                "#!/usr/bin/env no-such-node\n",
                Some("PATH has no interpreter no-such-node of "),
            ),
            ("#!/bin/sh\r\ntrue\r\n", Some("line ends of Windows")),
        ] {
            std::fs::write(&script, text).unwrap();
            std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
            let found = find("./deploy.sh", folder.path(), Some(path));
            match expected {
                None => assert_eq!(found.unwrap(), Path::new("./deploy.sh"), "{text}"),
                Some(expected) => {
                    let problem = found.unwrap_err();
                    assert!(problem.found.contains(expected), "{text}: {problem:?}");
                }
            }
        }
    }

    #[test]
    fn a_name_without_a_slash_is_found_in_the_path_of_the_program() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        let tool = folder.path().join("bin/tool");
        std::fs::write(&tool, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&tool, Permissions::from_mode(0o755)).unwrap();
        // A relative folder of PATH begins in the working folder of the program.
        let found = find("tool", folder.path(), Some(OsStr::new("/nowhere:bin")));
        assert_eq!(found.unwrap(), tool);
        find("tool", folder.path(), Some(OsStr::new("/nowhere"))).unwrap_err();
        assert!(find("sh", folder.path(), None).unwrap().ends_with("sh"));
    }
}
