//! Commits: links to them at the hosts whose addresses are known.

use maud::{Markup, html};

use crate::pages::part::text::visible;

/// The digits of a commit that are shown.
const DIGITS: usize = 8;

/// How a host of source code writes the addresses of a commit and of a range of commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    GitHub,
    GitLab,
    Gitea,
    Bitbucket,
}

impl Host {
    fn of(name: &str) -> Option<Host> {
        let first = name.split('.').next().unwrap_or_default();
        match (name, first) {
            ("github.com", _) | (_, "github") => Some(Host::GitHub),
            ("gitlab.com", _) | (_, "gitlab") => Some(Host::GitLab),
            ("codeberg.org" | "gitea.com", _) | (_, "gitea" | "forgejo") => Some(Host::Gitea),
            ("bitbucket.org", _) => Some(Host::Bitbucket),
            _ => None,
        }
    }
}

/// Returns the host, and the address of the repository without an end such as `.git`.
fn repository(source: &str) -> Option<(Host, &str)> {
    let rest = source
        .strip_prefix("https://")
        .or_else(|| source.strip_prefix("http://"))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte);
    if source.len() > 512 || !rest.bytes().all(plain) {
        return None;
    }
    let (host, path) = rest.split_once('/')?;
    let short = source.trim_end_matches('/').trim_end_matches(".git");
    Some((Host::of(host)?, short)).filter(|_| path.contains('/'))
}

fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns the address of a commit. `None`: the host is not known, or the text is no commit.
pub(crate) fn address(source: Option<&str>, commit: &str) -> Option<String> {
    let (host, repository) = repository(source?)?;
    let between = match host {
        Host::GitHub | Host::Gitea => "commit",
        Host::GitLab => "-/commit",
        Host::Bitbucket => "commits",
    };
    is_commit(commit).then(|| format!("{repository}/{between}/{commit}"))
}

/// Returns the address of the commits from one to another.
pub(crate) fn range_address(source: Option<&str>, from: &str, to: &str) -> Option<String> {
    let (host, repository) = repository(source?)?;
    if !is_commit(from) || !is_commit(to) {
        return None;
    }
    Some(match host {
        Host::GitHub | Host::Gitea => format!("{repository}/compare/{from}...{to}"),
        Host::GitLab => format!("{repository}/-/compare/{from}...{to}"),
        Host::Bitbucket => format!("{repository}/branches/compare/{to}..{from}"),
    })
}

/// Returns the first digits of a commit.
pub(crate) fn short(commit: &str) -> String {
    let shown = match is_commit(commit) {
        true => commit.chars().take(DIGITS).collect(),
        false => commit.chars().take(40).collect::<String>(),
    };
    visible(&shown)
}

/// Returns a version and a commit, as a link where the host is known. Nothing without both.
pub(crate) fn built_from(
    version: Option<&str>,
    commit: Option<&str>,
    source: Option<&str>,
) -> Markup {
    let address = commit.and_then(|commit| address(source, commit));
    let text = html! {
        @if let Some(version) = version { "version " (visible(&version.chars().take(60).collect::<String>())) }
        @if version.is_some() && commit.is_some() { " " }
        @if let Some(commit) = commit { code { (short(commit)) } }
    };
    html! {
        @match address {
            Some(address) => a href=(address) rel="noreferrer" { (text) },
            None => @if version.is_some() || commit.is_some() { span { (text) } },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "9f2c41d7aa10";

    #[test]
    fn a_commit_is_a_link_at_hosts_whose_addresses_are_known() {
        for (source, expected) in [
            (
                "https://github.com/acme/shop.git",
                "https://github.com/acme/shop/commit/9f2c41d7aa10",
            ),
            (
                "https://gitlab.example.com/a/b/c",
                "https://gitlab.example.com/a/b/c/-/commit/9f2c41d7aa10",
            ),
            (
                "https://codeberg.org/a/b/",
                "https://codeberg.org/a/b/commit/9f2c41d7aa10",
            ),
            (
                "https://bitbucket.org/a/b",
                "https://bitbucket.org/a/b/commits/9f2c41d7aa10",
            ),
        ] {
            assert_eq!(address(Some(source), COMMIT).as_deref(), Some(expected));
        }
        for source in [
            "javascript:alert(1)//github.com/a/b",
            "https://example.com/a/b",
            "https://github.com/a",
            "https://github.com/a/b?x=\"",
            "https://github.com/a/b\u{202e}",
        ] {
            assert_eq!(address(Some(source), COMMIT), None, "{source}");
        }
        let source = Some("https://github.com/acme/shop");
        assert_eq!(address(source, "../../evil"), None);
        let range = range_address(source, COMMIT, "51ab0e93");
        let expected = "https://github.com/acme/shop/compare/9f2c41d7aa10...51ab0e93";
        assert_eq!(range.as_deref(), Some(expected));
    }
}
