//! The program of the triggers with a command, and the checks of its notes.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

/// Notes begin and end, or as a step of `verify` the pass. The lock shows whether an earlier run,
/// or a process that it left behind, lives. During the storm it fails, hangs, resists SIGTERM and
/// leaves processes behind.
const PROGRAM: &str = r#"#!/bin/sh
notes=$STORM_NOTES/$TAGTRAIL_TRIGGER
exec 9>>"$notes.lock"
if ! flock --nonblock 9; then
    echo "overlap $TAGTRAIL_ROLLOUT_ID $TAGTRAIL_ATTEMPT -" >>"$notes"
    exit 1
fi
body=$(sha256sum | cut -c1-64)
# The storm may have killed the shell that reads.
[ ${#body} = 64 ] || exit 1
word=end
if [ "$1" = look ]; then word=passed; fi
[ $word = passed ] || echo "begin $TAGTRAIL_ROLLOUT_ID $TAGTRAIL_ATTEMPT $body" >>"$notes"
if [ -e "$STORM_NOTES/resist" ]; then
    trap '' TERM
    sleep 6
elif ! [ -e "$STORM_NOTES/calm" ]; then
    case $(( $$ % 8 )) in
        0) trap '' TERM; sleep 2 ;;
        1) sleep 30 ;;
        2) exit 7 ;;
        3) kill -9 $$ ;;
        4) setsid sleep 3 & ;;
        *) sleep 0.3 ;;
    esac
fi
echo "$word $TAGTRAIL_ROLLOUT_ID $TAGTRAIL_ATTEMPT $body" >>"$notes"
"#;

/// Writes the program `deploy.sh`, and makes the folder of its notes.
pub(crate) fn install(folder: &Path) {
    let program = folder.join("deploy.sh");
    std::fs::write(&program, PROGRAM).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(folder.join("notes")).unwrap();
}

/// Kills a process of a command: the program, one that it started, or their supervisor.
pub(crate) fn kill_one(folder: &Path, random: &mut StdRng) {
    let folder = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let of_commands = processes.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line);
        let is_one =
            line.contains(folder) && (line.contains("supervise") || line.contains("deploy.sh"));
        is_one.then_some(pid)
    });
    let pids: Vec<i32> = of_commands.collect();
    if let Some(pid) = pids.choose(random) {
        let _ = std::process::Command::new("kill")
            .args(["-9", &pid.to_string()])
            .stderr(std::process::Stdio::null())
            .status();
    }
}

/// Checks the notes of a trigger's command: no two runs at once, the same input for each rollout,
/// and only rollouts of this trigger. The last rollout has this word: `end`, or `passed` after a
/// step of `verify`.
pub(crate) fn check(
    trigger: &str,
    notes: &str,
    is_recorded: impl Fn(&str) -> bool,
    (word_of_last, last): (&str, &str),
) -> Result<(), String> {
    let mut bodies: BTreeMap<&str, &str> = BTreeMap::new();
    let mut ended = false;
    for line in notes.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [word, id, attempt, body] = words[..] else {
            return Err(format!("the command of {trigger} noted {line}"));
        };
        match word {
            "overlap" => {
                return Err(format!(
                    "attempt {attempt} of rollout {id} of {trigger} ran while an earlier run lived"
                ));
            }
            "end" | "passed" => ended |= (word, id) == (word_of_last, last),
            _ if !is_recorded(id) => {
                return Err(format!(
                    "the command of {trigger} got {id}, which is not recorded"
                ));
            }
            _ => {
                let before = *bodies.entry(id).or_insert(body);
                if before != body {
                    return Err(format!("rollout {id} of {trigger} had another input"));
                }
            }
        }
    }
    match ended {
        true => Ok(()),
        false => Err(format!(
            "the command of {trigger} never noted {word_of_last} of rollout {last}"
        )),
    }
}

#[test]
fn the_notes_of_a_command_show_each_breach() {
    let check = |notes: &str| check("shop", notes, |id| id != "unknown", ("end", "b"));
    let good = "begin a 1 x\nbegin a 2 x\nbegin b 1 y\nend b 1 y\n";
    assert_eq!(check(good), Ok(()));
    for (wrong, error) in [
        ("overlap b 2 -\n", "an earlier run lived"),
        ("begin a 3 z\n", "another input"),
        ("begin unknown 1 x\n", "is not recorded"),
    ] {
        let found = check(&format!("{good}{wrong}")).unwrap_err();
        assert!(found.contains(error), "{found}");
    }
    for unfinished in ["begin b 1 y\n", "begin b 1 y\npassed b 1 y\n"] {
        let found = check(unfinished).unwrap_err();
        assert!(found.contains("never noted end"), "{found}");
    }
}
