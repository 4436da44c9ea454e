//! Compiles the settings of a policy. Each refusal names the setting.

use std::collections::BTreeMap;
use std::time::Duration;

use tagtrail_proto::{Image, Registry, Repository, Tag};

use super::calver::Calver;
use super::canonical::canonical;
use super::order::{Group, GroupKind, Order, Relative, SemverOrder};
use super::pattern::{Pattern, TagGlob, Template};
use super::platform::{ManifestRules, PlatformRule};
use super::range::{Prereleases, Range};
use super::rule::Rule;
use super::select::Policy;
use super::semver::{Parse, Version};
use super::spec::{
    Alphabetical, ImagePolicy, Newest, Numeric, OneOrMany, Platforms, SemverRule, Suffix, Within,
};

/// The wait for a manifest, unless `metadata_wait` is set.
const METADATA_WAIT: Duration = Duration::from_secs(5 * 60);
/// Most entries of a list, and of `order`, whose keys are as long as all its groups.
const MOST_ENTRIES: usize = 64;
const MOST_GROUPS: usize = 8;

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {cause}")]
pub struct Refused {
    /// The setting, such as `semver.range`.
    pub field: &'static str,
    /// The cause, with the cure.
    pub cause: String,
}

impl Refused {
    pub(super) fn new(field: &'static str, cause: impl Into<String>) -> Refused {
        Refused {
            field,
            cause: cause.into(),
        }
    }
}

/// Returns a function that names the setting of a cause.
fn of<C: Into<String>>(field: &'static str) -> impl Fn(C) -> Refused {
    move |cause| Refused::new(field, cause)
}

impl ImagePolicy {
    /// Compiles the policy.
    ///
    /// # Errors
    /// For a setting that cannot be used.
    pub fn compile(&self) -> Result<Policy, Refused> {
        self.check_keys()?;
        let pattern = self.r#match.as_deref().map(Pattern::parse);
        let pattern = pattern.transpose().map_err(of("match"))?;
        let template = self.template(pattern.as_ref())?;
        let rule = Rule {
            order: self.compile_order(pattern.as_ref())?,
            glob: self
                .glob
                .as_deref()
                .map(TagGlob::parse)
                .transpose()
                .map_err(of("glob"))?,
            ignore: list("ignore", &self.ignore, TagGlob::parse)?,
            ignore_match: list("ignore_match", &self.ignore_match, |text| {
                Pattern::parse(text).map(|pattern| (text.to_owned(), pattern))
            })?,
            pattern,
            template,
            manifest: self.manifest_rules()?,
            canonical: canonical(self)?,
        };
        Ok(Policy {
            rule,
            min_age: self.min_age.unwrap_or_default(),
            metadata_wait: self.metadata_wait.unwrap_or(METADATA_WAIT),
            on_removed: self.on_removed,
            on_moved: self.on_moved,
        })
    }

    /// Returns the registry and the repository.
    ///
    /// # Errors
    /// For text that is no repository, or names a tag or a digest.
    pub fn place(&self) -> Result<(Registry, Repository), Refused> {
        let refused = || {
            let cause = format!(
                "{:?} is no repository; write registry and path, such as \"registry.example.com/shop/api\"",
                self.repository
            );
            Refused::new("repository", cause)
        };
        // With a tag of its own, a repository would be no image.
        let image: Image = format!("{}:latest", self.repository)
            .parse()
            .map_err(|_| refused())?;
        Ok((image.registry, image.repository))
    }

    /// Refuses settings that exclude each other.
    fn check_keys(&self) -> Result<(), Refused> {
        let orders = [
            ("tag", self.tag.is_some()),
            ("semver", self.semver.is_some()),
            ("calver", self.calver.is_some()),
            ("numeric", self.numeric.is_some()),
            ("alphabetical", self.alphabetical.is_some()),
            ("order", self.order.is_some()),
            ("newest", self.newest.is_some()),
        ];
        let mut used = orders.iter().filter(|(_, set)| *set).map(|(name, _)| *name);
        let Some(order) = used.next() else {
            let cause = "nothing orders the tags; write one of tag, semver, calver, numeric, alphabetical, order and newest";
            return Err(Refused::new("repository", cause));
        };
        if let Some(second) = used.next() {
            let cause = format!("`{order}` orders the tags already; keep one of the two");
            return Err(Refused::new(second, cause));
        }
        let filters = [
            ("match", self.r#match.is_some()),
            ("extract", self.extract.is_some()),
            ("glob", self.glob.is_some()),
            ("ignore", !self.ignore.is_empty()),
            ("ignore_match", !self.ignore_match.is_empty()),
        ];
        if let (Some(_), Some((field, _))) = (&self.tag, filters.iter().find(|(_, set)| *set)) {
            let cause = "`tag` names the only candidate; leave one of the two out";
            return Err(Refused::new(field, cause));
        }
        if self.extract.is_some() && self.r#match.is_none() {
            return Err(Refused::new(
                "extract",
                "it needs groups of `match`; add `match`",
            ));
        }
        if self.extract.is_some() && (self.order.is_some() || self.newest.is_some()) {
            let cause = format!("it has no effect with `{order}`; leave it out");
            return Err(Refused::new("extract", cause));
        }
        Ok(())
    }

    /// Returns the template of `extract`. As in Flux, an empty one is the whole tag.
    fn template(&self, pattern: Option<&Pattern>) -> Result<Option<Template>, Refused> {
        let extract = self.extract.as_deref().filter(|text| !text.is_empty());
        let template = extract
            .zip(pattern)
            .map(|(text, pattern)| Template::parse(text, pattern));
        template.transpose().map_err(of("extract"))
    }

    /// Returns the order. `check_keys` has found exactly one.
    fn compile_order(&self, pattern: Option<&Pattern>) -> Result<Order, Refused> {
        if let Some(tag) = &self.tag {
            let tag: Tag = tag
                .parse()
                .map_err(|error| Refused::new("tag", format!("{error}")))?;
            return Ok(Order::Exact(tag));
        }
        if let Some(semver) = &self.semver {
            return semver.compile().map(Order::Semver);
        }
        if let Some(form) = &self.calver {
            return Calver::parse(form).map(Order::Calver).map_err(of("calver"));
        }
        if let Some(groups) = &self.order {
            return groups_of(groups, pattern).map(Order::Groups);
        }
        if let Some(numeric) = self.numeric {
            let lowest = numeric == Numeric::Lowest;
            return Ok(Order::Numeric { lowest });
        }
        if let Some(alphabetical) = self.alphabetical {
            let first = alphabetical == Alphabetical::First;
            return Ok(Order::Alphabetical { first });
        }
        Ok(match self.newest {
            Some(Newest::Created) => Order::Created,
            Some(Newest::Pushed) | None => Order::Pushed,
        })
    }

    fn manifest_rules(&self) -> Result<ManifestRules, Refused> {
        let (platforms, any_platform) = match &self.platforms {
            None => (&[][..], false),
            Some(Platforms::All(platforms)) => (&platforms[..], false),
            Some(Platforms::Any(platforms)) => (&platforms.any[..], true),
        };
        if any_platform && platforms.is_empty() {
            return Err(Refused::new(
                "platforms",
                "no image has one of none; name a platform",
            ));
        }
        Ok(ManifestRules {
            platforms: list("platforms", platforms, PlatformRule::parse)?,
            any_platform,
            labels: texts("labels", &self.labels)?,
            annotations: texts("annotations", &self.annotations)?,
        })
    }
}

impl SemverRule {
    fn compile(&self) -> Result<SemverOrder, Refused> {
        let relative = self.relative()?;
        if self.range.is_none() && relative.is_none() {
            let cause = "it is missing; write a range such as \"^1.4\", or `within` and `from`";
            return Err(Refused::new("semver.range", cause));
        }
        let text = self.range.as_deref().unwrap_or("*");
        // The suffix decides about prereleases, and so does `all`.
        let of_reference =
            |relative: &Relative| relative.same_suffix || relative.within == Within::All;
        let all = self.range.is_none() && relative.as_ref().is_some_and(of_reference);
        let by_default = if all {
            Prereleases::All
        } else {
            Prereleases::Range
        };
        Ok(SemverOrder {
            parse: self.parse,
            range: Range::parse(text).map_err(of("semver.range"))?,
            prereleases: self.prereleases.unwrap_or(by_default),
            relative,
        })
    }

    fn relative(&self) -> Result<Option<Relative>, Refused> {
        if self.within.is_none() && self.suffix.is_none() {
            return match self.from {
                Some(_) => {
                    let cause = "it has no effect without `within` and `suffix`; leave it out";
                    Err(Refused::new("semver.from", cause))
                }
                None => Ok(None),
            };
        }
        let Some(from) = &self.from else {
            let cause = "it is missing; name the tag that runs now, such as \"1.2.3\"";
            return Err(Refused::new("semver.from", cause));
        };
        let same_suffix = self.suffix == Some(Suffix::Same);
        if same_suffix && self.within == Some(Within::All) {
            let cause = "`within = \"all\"` takes every suffix; leave one of the two out";
            return Err(Refused::new("semver.suffix", cause));
        }
        let version = self.parse.version_of_tag(from).map(Version::into_owned);
        let from = version.ok_or_else(|| {
            let spelling = if self.parse == Parse::Loose {
                ""
            } else {
                " by `parse`"
            };
            Refused::new("semver.from", format!("{from:?} is no version{spelling}"))
        })?;
        Ok(Some(Relative {
            within: self.within.unwrap_or(Within::Major),
            same_suffix,
            from,
            selected: None,
        }))
    }
}

/// Compiles `order`.
fn groups_of(groups: &[String], pattern: Option<&Pattern>) -> Result<Vec<Group>, Refused> {
    let Some(pattern) = pattern else {
        return Err(Refused::new(
            "order",
            "it needs named groups of `match`; add `match`",
        ));
    };
    if groups.is_empty() || groups.len() > MOST_GROUPS {
        let cause = format!("write 1 to {MOST_GROUPS} groups, the most important one first");
        return Err(Refused::new("order", cause));
    }
    let compile = |text: &String| {
        let (name, kind) = match text.split_once(':') {
            None => (text.as_str(), GroupKind::Int),
            Some((name, "int")) => (name, GroupKind::Int),
            Some((name, "text")) => (name, GroupKind::Text),
            Some((name, "semver")) => (name, GroupKind::Semver),
            Some((name, kind)) => {
                let cause = format!(
                    "{kind:?} is no type; write \"{name}\", \"{name}:text\" or \"{name}:semver\""
                );
                return Err(Refused::new("order", cause));
            }
        };
        let number = pattern.group(name).ok_or_else(|| {
            let cause = format!("`match` has no group {name:?}; write (?<{name}>…) around it");
            Refused::new("order", cause)
        })?;
        Ok(Group {
            name: name.to_owned(),
            number,
            kind,
        })
    };
    groups.iter().map(compile).collect()
}

/// Compiles the entries of a list.
fn list<T>(
    field: &'static str,
    entries: &[String],
    compile: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Refused> {
    if entries.len() > MOST_ENTRIES {
        return Err(Refused::new(
            field,
            format!("it has at most {MOST_ENTRIES} entries"),
        ));
    }
    let compiled = entries.iter().map(|entry| compile(entry));
    compiled.collect::<Result<_, _>>().map_err(of(field))
}

pub(super) fn texts(
    field: &'static str,
    entries: &BTreeMap<String, OneOrMany>,
) -> Result<BTreeMap<String, Vec<String>>, Refused> {
    if entries.len() > MOST_ENTRIES {
        return Err(Refused::new(
            field,
            format!("it has at most {MOST_ENTRIES} entries"),
        ));
    }
    if let Some((key, _)) = entries
        .iter()
        .find(|(_, values)| values.values().is_empty())
    {
        return Err(Refused::new(
            field,
            format!("{key:?} has no value; name one"),
        ));
    }
    let entries = entries.iter();
    Ok(entries
        .map(|(key, values)| (key.clone(), values.values().to_vec()))
        .collect())
}
