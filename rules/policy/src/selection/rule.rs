//! A rule: the filters and the order of a policy, compiled.

use std::borrow::Cow;

use tagtrail_proto::{Manifest, Tag};

use super::key::Key;
use super::order::{Order, Subject, Times};
use super::pattern::{Pattern, TagGlob, Template};
use super::platform::ManifestRules;
use super::reason::Reason;

/// The filters and the order of a policy. Two triggers with the same [`Rule::canonical`] and the
/// same repository have the same candidates.
#[derive(Debug, Clone)]
pub struct Rule {
    pub(super) order: Order,
    pub(super) glob: Option<TagGlob>,
    pub(super) ignore: Vec<TagGlob>,
    pub(super) ignore_match: Vec<(String, Pattern)>,
    pub(super) pattern: Option<Pattern>,
    pub(super) template: Option<Template>,
    pub(super) manifest: ManifestRules,
    pub(super) canonical: String,
}

/// The answer of a rule about a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// The manifest has all that the rule asks for.
    Fits,
    /// The manifest lacks something.
    Misfit(Reason),
    /// The rule asks for something, and the manifest is not read yet.
    Unread,
}

impl Rule {
    /// Returns the place of a tag in the order of the rule. A deleted tag, a tombstone and the
    /// manifest are the caller's concern.
    ///
    /// # Errors
    /// For a tag that the rule does not take, with the reason.
    pub fn key(&self, tag: &Tag, times: Times) -> Result<Key, Reason> {
        self.filter(tag)?;
        let subject = self.subject(tag, times)?;
        let values = self.order.values(&subject, true)?;
        Ok(values.of(tag.as_ref()))
    }

    /// Returns the place of a tag in the order, also if filters and bounds refuse the tag. None if
    /// the rule cannot compare it.
    #[must_use]
    pub fn key_beyond_filters(&self, tag: &Tag, times: Times) -> Option<Key> {
        let subject = self.subject(tag, times).ok()?;
        let values = self.order.values(&subject, false).ok()?;
        Some(values.of(tag.as_ref()))
    }

    /// Returns true if the key depends on the name of the tag alone, and false if it depends on
    /// times.
    #[must_use]
    pub fn is_over_names(&self) -> bool {
        !matches!(self.order, Order::Pushed | Order::Created)
    }

    /// Returns true if the rule orders tags by the time of their build, which two may share.
    #[must_use]
    pub fn orders_by_build(&self) -> bool {
        matches!(self.order, Order::Created)
    }

    /// Returns true if the tags that the rule takes depend on the selected one: `within` or
    /// `suffix`. [`Rule::after`] applies a selection.
    #[must_use]
    pub fn is_relative(&self) -> bool {
        matches!(&self.order, Order::Semver(order) if order.relative.is_some())
    }

    /// Returns the rule after the selection of a tag. A rule that is not relative stays as it is.
    #[must_use]
    pub fn after(&self, selected: &Tag) -> Rule {
        let mut rule = self.clone();
        if let Order::Semver(order) = &mut rule.order
            && let Some(relative) = &mut order.relative
        {
            let text = self.text(selected);
            let version = text
                .as_deref()
                .and_then(|text| order.parse.version_of_tag(text));
            relative.selected = version.map(super::semver::Version::into_owned);
        }
        rule
    }

    /// Returns true if the rule asks for something in the manifest.
    #[must_use]
    pub fn needs_manifest(&self) -> bool {
        !self.manifest.is_empty()
    }

    /// Returns whether a manifest has all that the rule asks for. None: it is not read yet.
    #[must_use]
    pub fn fit(&self, manifest: Option<&Manifest>) -> Fit {
        if !self.needs_manifest() {
            return Fit::Fits;
        }
        match manifest.map(|manifest| self.manifest.check(manifest)) {
            None => Fit::Unread,
            Some(Ok(())) => Fit::Fits,
            Some(Err(reason)) => Fit::Misfit(reason),
        }
    }

    /// Returns the rule as JSON, in one form for spellings such as `"^1"` and `{ range = "^1" }`.
    /// The form identifies the rule: `min_age`, `metadata_wait`, `on_removed` and `on_moved` are no
    /// part of it. The candidates of a relative rule depend on the selected tag too.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// Returns a sentence for each setting that takes other tags than most people expect.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = match &self.order {
            Order::Semver(order) => order.range.warnings(order.prereleases),
            _ => Vec::new(),
        };
        let unknown = self.template.iter().flat_map(Template::unknown);
        warnings.extend(unknown.map(|name| {
            format!("`extract` names the group {name:?}, which `match` lacks, so the reference is always empty")
        }));
        warnings
    }

    fn filter(&self, tag: &Tag) -> Result<(), Reason> {
        if matches!(self.order, Order::Exact(_)) {
            return Ok(());
        }
        if tag.is_signature() {
            return Err(Reason::Signature);
        }
        let name = tag.as_ref();
        if self.glob.as_ref().is_some_and(|glob| !glob.matches(name)) {
            return Err(Reason::Glob);
        }
        if let Some(glob) = self.ignore.iter().find(|glob| glob.matches(name)) {
            return Err(Reason::Ignored(glob.as_str().to_owned()));
        }
        match self
            .ignore_match
            .iter()
            .find(|(_, pattern)| pattern.is_match(name))
        {
            Some((text, _)) => Err(Reason::IgnoredMatch(text.clone())),
            None => Ok(()),
        }
    }

    fn subject<'a>(&'a self, tag: &'a Tag, times: Times) -> Result<Subject<'a>, Reason> {
        let name = tag.as_ref();
        let subject = |text, groups| Subject {
            tag,
            text,
            groups,
            times,
        };
        let Some(pattern) = &self.pattern else {
            return Ok(subject(Cow::Borrowed(name), None));
        };
        if let Some(template) = &self.template {
            let text = template.expand(pattern, name).ok_or(Reason::NoMatch)?;
            return Ok(subject(text, None));
        }
        if matches!(self.order, Order::Groups(_)) {
            let groups = pattern.captures(name).ok_or(Reason::NoMatch)?;
            return Ok(subject(Cow::Borrowed(name), Some(groups)));
        }
        // A search without groups is several times faster.
        match pattern.is_match(name) {
            true => Ok(subject(Cow::Borrowed(name), None)),
            false => Err(Reason::NoMatch),
        }
    }

    /// Returns the text of a tag that is ordered.
    fn text<'a>(&'a self, tag: &'a Tag) -> Option<Cow<'a, str>> {
        let times = Times {
            pushed: time::OffsetDateTime::UNIX_EPOCH,
            created: None,
        };
        self.subject(tag, times).ok().map(|subject| subject.text)
    }
}
