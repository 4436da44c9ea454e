//! The target over SSH, with signed commits, on a real server.

use std::path::Path;
use std::process::{Command, Stdio};

use tagtrail_proto::RolloutState::{Failed, Succeeded};
use tagtrail_testkit::{SOON, eventually};

use super::repository::ServerProcess;
use super::{Place, WEB_YAML, with_digest};
use crate::world::*;

/// An SSH server on loopback that lets one key in.
struct Server {
    /// Ends before its folder.
    _process: ServerProcess,
    folder: tempfile::TempDir,
    port: u16,
}

fn key(path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .status();
    assert!(
        made.unwrap().success(),
        "openssh-client is missing; install it"
    );
}

impl Server {
    async fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["host", "client", "stranger", "signer"] {
            key(&path(name));
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n",
            path("host").display(),
            path("client.pub").display(),
        );
        std::fs::write(path("sshd_config"), settings).unwrap();
        // As root, sshd wants this folder.
        let _ = std::fs::create_dir_all("/run/sshd");
        let process = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(path("sshd_config"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("/usr/sbin/sshd: {error}; install openssh-server"));
        let host = std::fs::read_to_string(path("host.pub")).unwrap();
        std::fs::write(path("known_hosts"), format!("[127.0.0.1]:{port} {host}")).unwrap();
        eventually("the SSH server", SOON, async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .ok()
        })
        .await;
        Server {
            folder,
            port,
            _process: ServerProcess(process),
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The settings of a target on a repository of this machine.
    fn settings(&self, repository: &Path, key: &str, known_hosts: &str, more: &str) -> String {
        let user =
            String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        format!(
            "url = \"ssh://{}@127.0.0.1:{}{}\"\nbranch = \"main\"\npath = \"prod\"\n\
             auth = {{ ssh = {{ key = {{ file = \"{}\" }}, known_hosts = {{ file = \"{}\" }} }} }}\n{more}",
            user.trim(),
            self.port,
            repository.display(),
            self.file(key),
            self.file(known_hosts),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_commit_goes_over_ssh() {
    let (mut place, server) = (Place::new("").await, Server::start().await);
    let sign = format!(
        "sign = {{ ssh = {{ file = \"{}\" }} }}",
        server.file("signer")
    );
    let settings = server.settings(&place.repository.path(), "client", "known_hosts", &sign);
    place.world.configure(&super::trigger("shop", &settings));
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    assert_eq!(
        place.repository.read("main", "prod/web.yaml"),
        with_digest(WEB_YAML, 1)
    );
    let signer = std::fs::read_to_string(server.file("signer.pub")).unwrap();
    let signers = place.world.folder.path().join("signers");
    std::fs::write(&signers, format!("tagtrail@localhost {signer}")).unwrap();
    let allowed = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    place
        .repository
        .git(&["-c", &allowed, "verify-commit", "main"]);
    // The keys lie nowhere after the turn.
    let clones = place.world.folder.path().join("clones");
    let key = std::fs::read_to_string(server.file("client")).unwrap();
    // A look at the branch may have them for a moment.
    eventually("no key", SOON, async || {
        let found = Command::new("grep")
            .args(["-rlF", key.lines().nth(1).unwrap()])
            .arg(&clones)
            .output()
            .unwrap();
        found.stdout.is_empty().then_some(())
    })
    .await;
    service.stop().await;
}

/// Returns the first block of a language on a page.
fn block<'a>(page: &'a str, language: &str) -> &'a str {
    let (_, block) = page.split_once(&format!("```{language}\n")).unwrap();
    block.split("```").next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_example_works() {
    let page = include_str!("../../../../../docs/git.md");
    let (trigger, file) = (block(page, "toml"), block(page, "yaml"));
    let (mut place, server) = (Place::new("").await, Server::start().await);
    place
        .repository
        .write(&[("clusters/prod/web.yaml", file)], "example");
    // The documented one, but for the places of this machine.
    let settings = server.settings(&place.repository.path(), "client", "known_hosts", "");
    let url = settings.split('"').nth(1).unwrap();
    let trigger = trigger
        .replace("ssh://git@git.example.com/ops/deploy.git", url)
        .replace("deploy.key", &server.file("client"))
        .replace(
            "\"known_hosts\"",
            &format!("{:?}", server.file("known_hosts")),
        );
    place.world.configure(&trigger);
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Succeeded).await;
    let before = "registry.example.com/shop/web:1.4 ";
    let after = format!("registry.example.com/shop/web@{} ", digest(1));
    assert!(file.contains(before));
    assert_eq!(
        place.repository.read("main", "clusters/prod/web.yaml"),
        file.replace(before, &after)
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_or_an_unknown_host_is_named_with_its_cure() {
    let (mut place, server) = (Place::new("").await, Server::start().await);
    let path = place.repository.path();
    let stranger = server.settings(&path, "stranger", "known_hosts", "");
    place.world.configure(&super::trigger("shop", &stranger));
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    let errors = eventually("a failed attempt", SOON, async || {
        let errors = place.world.errors().await;
        (!errors.is_empty()).then_some(errors)
    })
    .await;
    assert!(
        errors[0].contains("Permission denied (publickey)"),
        "{errors:?}"
    );
    assert!(
        errors[0].contains("; check auth, and the rights of Tagtrail's account"),
        "{errors:?}"
    );
    service.stop().await;

    let mut place = Place::new("").await;
    let other = server.file("stranger.pub");
    let other = std::fs::read_to_string(other).unwrap();
    std::fs::write(
        server.file("others"),
        format!("[127.0.0.1]:{} {other}", server.port),
    )
    .unwrap();
    let unknown = server.settings(&place.repository.path(), "client", "others", "");
    place.world.configure(&super::trigger("shop", &unknown));
    place.world.push(WEB, 1).await;
    let service = place.world.start().await;
    place.wait(1, Failed).await;
    let error = place.world.error().await.unwrap();
    assert!(
        error.contains("Host key verification failed") && error.contains("known_hosts"),
        "{error}"
    );
    assert_eq!(place.repository.read("main", "prod/web.yaml"), WEB_YAML);
    service.stop().await;
}
