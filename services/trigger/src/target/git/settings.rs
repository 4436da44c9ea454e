//! The settings below `target.git`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tagtrail_config::{Secret, Text, Trigger};

use super::super::contract::{OnForeignChange, settings};
use super::super::webhook::{Template, sample};
use super::edits::{Edit, Part, Place, steps};
use super::place::{Place as Branch, Url};

/// Most edits of one trigger.
const MOST: usize = 50;
/// Most bytes of a name in the settings.
const LONGEST: usize = 1024;

/// The settings as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    url: String,
    branch: String,
    #[serde(default)]
    path: String,
    #[serde(default = "markers")]
    edits: Vec<WrittenEdit>,
    #[serde(default)]
    markers: BTreeMap<String, String>,
    #[serde(default)]
    push: Push,
    message: Option<String>,
    author: Option<String>,
    auth: Option<WrittenAuth>,
    sign: Option<WrittenSign>,
    ca: Option<Secret>,
    #[serde(default)]
    on_foreign_change: OnForeignChange,
    #[serde(default = "two_minutes")]
    timeout_seconds: u64,
    cluster: Option<toml::Value>,
    namespace: Option<toml::Value>,
    objects: Option<toml::Value>,
    containers: Option<toml::Value>,
    wait_for: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "write \"markers\", \"kustomize\" or { yaml = \"values.yaml\", at = \"image.digest\", write = \"digest\" }"
)]
enum WrittenEdit {
    Word(Word),
    Yaml(WrittenPlace),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Markers,
    Kustomize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPlace {
    yaml: String,
    at: String,
    #[serde(default)]
    write: Part,
    image: Option<String>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "write { ssh = { key = { file = \"…\" }, known_hosts = { file = \"…\" } } } or { username = \"…\", password = { file = \"…\" } }"
)]
enum WrittenAuth {
    Ssh { ssh: Ssh },
    Password(Password),
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ssh {
    pub(super) key: Secret,
    pub(super) known_hosts: Secret,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Password {
    pub(super) username: Text,
    pub(super) password: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSign {
    ssh: Secret,
}

/// How the service proves its identity to the server.
#[derive(Clone)]
pub(super) enum Auth {
    None,
    Ssh(Ssh),
    Password(Password),
}

/// Where a commit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Push {
    /// To the branch itself.
    #[default]
    Direct,
    /// To a branch of the trigger, for a pull request.
    Branch,
}

/// The settings.
pub(super) struct Settings {
    pub(super) branch: Branch,
    /// The folder below which files may change; empty for all.
    pub(super) path: String,
    pub(super) edits: Vec<Edit>,
    /// The names of the images in markers, by their names in the trigger.
    pub(super) markers: BTreeMap<String, String>,
    pub(super) push: Push,
    pub(super) message: Option<Template>,
    pub(super) author: Author,
    pub(super) auth: Auth,
    /// The SSH key that signs commits.
    pub(super) sign: Option<Secret>,
    /// The certificate authority of the server, in place of those of the system.
    pub(super) ca: Option<Secret>,
    pub(super) on_foreign_change: OnForeignChange,
    /// Time limit of one exchange with the server.
    pub(super) timeout: Duration,
    /// The settings of the objects that show the arrival of the images in a cluster.
    pub(super) arrival: Option<toml::Value>,
}

/// The author of commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Author {
    pub(super) name: String,
    pub(super) email: String,
}

fn markers() -> Vec<WrittenEdit> {
    vec![WrittenEdit::Word(Word::Markers)]
}

fn two_minutes() -> u64 {
    120
}

impl Settings {
    /// Reads the settings of a trigger. Secrets are not read. An error begins with its key.
    pub(super) fn parse(value: &toml::Value, trigger: &Trigger) -> Result<Settings, String> {
        let written: Written = settings(value)?;
        if !(1..=600).contains(&written.timeout_seconds) {
            return Err("timeout_seconds must be 1 to 600".to_owned());
        }
        let folder = trigger.folder();
        let url = Url::parse(&written.url).map_err(|why| format!("url: {why}"))?;
        check_branch(&written.branch).map_err(|why| format!("branch: {why}"))?;
        let auth = match written.auth {
            None => Auth::None,
            Some(WrittenAuth::Ssh { ssh }) => Auth::Ssh(Ssh {
                key: ssh.key.in_folder(folder),
                known_hosts: ssh.known_hosts.in_folder(folder),
            }),
            Some(WrittenAuth::Password(password)) => Auth::Password(Password {
                username: password.username.in_folder(folder),
                password: password.password.in_folder(folder),
            }),
        };
        match (&auth, url.is_ssh()) {
            (Auth::Ssh(_), true) | (Auth::None | Auth::Password(_), false) => {}
            (_, true) => {
                return Err("auth: a url with ssh:// needs auth = { ssh = { key = { file = \"…\" }, known_hosts = { file = \"…\" } } }".to_owned());
            }
            (_, false) => {
                return Err("auth: ssh needs a url with ssh://; with https:// write auth = { username = \"…\", password = { file = \"…\" } }".to_owned());
            }
        }
        let images = trigger.all_images();
        let known = |key: &str, name: &String| match images.contains_key(name) {
            true => Ok(()),
            false => {
                let known: Vec<&str> = images.keys().map(String::as_str).collect();
                let known = known.join(", ");
                Err(format!(
                    "{key}: the trigger has no image {name}; known are {known}"
                ))
            }
        };
        let only = images.keys().next().filter(|_| images.len() == 1);
        let mut edits = Vec::new();
        for edit in written.edits {
            edits.push(match edit {
                WrittenEdit::Word(Word::Markers) => Edit::Markers,
                WrittenEdit::Word(Word::Kustomize) => Edit::Kustomize,
                WrittenEdit::Yaml(place) => {
                    let of = |why: String| format!("edits: {why}");
                    let image = place.image.or_else(|| only.cloned());
                    let image = image.ok_or_else(|| {
                        of(format!(
                            "the trigger has several images; write image = \"…\" beside yaml = {:?}",
                            place.yaml
                        ))
                    })?;
                    known("edits", &image)?;
                    let steps = steps(&place.at).map_err(of)?;
                    Edit::Yaml(Place {
                        image,
                        file: path(&place.yaml).map_err(of)?,
                        at: place.at,
                        steps,
                        write: place.write,
                    })
                }
            });
        }
        if edits.is_empty() || edits.len() > MOST {
            return Err(format!(
                "edits has {} entries; write 1 to {MOST}, such as edits = [\"markers\"]",
                edits.len()
            ));
        }
        let name = trigger.name.get_ref();
        let usual = images
            .keys()
            .map(|image| (image.clone(), format!("{name}:{image}")));
        let mut markers: BTreeMap<String, String> = usual.collect();
        for (image, marker) in written.markers {
            known("markers", &image)?;
            if !is_marker(&marker) {
                return Err(format!(
                    "markers.{image}: {marker:?} is no name of a marker; write two words with a colon, such as \"flux-system:{image}\""
                ));
            }
            markers.insert(image, marker);
        }
        let message = match written.message {
            None => None,
            Some(text) => {
                let tried = Template::parse(&text, false).and_then(|template| {
                    template.render(&sample(trigger)?)?;
                    Ok(template)
                });
                Some(tried.map_err(|why| format!("message: {why}"))?)
            }
        };
        let of_objects = [
            ("cluster", written.cluster),
            ("namespace", written.namespace),
            ("objects", written.objects),
            ("containers", written.containers),
            ("wait_for", written.wait_for),
        ];
        let of_objects = of_objects.into_iter();
        let of_objects = of_objects.filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let of_objects: toml::Table = of_objects.collect();
        let arrival = match of_objects.is_empty() {
            true => None,
            false => Some(toml::Value::Table(of_objects)),
        };
        let author = written.author.as_deref();
        let author = author.unwrap_or("Tagtrail <tagtrail@localhost>");
        Ok(Settings {
            branch: Branch {
                url,
                branch: written.branch,
            },
            path: path(&written.path).map_err(|why| format!("path: {why}"))?,
            edits,
            markers,
            push: written.push,
            message,
            author: Author::parse(author)?,
            auth,
            sign: written.sign.map(|sign| sign.ssh.in_folder(folder)),
            ca: written.ca.map(|ca| ca.in_folder(folder)),
            on_foreign_change: written.on_foreign_change,
            timeout: Duration::from_secs(written.timeout_seconds),
            arrival,
        })
    }

    /// Returns the places of all secrets.
    pub(super) fn places(&self) -> Vec<&Secret> {
        let mut places = match &self.auth {
            Auth::None => Vec::new(),
            Auth::Ssh(ssh) => vec![&ssh.key],
            Auth::Password(with) => {
                let username = with.username.secret().into_iter();
                username.chain([&with.password]).collect()
            }
        };
        places.extend(&self.sign);
        places
    }
}

impl Author {
    fn parse(text: &str) -> Result<Author, String> {
        let parts = text
            .strip_suffix('>')
            .and_then(|text| text.split_once(" <"));
        let plain = |part: &str| {
            let allowed = |letter: char| !letter.is_control() && !"<>".contains(letter);
            !part.trim().is_empty() && part.len() <= LONGEST && part.chars().all(allowed)
        };
        match parts {
            Some((name, email)) if plain(name) && plain(email) => Ok(Author {
                name: name.trim().to_owned(),
                email: email.trim().to_owned(),
            }),
            _ => Err(format!(
                "author: {text:?} is no author; write one such as \"Tagtrail <tagtrail@example.com>\""
            )),
        }
    }
}

/// Returns a path in the repository without slashes at its ends. Git has no other paths than these.
fn path(text: &str) -> Result<String, String> {
    let trimmed = text.trim_matches('/');
    let trimmed = trimmed.strip_prefix("./").unwrap_or(trimmed);
    if trimmed.is_empty() || trimmed == "." {
        return Ok(String::new());
    }
    let plain = |part: &str| !["", ".", ".."].contains(&part);
    match trimmed.split('/').all(plain) && is_plain(trimmed) {
        true => Ok(trimmed.to_owned()),
        false => Err(format!(
            "{text:?} is no path in the repository; write one such as \"clusters/prod\", without \"..\""
        )),
    }
}

fn is_plain(text: &str) -> bool {
    text.len() <= LONGEST
        && !text
            .chars()
            .any(|letter| letter.is_control() || letter == '\\')
}

/// Refuses a name that is none of a branch (`git check-ref-format --branch`).
fn check_branch(name: &str) -> Result<(), String> {
    let parts = name.split('/').all(|part| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with(".lock")
            && !part.ends_with('.')
    });
    let letters = name
        .chars()
        .all(|letter| !letter.is_control() && !" ~^:?*[\\".contains(letter));
    let plain =
        !name.contains("..") && !name.contains("@{") && name != "@" && !name.starts_with('-');
    if name.starts_with("refs/") {
        return Err(format!(
            "{name:?} is a full name; write the branch alone, such as \"main\""
        ));
    }
    match parts && letters && plain && name.len() <= 200 {
        true => Ok(()),
        false => Err(format!("{name:?} is no branch; write one such as \"main\"")),
    }
}

/// Returns whether this is the name of a marker: two words with a colon.
fn is_marker(name: &str) -> bool {
    let word = |word: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !word.is_empty() && word.bytes().all(allowed)
    };
    name.split_once(':')
        .is_some_and(|(space, name)| word(space) && word(name))
}
