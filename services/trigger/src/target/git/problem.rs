//! The meaning of the problems of git.

use super::program::Problem;

/// The part that a problem is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No attempt soon can help; with the cure.
    Final(&'static str),
    /// The server, or the way to it; with the cure.
    Server(&'static str),
    /// Everything else: the clone may be damaged.
    Clone,
}

/// Words of git, SSH and servers, in the order in which they count.
const WORDS: [(&str, Trouble); 14] = [
    (
        "couldn't find remote ref",
        Trouble::Final("create the branch, or correct branch"),
    ),
    (
        "host key verification failed",
        Trouble::Final(
            "compare the key of the server, and write it to the file known_hosts (ssh-keyscan HOST)",
        ),
    ),
    (
        "does not support shallow",
        Trouble::Final("the server must speak the smart protocol of git"),
    ),
    ("permission denied", Trouble::Server(ACCOUNT)),
    ("authentication failed", Trouble::Server(ACCOUNT)),
    ("could not read username", Trouble::Server(ACCOUNT)),
    ("could not read password", Trouble::Server(ACCOUNT)),
    ("access denied", Trouble::Server(ACCOUNT)),
    ("not found", Trouble::Server(MISSING)),
    (
        "does not appear to be a git repository",
        Trouble::Server(MISSING),
    ),
    ("does not exist", Trouble::Server(MISSING)),
    ("unable to access", Trouble::Server(REACH)),
    (
        "could not read from remote repository",
        Trouble::Server(REACH),
    ),
    ("the remote end hung up", Trouble::Server(REACH)),
];
const ACCOUNT: &str = "check auth, and the rights of Tagtrail's account in the repository";
const MISSING: &str = "check url, and that Tagtrail's account may read the repository";
const REACH: &str = "check that the server is up and can be reached from here";

/// Returns the part that a problem is of.
pub(super) fn trouble(problem: &Problem) -> Trouble {
    match problem {
        Problem::NotInstalled => Trouble::Final("then the next attempt goes on"),
        Problem::TooLarge(_) => Trouble::Final("narrow path"),
        Problem::TimedOut(_) => Trouble::Server("raise timeout_seconds if the repository is large"),
        Problem::Io(_) => Trouble::Clone,
        Problem::Failed { stderr, .. } => {
            let said = String::from_utf8_lossy(stderr).to_ascii_lowercase();
            let known = WORDS.iter().find(|(word, _)| said.contains(word));
            known.map_or(Trouble::Clone, |(_, trouble)| *trouble)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_git_lead_to_a_cure() {
        let of = |text: &str| {
            trouble(&Problem::Failed {
                stdout: Vec::new(),
                stderr: text.as_bytes().to_vec(),
            })
        };
        assert!(matches!(
            of("fatal: couldn't find remote ref refs/heads/x"),
            Trouble::Final(_)
        ));
        let denied = "git@host: Permission denied (publickey).\nfatal: Could not read from remote repository.";
        assert_eq!(of(denied), Trouble::Server(ACCOUNT));
        assert_eq!(
            of("Host key verification failed.\nfatal: Could not read from remote repository."),
            WORDS[1].1
        );
        assert_eq!(
            of("fatal: unable to access 'https://x/': Could not resolve host"),
            Trouble::Server(REACH)
        );
        assert_eq!(of("error: object file is empty"), Trouble::Clone);
    }
}
