//! `tagtrail init`: writes a `tagtrail.toml` with comments, and a secret for each source.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use tagtrail_config::{File, closest};
use tagtrail_gateway::KindSetup;
use tagtrail_proto::Registry;

use super::{config_check, write};

/// Arguments of `tagtrail init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// The kind of each registry, and the registry as images name it, such as
    /// harbor=harbor.example.com. The kind `generic` is any script that sends a POST.
    #[arg(value_name = "KIND=REGISTRY", default_value = "distribution=127.0.0.1:5000", value_parser = wanted)]
    sources: Vec<Wanted>,
    /// Folder for tagtrail.toml and for the folder `secrets`. Made if missing.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// A source to write.
#[derive(Debug, Clone)]
struct Wanted {
    kind: &'static str,
    registry: Registry,
}

/// Random bytes of a secret.
const SECRET: usize = 24;

fn wanted(text: &str) -> Result<Wanted, String> {
    let (kind, registry) = text.split_once('=').unwrap_or((text, ""));
    let kinds = tagtrail_gateway::kinds("", "");
    let known = |setup: &KindSetup| setup.names.iter().copied().find(|name| *name == kind);
    let found = kinds.iter().find_map(|setup| Some((setup, known(setup)?)));
    let Some((setup, kind)) = found else {
        let names: Vec<&str> = kinds.iter().flat_map(|setup| setup.names.clone()).collect();
        let meant = closest(kind, &names);
        let meant = meant.map_or_else(String::new, |name| format!("; did you mean {name}?"));
        return Err(format!(
            "{kind:?} is no kind of source; the kinds are {}{meant}",
            names.join(", ")
        ));
    };
    let registry = match (registry, setup.default_registry) {
        ("", Some(fixed)) => fixed,
        ("", None) => {
            return Err(format!(
                "name the registry, as images name it: {kind}=registry.example.com"
            ));
        }
        (registry, _) => registry,
    };
    let registry = registry.parse().map_err(|error| format!("{error}"))?;
    Ok(Wanted { kind, registry })
}

impl Init {
    /// Writes the files. A file that exists is never replaced.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let path = self.dir.join("tagtrail.toml");
        if path.exists() {
            bail!(
                "{} exists; nothing was written. Choose another folder with --dir",
                path.display()
            );
        }
        let secrets = self.dir.join("secrets");
        private_folder(&secrets)
            .with_context(|| format!("can't make the folder {}", secrets.display()))?;
        let mut text = String::new();
        // The secrets must not get into a repository by `git add .`.
        create(&secrets.join(".gitignore"), "*\n", &mut text)?;
        let sources = self.named();
        for (name, _) in &sources {
            let secret: String = rand::random::<[u8; SECRET]>()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            create(&secrets.join(name), &format!("{secret}\n"), &mut text)?;
        }
        create(&path, &toml(&sources), &mut text)?;
        let checked = config_check::check(&File::load(&path)?);
        if !checked.mistakes.is_empty() {
            bail!("{}", config_check::mistakes_text(&checked.mistakes));
        }
        let shown = path.display();
        text += &format!(
            "\nNext:\n  tagtrail config check {shown}\n  tagtrail up --config {shown}\n  tagtrail doctor --setup --config {shown}   # the settings for each registry\n"
        );
        Ok(write(text.as_bytes()))
    }

    /// Returns the sources, each with a name of its own.
    fn named(&self) -> Vec<(String, &Wanted)> {
        let mut taken = BTreeSet::new();
        let name = |wanted: &Wanted, taken: &BTreeSet<String>| {
            let numbered = (2..).map(|number| format!("{}-{number}", wanted.kind));
            std::iter::once(wanted.kind.to_owned())
                .chain(numbered)
                .find(|name| !taken.contains(name))
        };
        let mut named = Vec::new();
        for wanted in &self.sources {
            let name = name(wanted, &taken).unwrap_or_default();
            taken.insert(name.clone());
            named.push((name, wanted));
        }
        named
    }
}

fn private_folder(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a new file that only its owner can read, and adds a line about it.
fn create(path: &Path, content: &str, text: &mut String) -> anyhow::Result<()> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let did = match made {
        Ok(mut file) => {
            file.write_all(content.as_bytes())
                .with_context(|| format!("can't write {}", path.display()))?;
            "wrote"
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => "kept ",
        Err(error) => return Err(error).with_context(|| format!("can't make {}", path.display())),
    };
    *text += &format!("{did} {}\n", path.display());
    Ok(())
}

/// The beginning of the file.
const HEAD: &str = "\
# Tagtrail. `tagtrail config check` reads this file as the services do; docs/configuration.md has every key.
# Paths are relative to the folder of this file.

# Senders of events. The address of a source is POST /hooks/<name>; `tagtrail doctor --setup` prints the
# settings to make in the registry.
";

/// The end of the file: entries to be filled in.
const TAIL: &str = r#"
# A trigger starts a rollout, pinned by digest, when one of its images changes.
# [[trigger]]
# name = "shop"
# images.web = "REGISTRY/shop/web:latest"
# images.worker = "REGISTRY/shop/worker:latest"
# settle = "30s"                                # the images must not change for this long
# target.command = { run = ["./deploy.sh"] }    # TAGTRAIL_IMAGE_WEB=REGISTRY/shop/web@sha256:… in its environment
# target.webhook = { url = "https://deploy.example.com/hooks/shop", secret = { file = "secrets/shop" } }
# target.kubernetes = { cluster = "prod", namespace = "shop", objects = ["deployment/web", "deployment/worker"] }

# A cluster for targets `kubernetes`. docs/kubernetes.md makes the account and the kubeconfig.
# [[cluster]]
# name = "prod"
# kubeconfig = { file = "prod.kubeconfig" }

# Tokens for the API, which it needs if other machines can reach it.
# [[token]]
# name = "dashboard"
# secret = { file = "secrets/dashboard" }
# role = "read"                                 # "operate" may also pause and resume triggers
"#;

fn toml(sources: &[(String, &Wanted)]) -> String {
    let mut text = HEAD.to_owned();
    for (name, Wanted { kind, registry }) in sources {
        text += &format!(
            "[[source]]\nname = \"{name}\"\nkind = \"{kind}\"\nregistry = \"{registry}\"\nsecret = {{ file = \"secrets/{name}\" }}\n# repositories = [\"shop/**\"]    # the repositories that it may report; the default is all\n\n"
        );
    }
    text += "# Registries to ask: for digests that events lack, for manifests, and for changes that no event reported.\n";
    let mut asked = BTreeSet::new();
    for (_, Wanted { registry, .. }) in sources {
        if asked.insert(registry) {
            text += &format!(
                "[[registry]]\nname = \"{registry}\"\nurl = \"{}\"\n# username = \"tagtrail\"          # an account that may read, if the registry asks for one\n# password = {{ file = \"secrets/password\" }}\n\n",
                url(registry)
            );
        }
    }
    let first = sources
        .first()
        .map(|(_, wanted)| wanted.registry.to_string());
    text.trim_end().to_owned() + "\n" + &TAIL.replace("REGISTRY", &first.unwrap_or_default())
}

/// The usual address of a registry.
fn url(registry: &Registry) -> String {
    let name = registry.as_ref();
    let host = name.split(':').next().unwrap_or(name);
    let local = host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    match name {
        "docker.io" => "https://registry-1.docker.io".to_owned(),
        _ if local => format!("http://{name}"),
        _ => format!("https://{name}"),
    }
}
