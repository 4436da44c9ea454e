use std::time::Duration;

use super::*;
use crate::broken::Table;

const REGISTRY: &str = "[[registry]]\nname = \"r.example.com\"\nurl = \"https://r.example.com\"\n";

fn trigger(name: &str, more: &str) -> String {
    format!(
        "[[trigger]]\nname = \"{name}\"\nimages.web = \"r.example.com/a/b\"\ntarget.command = {{ run = [\"true\"] }}\n{more}"
    )
}

fn names(file: &File) -> Vec<String> {
    let triggers = file.trigger.iter();
    triggers.map(|one| one.name.get_ref().to_string()).collect()
}

/// Writes with an older time, so that the next look needs no pause.
fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

fn look(follower: &Follower) -> Option<Arc<File>> {
    follower.state.lock().unwrap().look()
}

#[tokio::test]
async fn a_change_of_any_file_is_found_and_a_broken_one_keeps_the_entries_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("triggers.d")).unwrap();
    let main = format!(
        "triggers = \"triggers.d\"\n{REGISTRY}{}",
        trigger("main", "")
    );
    write(path, "tagtrail.toml", &main);
    write(path, "triggers.d/a.toml", &trigger("a", ""));
    write(path, "triggers.d/.b.toml", "no toml");
    let follower = Follower::start(&path.join("tagtrail.toml")).unwrap();
    assert_eq!(names(&follower.file()), ["main", "a"]);
    assert!(follower.file().trigger[1].folder().ends_with("triggers.d"));
    assert!(look(&follower).is_none());

    // A second entry of one name, in another file.
    write(
        path,
        "triggers.d/b.toml",
        &format!("{}{}", trigger("b", ""), trigger("a", "")),
    );
    let file = look(&follower).unwrap();
    assert_eq!(names(&file), ["main", "a", "b"]);
    assert!(file.broken[0].second && file.broken[0].problem.path().ends_with("b.toml"));

    // A file that is no TOML, and one with a broken entry.
    write(path, "triggers.d/a.toml", "[[trigger");
    write(path, "triggers.d/b.toml", &trigger("b", "settle = 3\n"));
    let file = look(&follower).unwrap();
    assert_eq!(names(&file), ["main", "a", "b"]);
    assert_eq!(file.broken.len(), 2, "{:?}", file.broken);
    write(path, "tagtrail.toml", "[[sauce]]");
    assert_eq!(names(&look(&follower).unwrap()), ["main", "a", "b"]);

    // Repaired, with one file removed.
    write(
        path,
        "tagtrail.toml",
        &main.replace("\"main\"", "\"other\""),
    );
    std::fs::remove_file(path.join("triggers.d/b.toml")).unwrap();
    write(
        path,
        "triggers.d/a.toml",
        &trigger("a", "settle = \"3s\"\n"),
    );
    let file = look(&follower).unwrap();
    assert_eq!(names(&file), ["other", "a"]);
    assert_eq!(file.broken, []);
    assert!(file.trigger[1].settle.is_some());
    assert!(look(&follower).is_none());
}

#[tokio::test]
async fn receivers_of_messages_may_stand_beside_the_triggers_of_a_team() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("triggers.d")).unwrap();
    let chat = |name: &str, more: &str| {
        format!(
            "[[notify]]\nname = \"{name}\"\nformat = \"slack\"\nurl = {{ file = \"{name}.url\" }}\n{more}"
        )
    };
    let main = format!(
        "triggers = \"triggers.d\"\n{REGISTRY}{}{}",
        trigger("main", ""),
        chat("ops", "")
    );
    write(path, "tagtrail.toml", &main);
    let a = format!("{}{}", trigger("a", ""), chat("chat-a", ""));
    write(path, "triggers.d/a.toml", &a);
    let named = chat("chat-b", "triggers = [\"b-*\"]\n");
    write(path, "triggers.d/b.toml", &named);
    let follower = Follower::start(&path.join("tagtrail.toml")).unwrap();
    let told = |file: &File| -> Vec<(String, Vec<String>)> {
        let each = file.notify.iter().map(|one| {
            let globs = one.triggers().iter().map(ToString::to_string);
            (one.name.get_ref().to_string(), globs.collect())
        });
        each.collect()
    };
    let of = |name: &str, globs: &[&str]| {
        let globs = globs.iter().map(|glob| (*glob).to_owned());
        (name.to_owned(), globs.collect::<Vec<_>>())
    };
    let file = follower.file();
    let (ops, b) = (of("ops", &[]), of("chat-b", &["b-*"]));
    assert_eq!(told(&file), [ops.clone(), of("chat-a", &["a"]), b.clone()]);
    assert!(file.notify[1].folder().ends_with("triggers.d"));

    // A second trigger, which is broken, changes the entry.
    let more = format!("{a}{}", trigger("a-2", "settle = 3\n"));
    write(path, "triggers.d/a.toml", &more);
    let next = look(&follower).unwrap();
    assert_eq!(told(&next)[1], of("chat-a", &["a", "a-2"]));
    let written = |file: &File| file.written(Table::Notify, "chat-a").cloned();
    assert_ne!(written(&file), written(&next));

    // One that is broken stays as it was, and takes down no other.
    let wrong = more.replace("\"slack\"", "\"slakc\"");
    write(path, "triggers.d/a.toml", &wrong);
    let file = look(&follower).unwrap();
    let broken: Vec<_> = file.broken_of(Table::Notify).collect();
    assert!(broken[0].problem.path().ends_with("a.toml"), "{broken:?}");
    let mut all = told(&file);
    all.sort();
    assert_eq!(all, [of("chat-a", &["a", "a-2"]), b.clone(), ops.clone()]);

    // Without a trigger in the file the entry must name some. Other tables are refused.
    write(path, "triggers.d/a.toml", &chat("chat-c", ""));
    let file = look(&follower).unwrap();
    assert_eq!(told(&file), [ops, b]);
    let problem = file.broken_of(Table::Notify).next().unwrap();
    assert!(problem.problem.to_string().contains("names no trigger"));
    write(path, "triggers.d/a.toml", "[[token]]\n");
    let file = look(&follower).unwrap();
    let problem = file.broken_of(Table::File).next().unwrap();
    assert!(problem.problem.to_string().contains("`trigger`, `notify`"));
}

#[tokio::test]
async fn a_changed_secret_is_a_change_although_the_entries_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let text = "[[token]]\nname = \"ui\"\nrole = \"read\"\nsecret = { file = \"token\" }\n";
    write(path, "tagtrail.toml", text);
    let mut follower = Follower::start(&path.join("tagtrail.toml")).unwrap();
    write(path, "token", "0123456789abcdef");
    let changed = tokio::time::timeout(Duration::from_secs(8), follower.changed());
    assert_eq!(changed.await.unwrap().token.len(), 1);
    // Touched, but the same.
    write(path, "token", "0123456789abcdef");
    assert!(look(&follower).is_none());
}

#[tokio::test]
async fn a_thousand_files_are_read_again_in_a_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("triggers.d")).unwrap();
    write(path, "tagtrail.toml", "triggers = \"triggers.d\"\n");
    for number in 0..1000 {
        let name = format!("triggers.d/team-{number}.toml");
        write(path, &name, &trigger(&format!("team-{number}"), ""));
    }
    let follower = Follower::start(&path.join("tagtrail.toml")).unwrap();
    write(
        path,
        "triggers.d/team-7.toml",
        &trigger("team-7", "settle = \"1s\"\n"),
    );
    let began = std::time::Instant::now();
    let file = look(&follower).unwrap();
    let took = began.elapsed();
    assert_eq!(file.trigger.len(), 1000);
    assert!(took < Duration::from_secs(5), "{took:?}");
    #[expect(clippy::print_stderr, reason = "a figure for people")]
    {
        eprintln!("a reload with 1,000 files took {took:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_being_written_removes_no_trigger() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagtrail.toml");
    let whole = format!("{}{}", trigger("a", ""), trigger("b", ""));
    std::fs::write(&path, &whole).unwrap();
    let mut follower = Follower::start(&path).unwrap();
    // The editor has written the first entry, and writes the rest.
    std::fs::write(&path, trigger("a", "")).unwrap();
    let rest = async {
        tokio::time::sleep(LOOK + REST.0 / 5).await;
        std::fs::write(&path, format!("{whole}\n# done")).unwrap();
    };
    let (changed, ()) = tokio::join!(follower.changed(), rest);
    assert_eq!(names(changed.as_ref()), ["a", "b"]);
    // Removed for good. A caller that gives up and asks again loses nothing.
    std::fs::write(&path, trigger("b", "")).unwrap();
    let mut calls = 0;
    let changed = loop {
        calls += 1;
        assert!(calls < 10);
        if let Ok(changed) = tokio::time::timeout(REST.0 * 3, follower.changed()).await {
            break changed;
        }
    };
    assert_eq!(names(changed.as_ref()), ["b"]);
}

#[tokio::test]
async fn a_file_that_changes_while_files_are_read_is_read_at_the_next_look() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("triggers.d")).unwrap();
    write(path, "tagtrail.toml", "triggers = \"triggers.d\"\n");
    for number in 0..50 {
        let name = format!("triggers.d/m-{number}.toml");
        write(path, &name, &trigger(&format!("m-{number}"), ""));
    }
    let follower = Follower::start(&path.join("tagtrail.toml")).unwrap();
    // Files that are read before and after all others, at moments across the whole look.
    for round in 0..60 {
        write(
            path,
            "triggers.d/m-7.toml",
            &trigger(&format!("old-{round}"), ""),
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_micros(100 * round));
                for name in ["a", "z"] {
                    let text = trigger(&format!("{name}-{round}"), "");
                    write(path, &format!("triggers.d/{name}.toml"), &text);
                }
            });
            look(&follower);
        });
        look(&follower);
        let names = names(&follower.file());
        for name in ["a", "z"] {
            assert!(
                names.contains(&format!("{name}-{round}")),
                "{round} {names:?}"
            );
        }
    }
}
