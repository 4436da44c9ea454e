//! The data folder: files of others are neither removed nor followed nor trusted.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use tagtrail_embedded::{Folder, Postgres, Settings};

/// A user other than the one that runs this test.
const NOBODY: u32 = 65534;

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o711))
        .tempdir()
        .unwrap()
}

fn refusal(data: &Path) -> String {
    format!("{:#}", Folder::open(data).unwrap_err())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Returns all paths below a folder, with their content and modes.
fn all(folder: &Path) -> Vec<(PathBuf, u32, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        if metadata.is_dir() {
            found.extend(all(&path));
        }
        found.push((path.clone(), metadata.mode(), std::fs::read(path).ok()));
    }
    found.sort();
    found
}

#[test]
fn a_folder_with_files_of_somebody_else_is_left_as_it_is() {
    let folder = folder();
    let data = folder.path().join("project");
    std::fs::create_dir_all(data.join("postgres/base")).unwrap();
    std::fs::write(data.join("postgres/PG_VERSION"), "16\n").unwrap();
    std::fs::write(data.join("postgres/base/1"), "rows").unwrap();
    std::fs::write(data.join("lock"), "of another program").unwrap();
    let before = (all(&data), data.metadata().unwrap().mode());
    let refused = refusal(&data);
    assert!(
        refused.contains("Tagtrail did not make") && refused.contains("--data"),
        "{refused}"
    );
    assert_eq!((all(&data), data.metadata().unwrap().mode()), before);
}

#[test]
fn an_empty_folder_and_a_mount_point_are_taken_and_known_again() {
    let folder = folder();
    for name in ["new/below", "empty", "mounted"] {
        let data = folder.path().join(name);
        if name != "new/below" {
            std::fs::create_dir(&data).unwrap();
        }
        if name == "mounted" {
            std::fs::create_dir(data.join("lost+found")).unwrap();
        }
        drop(Folder::open(&data).unwrap());
        assert_eq!(data.metadata().unwrap().mode() & 0o066, 0, "{name}");
        std::fs::write(data.join("notes"), "of the owner").unwrap();
        drop(Folder::open(&data).unwrap());
    }
}

#[test]
fn a_folder_of_a_release_without_markers_is_known_by_its_files() {
    let folder = folder();
    let data = folder.path().join("data");
    std::fs::create_dir_all(data.join("nats")).unwrap();
    std::fs::write(data.join("lock"), "4711\n").unwrap();
    std::fs::write(data.join("nats.port"), "4222").unwrap();
    assert!(refusal(&data).contains("Tagtrail did not make"));
    std::fs::write(data.join("postgres.initialised"), "").unwrap();
    drop(Folder::open(&data).unwrap());
    assert!(data.join("tagtrail.folder").exists());
    let lock = std::fs::read_to_string(data.join("lock")).unwrap();
    assert_eq!(lock, format!("{}\n", std::process::id()));
}

#[test]
fn links_in_a_data_folder_are_not_followed() {
    let folder = folder();
    let victim = folder.path().join("important");
    std::fs::write(&victim, "important\n").unwrap();
    for name in [
        "lock",
        "postgres.password",
        "nats",
        "nats.log",
        "endpoints.json",
    ] {
        let data = folder.path().join(format!("data-{name}"));
        drop(Folder::open(&data).unwrap());
        let _ = std::fs::remove_file(data.join(name));
        symlink(&victim, data.join(name)).unwrap();
        let refused = refusal(&data);
        assert!(
            refused.contains(name) && refused.contains("symbolic link"),
            "{refused}"
        );
    }
    assert_eq!(std::fs::read_to_string(victim).unwrap(), "important\n");
}

#[test]
fn a_folder_of_another_user_is_refused() {
    let folder = folder();
    let data = if is_root() {
        let data = folder.path().join("planted");
        std::fs::create_dir(&data).unwrap();
        chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        data
    } else {
        PathBuf::from("/")
    };
    let refused = refusal(&data);
    assert!(
        refused.contains("belongs to another user (") && refused.contains("chown -R"),
        "{refused}"
    );
}

/// Without root nobody can make another user's files, so there is nothing to plant.
#[test]
fn what_another_user_has_planted_is_refused() {
    if !is_root() {
        return;
    }
    let folder = folder();
    // A password that a stranger knows, in a folder that was open for a while.
    let data = folder.path().join("open");
    drop(Folder::open(&data).unwrap());
    let planted = data.join("nats.password");
    std::fs::write(&planted, "known").unwrap();
    chown(&planted, Some(1), Some(1)).unwrap();
    let refused = refusal(&data);
    assert!(
        refused.contains("nats.password belongs to another user"),
        "{refused}"
    );

    // A link in the place of the folder.
    let (own, link) = (folder.path().join("own"), folder.path().join("link"));
    std::fs::create_dir(&own).unwrap();
    symlink(&own, &link).unwrap();
    lchown(&link, Some(NOBODY), Some(NOBODY)).unwrap();
    let refused = refusal(&link);
    assert!(
        refused.contains("is a symbolic link of another user"),
        "{refused}"
    );
    assert!(all(&own).is_empty());
    lchown(&link, Some(0), Some(0)).unwrap();
    drop(Folder::open(&link).unwrap());
}

#[tokio::test]
async fn only_a_database_that_tagtrail_began_is_begun_again() {
    let folder = folder();
    let settings = Settings {
        durable: false,
        shared_buffers: "16MB".to_owned(),
        ..Settings::new(folder.path().join("data"))
    };
    let held = Folder::open(&settings.data).unwrap();
    let precious = settings.data.join("postgres/base/precious");
    std::fs::create_dir_all(precious.parent().unwrap()).unwrap();
    std::fs::write(&precious, "rows").unwrap();
    let refused = format!("{:#}", Postgres::start(&held, &settings).await.unwrap_err());
    assert!(
        refused.contains("not a database that Tagtrail made"),
        "{refused}"
    );
    assert!(precious.exists());

    // A start that was killed while it made the database.
    std::fs::write(settings.data.join("postgres.begun"), "").unwrap();
    let postgres = Postgres::start(&held, &settings).await.unwrap();
    assert!(!precious.exists() && !settings.data.join("postgres.begun").exists());
    postgres.stop().await;
}
