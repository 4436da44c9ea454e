//! The names of registries and images: several names may mean one registry, and some registries
//! take two spellings of a tag for one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use tagtrail_policy::glob::{ImageGlob, within_part};
use tagtrail_policy::selection::{ImagePolicy, Refused};
use tagtrail_policy::watched::Watched;
use tagtrail_proto::{Image, Name, NameError, Registry, Repository, Tag};

use toml::Spanned;

use crate::document::Document;
use crate::{ConfigError, Source, SourceRegistry};

/// The one name of each registry and image. The default knows no alias.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// By each alias, the name of the registry.
    aliases: BTreeMap<String, Registry>,
    /// The registries that fold the case of tags.
    folding: BTreeSet<Registry>,
}

impl Names {
    /// Reads the names of registries. An alias that contradicts another name has no effect; the
    /// registry with the mistake is returned.
    pub(crate) fn of(
        document: &Document,
        registries: &[(Registry, Vec<Spanned<String>>)],
        sources: &[Source],
    ) -> (Names, Vec<(Registry, ConfigError)>) {
        let (mut names, mut wrong) = (Names::default(), Vec::new());
        for (name, aliases) in registries {
            for alias in aliases {
                if let Err(message) = names.add(registries, name, alias.get_ref()) {
                    let at = alias.span().start;
                    let error = document.error_at(at, "registry.aliases", message);
                    wrong.push((name.clone(), error));
                }
            }
        }
        for source in sources {
            if let (Some(SourceRegistry::Named(registry)), true) =
                (&source.registry, source.folds_tags())
            {
                let registry = names.registry(registry.clone());
                names.folding.insert(registry);
            }
        }
        (names, wrong)
    }

    /// Adds an alias of a registry, unless it means another one.
    fn add(
        &mut self,
        registries: &[(Registry, Vec<Spanned<String>>)],
        name: &Registry,
        alias: &str,
    ) -> Result<(), String> {
        let Some(text) = parse_alias(alias) else {
            return Err(format!(
                "{alias:?} is no alias; write a registry, such as \"127.0.0.1:5000\", or a name of a-z 0-9 -, such as \"local\""
            ));
        };
        if registries.iter().any(|(other, _)| other.as_ref() == text) {
            return Err(format!(
                "{text} is the name of a registry; remove the alias"
            ));
        }
        match self.aliases.get(&text) {
            Some(other) => Err(format!("{text} is an alias of {other} already; keep one")),
            None => {
                self.aliases.insert(text, name.clone());
                Ok(())
            }
        }
    }

    /// Returns the name of a registry that may be written under an alias.
    #[must_use]
    pub fn registry(&self, registry: Registry) -> Registry {
        let name = self.aliases.get(registry.as_ref()).cloned();
        name.unwrap_or(registry)
    }

    /// Returns the tag as its registry, written by its name, has it.
    #[must_use]
    pub fn tag(&self, registry: &Registry, tag: Tag) -> Tag {
        if self.folding.contains(registry) {
            tag.to_lowercase()
        } else {
            tag
        }
    }

    /// Reads an image whose registry may be written under an alias.
    ///
    /// # Errors
    /// For text that is no image.
    pub fn image(&self, text: &str) -> Result<Image, NameError> {
        let image: Image = self.without_alias(text).parse()?;
        Ok(Image {
            tag: self.tag(&image.registry, image.tag),
            ..image
        })
    }

    /// Compiles a policy whose registry may be written under an alias.
    ///
    /// # Errors
    /// For a setting that cannot be used.
    pub fn policy(&self, written: &ImagePolicy) -> Result<Watched, Refused> {
        let mut policy = ImagePolicy {
            repository: self.without_alias(&written.repository).into_owned(),
            ..written.clone()
        };
        let (registry, repository) = policy.place()?;
        policy.repository = format!("{registry}/{repository}");
        if self.folding.contains(&registry) {
            policy.tag = policy.tag.map(|tag| tag.to_ascii_lowercase());
        }
        Watched::compile(policy)
    }

    /// Reads a pattern over images whose registry may be written under an alias. An alias is tried
    /// before the rule that a pattern without a registry matches in any registry.
    ///
    /// # Errors
    /// For text that is no pattern, with the cure.
    pub fn pattern(&self, text: &str) -> Result<ImagePattern, String> {
        let mut globs: Vec<ImageGlob> = vec![self.without_alias(text).parse()?];
        if let Some((first, rest)) = text.split_once('/')
            && first.contains('*')
            && first != "**"
        {
            let first = first.to_ascii_lowercase();
            let matches = |alias: &str| within_part(first.as_bytes(), alias.as_bytes());
            let meant = self.aliases.iter().filter(|(alias, _)| matches(alias));
            // An alias of several labels may match twice; a registry need not be tried twice.
            let meant: BTreeSet<&Registry> = meant.map(|(_, registry)| registry).collect();
            for registry in meant {
                globs.push(format!("{registry}/{rest}").parse()?);
            }
        }
        let folded = globs.iter().map(ImageGlob::with_lowercase_tag).collect();
        Ok(ImagePattern {
            globs,
            folded,
            folding: self.folding.clone(),
        })
    }

    /// Returns the text with the registry's name in place of an alias.
    #[must_use]
    pub fn without_alias<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let name = text.split_once('/').and_then(|(first, rest)| {
            let name = self.aliases.get(&first.to_ascii_lowercase())?;
            Some(format!("{name}/{rest}"))
        });
        name.map_or(Cow::Borrowed(text), Cow::Owned)
    }
}

/// Returns the text of an alias as it is compared.
fn parse_alias(text: &str) -> Option<String> {
    if let Ok(registry) = text.parse::<Registry>() {
        return Some(registry.to_string());
    }
    text.parse::<Name>().ok().map(|name| name.to_string())
}

impl Source {
    /// The kinds of registries that fold the case of tags: `v1-RC` and `v1-rc` are one tag, and
    /// events, lists and answers have the lower case.
    pub const FOLDING: &[&str] = &["gitea", "forgejo"];

    /// Returns whether the registry of the source folds the case of tags.
    #[must_use]
    pub fn folds_tags(&self) -> bool {
        Source::FOLDING.contains(&self.kind.get_ref().as_str())
    }
}

/// A pattern over images, by the names of a file.
#[derive(Debug, Clone)]
pub struct ImagePattern {
    /// An image matches one of them.
    globs: Vec<ImageGlob>,
    /// The same for registries that fold the case of tags.
    folded: Vec<ImageGlob>,
    folding: BTreeSet<Registry>,
}

impl ImagePattern {
    /// Returns true if registry, path and tag of the image match.
    #[must_use]
    pub fn matches(&self, image: &Image) -> bool {
        let globs = if self.folding.contains(&image.registry) {
            &self.folded
        } else {
            &self.globs
        };
        globs.iter().any(|glob| glob.matches(image))
    }

    /// Returns true if registry and path match, and tags of the registry are compared with
    /// [`ImagePattern::tag`] of the same `folds`.
    #[must_use]
    pub fn matches_repository(
        &self,
        registry: &Registry,
        repository: &Repository,
        folds: bool,
    ) -> bool {
        let matches = |glob: &ImageGlob| glob.matches_repository(registry, repository);
        self.folding.contains(registry) == folds && self.globs.iter().any(matches)
    }

    /// Returns the pattern over the tag, with `*` for any text, in registries that fold the case of
    /// tags, or in the others. `None`: every tag matches.
    #[must_use]
    pub fn tag(&self, folds: bool) -> Option<&str> {
        let globs = if folds { &self.folded } else { &self.globs };
        // All have the tag of one text.
        globs.first().and_then(ImageGlob::tag)
    }
}

#[cfg(test)]
mod tests;
