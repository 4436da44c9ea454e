//! The place from which the address of the API comes, which an error names with the cure.

use std::path::PathBuf;

use crate::data;

const VARIABLE: &str = "TAGTRAIL_API";

/// The origin of the address of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The flag `--api`.
    Flag,
    /// The environment.
    Variable,
    /// The file with the addresses of a running `tagtrail up`.
    File(PathBuf),
    /// No setting.
    Default,
}

impl Origin {
    /// Returns the address of the API, and the origin of the address. `given` is the value of the
    /// flag or of the variable.
    pub(crate) fn find(given: Option<String>) -> (String, Origin) {
        #[expect(
            clippy::disallowed_methods,
            reason = "clap has read it, and does not return whether the flag or the variable counted"
        )]
        let variable = std::env::var(VARIABLE).ok();
        match given {
            Some(given) if variable.as_ref() == Some(&given) => (given, Origin::Variable),
            Some(given) => (given, Origin::Flag),
            None => match data::api() {
                Some((address, file)) => (address, Origin::File(file)),
                None => ("http://127.0.0.1:8401".to_owned(), Origin::Default),
            },
        }
    }

    /// The setting, for the start of an error.
    pub(crate) fn name(&self) -> String {
        match self {
            Origin::Flag => "--api".to_owned(),
            Origin::Variable => VARIABLE.to_owned(),
            Origin::File(file) => file.display().to_string(),
            Origin::Default => "the default".to_owned(),
        }
    }

    /// The cure for a wrong address, or for a server that does not run.
    pub(crate) fn cure(&self) -> String {
        const ENV: &str = "eval \"$(tagtrail env --data DIR)\"";
        match self {
            Origin::Flag => "start it with `tagtrail up`, or correct --api".to_owned(),
            Origin::Variable => format!(
                "the address is of TAGTRAIL_API, perhaps of an earlier `tagtrail up`: start it, or set the variable anew with `{ENV}`"
            ),
            Origin::File(file) => format!(
                "the address is of {}: restart that `tagtrail up`, or set another address with --api",
                file.display()
            ),
            Origin::Default => format!(
                "start it with `tagtrail up`, or set its address with --api, or with `{ENV}` for a `tagtrail up` whose data folder is elsewhere"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_origin_has_a_cure_of_its_own() {
        let file = PathBuf::from(".tagtrail/endpoints.json");
        for (origin, cure) in [
            (Origin::Flag, "correct --api"),
            (Origin::Variable, "eval \"$(tagtrail env --data DIR)\""),
            (Origin::File(file), "restart that `tagtrail up`"),
            (Origin::Default, "start it with `tagtrail up`"),
        ] {
            assert!(origin.cure().contains(cure), "{origin:?}");
            let names_flag = origin.cure().contains("--api");
            assert_eq!(names_flag, origin != Origin::Variable, "{origin:?}");
        }
    }
}
