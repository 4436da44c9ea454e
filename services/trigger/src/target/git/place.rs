//! Where a target acts: a branch of a repository.

use std::fmt;

use tagtrail_failpoint::FailPoint;

/// A branch of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Place {
    pub(super) url: Url,
    pub(super) branch: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "branch {} of {}", self.branch, self.url)
    }
}

/// The URL of a repository. It holds no credentials but the name of a user of SSH.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Url {
    text: String,
    scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scheme {
    Https,
    Ssh,
    /// In tests.
    File,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Url {
    /// Reads a URL. Git may use no other protocols than HTTPS and SSH, in tests also files.
    pub(super) fn parse(text: &str) -> Result<Url, String> {
        const KNOWN: &str = "write https://… or ssh://git@host/path";
        let Some((scheme, rest)) = text.split_once("://") else {
            let short = text.split_once(':').filter(|(host, _)| !host.contains('/'));
            return Err(match short {
                Some((host, path)) => format!(
                    "{text:?} is a short form; write ssh://{host}/{}",
                    path.trim_start_matches('/')
                ),
                None => format!("is no URL; {KNOWN}"),
            });
        };
        let scheme = match scheme {
            "https" => Scheme::Https,
            "ssh" => Scheme::Ssh,
            "file" if FailPoint::COMPILED => Scheme::File,
            _ => return Err(format!("{scheme}:// is not supported; {KNOWN}")),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |letter: char| letter.is_ascii_graphic() && !"?#\"'`\\".contains(letter);
        if path.is_empty() || !rest.chars().all(plain) || rest.contains("/../") {
            return Err(format!(
                "the URL names no repository, or has letters that no repository has; {KNOWN}"
            ));
        }
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        // A host that begins with a dash would be an option of a program.
        if host.starts_with('-')
            || user.starts_with('-')
            || (host.is_empty() && scheme != Scheme::File)
        {
            return Err(format!("the URL names no host; {KNOWN}"));
        }
        if user.contains(':') || (scheme != Scheme::Ssh && !user.is_empty()) {
            return Err(
                "the URL holds credentials; remove them, and write auth = { username = \"…\", password = { file = \"…\" } }"
                    .to_owned(),
            );
        }
        Ok(Url {
            text: text.to_owned(),
            scheme,
        })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn is_ssh(&self) -> bool {
        self.scheme == Scheme::Ssh
    }

    /// Returns the one protocol that git may use.
    pub(super) fn protocol(&self) -> &'static str {
        match self.scheme {
            Scheme::Https => "https",
            Scheme::Ssh => "ssh",
            Scheme::File => "file",
        }
    }

    /// Returns scheme and host, for which the credentials are.
    pub(super) fn origin(&self) -> String {
        let (scheme, rest) = self.text.split_once("://").unwrap_or_default();
        let host = rest.split('/').next().unwrap_or_default();
        format!("{scheme}://{host}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_ssh_without_credentials_are_urls() {
        for good in [
            "https://git.example.com/ops/deploy.git",
            "ssh://git@git.example.com:2222/ops/deploy.git",
            "ssh://git@[::1]:22/~/deploy",
        ] {
            assert_eq!(Url::parse(good).unwrap().to_string(), good);
        }
        for (bad, expected) in [
            (
                "git@github.com:ops/deploy.git",
                "write ssh://git@github.com/ops/deploy.git",
            ),
            ("http://git.example.com/x", "http:// is not supported"),
            ("ext::sh -c true", "short form"),
            ("ext://sh", "ext:// is not supported"),
            ("/srv/git/x", "is no URL"),
            ("https://me:secret@git.example.com/x", "holds credentials"),
            ("https://token@git.example.com/x", "holds credentials"),
            ("ssh://-oProxyCommand=x/y", "names no host"),
            ("ssh://host", "names no repository"),
            ("https://host/a b", "names no repository"),
            ("https://host/a?token=x", "names no repository"),
        ] {
            let error = Url::parse(bad).unwrap_err();
            assert!(error.contains(expected), "{bad}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let url = Url::parse("https://git.example.com:8443/ops/deploy.git").unwrap();
        assert_eq!(url.origin(), "https://git.example.com:8443");
    }
}
