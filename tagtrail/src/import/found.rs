//! The result of an import: triggers, and the fate of each part of the objects.

use std::collections::{BTreeMap, BTreeSet};

use tagtrail_policy::selection::{ImagePolicy, Pattern, Policy, TagGlob};
use tagtrail_proto::{Image, Name, clean_text};
use toml::Value;

use super::objects::Object;

/// The fate of a part of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The same tags are selected.
    Exact,
    /// Another answer is possible; the table says when.
    Close,
    /// Not carried over.
    LeftOut,
}

impl Fate {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Fate::Exact => "exact",
            Fate::Close => "close",
            Fate::LeftOut => "left out",
        }
    }
}

/// A part of an object.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) object: String,
    pub(super) part: String,
    pub(super) fate: Fate,
    /// The settings that the part became, or the reason why it did not become any.
    pub(super) becomes: String,
}

/// An image of a trigger.
#[derive(Debug, Clone)]
pub(super) enum Watched {
    /// An exact tag.
    Tag(String),
    /// A policy: its settings in the order in which they are written.
    Policy(Vec<(&'static str, Value)>),
}

/// A trigger to write.
#[derive(Debug, Clone)]
pub(super) struct Trigger {
    /// The name as the other system has it.
    pub(super) name: String,
    /// The object from which the trigger was made.
    pub(super) object: String,
    pub(super) images: BTreeMap<String, Watched>,
    /// Lines of comments: settings for a person to write.
    pub(super) notes: Vec<String>,
    /// The tag that the other system has selected, by image.
    pub(super) selected: BTreeMap<String, String>,
}

impl Trigger {
    pub(super) fn new(name: &str, object: &Object) -> Trigger {
        Trigger {
            name: name.to_owned(),
            object: object.label(),
            images: BTreeMap::new(),
            notes: Vec::new(),
            selected: BTreeMap::new(),
        }
    }

    /// Adds an image. Names of images have `a-z 0-9 - _`; a name that is taken gets a number.
    /// Returns the name.
    pub(super) fn add(&mut self, name: &str, image: Watched) -> String {
        let wanted = spelled(name, "image", "-_");
        let name = free(&wanted, |name| self.images.contains_key(name));
        self.images.insert(name.clone(), image);
        name
    }
}

/// The result of an import.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) triggers: Vec<Trigger>,
    pub(super) parts: Vec<Part>,
    /// By registry, the names of the secrets with its password.
    pub(super) secrets: BTreeMap<String, BTreeSet<String>>,
}

impl Found {
    pub(super) fn part(&mut self, object: &Object, part: &str, fate: Fate, becomes: &str) {
        self.parts.push(Part {
            object: object.label(),
            part: clean_text(part, 80),
            fate,
            becomes: becomes.to_owned(),
        });
    }

    pub(super) fn exact(&mut self, object: &Object, part: &str, becomes: &str) {
        self.part(object, part, Fate::Exact, becomes);
    }

    pub(super) fn close(&mut self, object: &Object, part: &str, becomes: &str) {
        self.part(object, part, Fate::Close, becomes);
    }

    pub(super) fn left_out(&mut self, object: &Object, part: &str, reason: &str) {
        self.part(object, part, Fate::LeftOut, reason);
    }

    /// Notes the secret of a registry: its name is shown, and its content never read.
    pub(super) fn secret(&mut self, object: &Object, part: &str, image: &str, secret: &str) {
        let secret = clean_text(secret, 200);
        let registry = image.split('/').next().unwrap_or_default().to_owned();
        let reason = format!("write the password of {secret} into a [[registry]] {registry}");
        self.left_out(object, part, &reason);
        self.secrets.entry(registry).or_default().insert(secret);
    }

    /// Checks all images as the services do, and gives each trigger a name of its own. An image
    /// that is refused is left out, with the cause.
    pub(super) fn finish(&mut self) {
        let mut taken = BTreeSet::new();
        for trigger in &mut self.triggers {
            let object = trigger.object.clone();
            trigger.images.retain(|name, image| {
                let Err(cause) = alone(image).and_then(|()| check(image)) else {
                    return true;
                };
                self.parts.push(Part {
                    object: object.clone(),
                    part: name.clone(),
                    fate: Fate::LeftOut,
                    becomes: cause,
                });
                false
            });
            let name = spelled(&trigger.name, "trigger", "-");
            trigger.name = free(&name, |name| taken.contains(name));
            taken.insert(trigger.name.clone());
        }
        self.triggers.retain(|trigger| !trigger.images.is_empty());
    }
}

/// Takes the filters over names from a policy of one tag, which Tagtrail does not take beside
/// `tag`: either the tag passes them, or the other system selects nothing.
fn alone(image: &mut Watched) -> Result<(), String> {
    let Watched::Policy(settings) = image else {
        return Ok(());
    };
    let Some(tag) = settings.iter().find_map(|(key, value)| match *key {
        "tag" => value.as_str().map(str::to_owned),
        _ => None,
    }) else {
        return Ok(());
    };
    let matches = |pattern: &Value| {
        let pattern = Pattern::parse(pattern.as_str().unwrap_or_default())?;
        Ok::<bool, String>(pattern.is_match(&tag))
    };
    let mut passes = true;
    for (key, value) in settings.iter() {
        let list = value.as_array().map_or(&[][..], Vec::as_slice);
        match *key {
            "match" => passes &= matches(value)?,
            "ignore_match" => {
                for pattern in list {
                    passes &= !matches(pattern)?;
                }
            }
            "ignore" => {
                for glob in list {
                    let glob = TagGlob::parse(glob.as_str().unwrap_or_default())?;
                    passes &= !glob.matches(&tag);
                }
            }
            _ => {}
        }
    }
    if !passes {
        return Err(format!(
            "the filters leave the tag {tag} out, so nothing is selected"
        ));
    }
    settings.retain(|(key, _)| !["match", "ignore_match", "ignore"].contains(key));
    Ok(())
}

fn check(image: &Watched) -> Result<(), String> {
    match image {
        Watched::Tag(text) => {
            let image = text.parse::<Image>();
            image.map(drop).map_err(|error| error.to_string())
        }
        Watched::Policy(settings) => compile(settings).map(drop),
    }
}

/// Compiles a policy as the reader of `tagtrail.toml` does.
pub(super) fn compile(settings: &[(&'static str, Value)]) -> Result<Policy, String> {
    let table: toml::Table = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    let policy: ImagePolicy = table.try_into().map_err(|error| error.to_string())?;
    policy.place().map_err(|refused| refused.to_string())?;
    policy.compile().map_err(|refused| refused.to_string())
}

/// Spells a name in lower case, with `-` in place of other characters, at most 63 long.
fn spelled(name: &str, otherwise: &str, also: &str) -> String {
    let letter = |letter: char| match letter.to_ascii_lowercase() {
        letter if letter.is_ascii_lowercase() || letter.is_ascii_digit() => letter,
        letter if also.contains(letter) => letter,
        _ => '-',
    };
    let spelled: String = name.chars().map(letter).collect();
    let spelled: String = spelled
        .trim_start_matches(['-', '_'])
        .chars()
        .take(63)
        .collect();
    match spelled.trim_end_matches('-') {
        "" => otherwise.to_owned(),
        spelled => spelled.to_owned(),
    }
}

/// Adds a number to a name that is taken.
fn free(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut free = name.to_owned();
    for number in 2_u32.. {
        if !taken(&free) {
            break;
        }
        let number = number.to_string();
        let room = 62 - number.len();
        free = format!("{}-{number}", &name[..name.len().min(room)]);
    }
    debug_assert!(free.parse::<Name>().is_ok() || free.contains('_'), "{free}");
    free
}

/// A text as a value of TOML.
pub(super) fn text(text: impl Into<String>) -> Value {
    Value::String(text.into())
}

/// A list of texts as a value of TOML.
pub(super) fn texts(texts: Vec<String>) -> Value {
    Value::Array(texts.into_iter().map(Value::String).collect())
}

/// A table of texts as a value of TOML.
pub(super) fn table(entries: Vec<(&str, Value)>) -> Value {
    Value::Table(
        entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    )
}

/// Splits an image reference into repository, tag and digest. The repository has its registry: that
/// of Docker Hub goes without saying in Kubernetes.
pub(super) fn reference(image: &str) -> (String, Option<String>) {
    let name = image.split('@').next().unwrap_or(image);
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let (path, tag) = match name[start..].split_once(':') {
        Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag.to_owned())),
        None => (name, None),
    };
    (repository(path), tag)
}

/// Returns a repository with its registry.
pub(super) fn repository(path: &str) -> String {
    let path = ["https://", "http://", "oci://"]
        .iter()
        .find_map(|scheme| path.strip_prefix(scheme))
        .unwrap_or(path)
        .trim_end_matches('/');
    let Some((first, rest)) = path.split_once('/') else {
        return format!("docker.io/library/{path}");
    };
    match first {
        "docker.io" | "index.docker.io" if !rest.contains('/') => {
            format!("docker.io/library/{rest}")
        }
        "index.docker.io" => format!("docker.io/{rest}"),
        "localhost" => path.to_owned(),
        first if first.contains(['.', ':']) => path.to_owned(),
        _ => format!("docker.io/{path}"),
    }
}

/// Rewrites `\Q…\E`, a literal text in Go alone, so that other tools read the pattern as well.
pub(super) fn pattern(go: &str) -> String {
    let mut rewritten = String::new();
    let mut rest = go;
    while let Some((before, quoted)) = rest.split_once(r"\Q") {
        // `\\Q` is a backslash and a Q.
        let backslashes = before.chars().rev().take_while(|one| *one == '\\').count();
        rewritten += before;
        if backslashes % 2 == 1 {
            rewritten += r"\Q";
            rest = quoted;
            continue;
        }
        // Without \E, the literal text goes on to the end.
        let (literal, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
        for letter in literal.chars() {
            if r"\.+*?()|[]{}^$".contains(letter) {
                rewritten.push('\\');
            }
            rewritten.push(letter);
        }
        rest = after;
    }
    rewritten + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_the_registry_that_kubernetes_leaves_out() {
        for (image, repository, tag) in [
            ("nginx", "docker.io/library/nginx", None),
            ("nginx:1.27", "docker.io/library/nginx", Some("1.27")),
            ("acme/web:v1", "docker.io/acme/web", Some("v1")),
            ("docker.io/nginx", "docker.io/library/nginx", None),
            ("index.docker.io/acme/web", "docker.io/acme/web", None),
            ("ghcr.io/acme/web:a", "ghcr.io/acme/web", Some("a")),
            ("localhost:5000/web:a", "localhost:5000/web", Some("a")),
            ("ghcr.io/a/b:c@sha256:00", "ghcr.io/a/b", Some("c")),
            ("https://ghcr.io/a/b", "ghcr.io/a/b", None),
        ] {
            let expected = (repository.to_owned(), tag.map(str::to_owned));
            assert_eq!(reference(image), expected, "{image}");
        }
    }

    #[test]
    fn one_tag_needs_no_filter_and_is_left_out_if_it_does_not_pass() {
        for (filter, passes) in [
            (("match", text("^v")), true),
            (("match", text("^x")), false),
            (("ignore", texts(vec!["v?".to_owned()])), false),
            (("ignore", texts(vec!["x".to_owned()])), true),
            (("ignore_match", texts(vec!["1".to_owned()])), false),
        ] {
            let settings = vec![("tag", text("v1")), filter];
            let mut image = Watched::Policy(settings.clone());
            assert_eq!(alone(&mut image).is_ok(), passes, "{settings:?}");
            if let (Watched::Policy(left), true) = (image, passes) {
                assert_eq!(left.len(), 1, "{left:?}");
            }
        }
    }

    #[test]
    fn literal_texts_of_go_are_escaped() {
        for (go, rewritten) in [
            (r"^\Qa.b\E-(\d+)$", r"^a\.b-(\d+)$"),
            (r"\Q[x", r"\[x"),
            (r"\\Qa", r"\\Qa"),
            (r"\\\Qa.\E.", r"\\a\.."),
            ("a.b", "a.b"),
        ] {
            assert_eq!(pattern(go), rewritten, "{go}");
        }
    }

    #[test]
    fn names_are_spelled_as_tagtrail_takes_them() {
        let long = "x".repeat(80);
        for (name, expected) in [
            ("Team_A.Web", "team-a-web"),
            ("--", "trigger"),
            ("web", "web"),
            (long.as_str(), &long[..63]),
        ] {
            let name = spelled(name, "trigger", "-");
            assert_eq!(name, expected);
            assert!(name.parse::<Name>().is_ok());
        }
        assert_eq!(
            free("web", |name| name == "web" || name == "web-2"),
            "web-3"
        );
        let other = free(&long[..63], |name| name == &long[..63]);
        assert_eq!((other.len(), &other[61..]), (63, "-2"));
    }
}
