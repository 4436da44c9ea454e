//! Tries the repository for `tagtrail doctor`, without an effect on it, and reads the images that
//! its files have.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tagtrail_proto::{Digest, Image, Pinned, RolloutImage};

use super::super::contract::{Running, TargetProblem};
use super::GitTarget;
use super::clone::Clone;
use super::edits::{Edited, Wanted};
use super::problem::{Trouble, trouble};
use super::program::Problem;
use super::turn::values;

/// The longest time of one exchange of a trial.
const LONGEST: Duration = Duration::from_secs(20);

/// A folder for the clone of one trial. A drop removes it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Folder> {
        let name = format!("tagtrail-trial-{:016x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl GitTarget {
    /// Returns the problems of the server, of the branch, of its files and of the right to push.
    pub(super) async fn probe(&self) -> Vec<TargetProblem> {
        match self.trial(true).await {
            Ok(Ok(_)) => Vec::new(),
            Ok(Err(found)) => {
                let cure = "correct the file in the branch, or target.git".to_owned();
                vec![fatal(format!("{}: {found}", self.settings.branch), cure)]
            }
            Err(problem) => {
                let cure = match trouble(&problem) {
                    Trouble::Final(cure) | Trouble::Server(cure) => cure,
                    Trouble::Clone => {
                        "check the folder for temporary files, and the version of git"
                    }
                };
                vec![fatal(self.shown(&problem), cure.to_owned())]
            }
        }
    }

    /// Reads the images that the files have.
    pub(super) async fn written(&self) -> Running {
        let edited = match self.trial(false).await {
            Ok(Ok(edited)) => edited,
            Ok(Err(why)) => return Running::NoSet(format!("{}: {why}", self.settings.branch)),
            Err(problem) => return Running::NoAnswer(self.shown(&problem)),
        };
        let (mut written, mut unpinned) = (BTreeMap::new(), BTreeSet::new());
        for found in edited.found {
            let Some(digest) = found.digest else {
                if found.pins && self.partial {
                    unpinned.insert(found.image);
                } else if found.pins {
                    return Running::NoSet(self.without_digest(&found.image));
                }
                continue;
            };
            let Some((registry, repository)) = self.repositories.get(&found.image).cloned() else {
                continue;
            };
            let pinned = Pinned {
                registry,
                repository,
                digest,
            };
            let name = found.image;
            let one = written
                .entry(name.clone())
                .or_insert_with(|| pinned.clone());
            if *one != pinned && self.partial {
                unpinned.insert(name);
            } else if *one != pinned {
                return Running::NoSet(format!(
                    "{}: the files have {one} and {pinned}",
                    self.settings.branch
                ));
            }
        }
        written.retain(|image, _| !unpinned.contains(image));
        let mut names = self.repositories.keys();
        match names.find(|name| !self.partial && !written.contains_key(*name)) {
            None => Running::Images(written),
            Some(name) => Running::NoSet(self.without_digest(name)),
        }
    }

    fn without_digest(&self, image: &str) -> String {
        let branch = &self.settings.branch;
        format!("{branch}: the image {image} has no digest there")
    }

    /// Returns a problem for people, without secrets.
    fn shown(&self, problem: &Problem) -> String {
        let mut text = format!("{}: {problem}", self.settings.branch);
        for hidden in self.access.get().hidden() {
            text = text.replace(hidden, "…");
        }
        text
    }

    /// Fetches the branch and looks for the values. With `push`, asks whether a push would be
    /// allowed, which changes nothing.
    async fn trial(&self, push: bool) -> Result<Result<Edited, String>, Problem> {
        let (settings, access) = (&self.settings, self.access.get());
        let folder = Folder::new().map_err(Problem::Io)?;
        let clone = Clone::open(
            &folder.0,
            "trial.git",
            &settings.branch.url,
            (&access, &settings.author),
            settings.timeout.min(LONGEST),
        )?;
        let branch = &settings.branch.branch;
        let head = clone.fetch(branch).await?;
        let images = self.samples();
        let wanted = Wanted {
            edits: &settings.edits,
            path: &settings.path,
            images: &images,
            markers: &settings.markers,
            names: &self.names,
        };
        let found = values(&clone, &head, settings, &wanted).await?;
        if push {
            clone.may_push(&head, branch).await?;
        }
        Ok(found)
    }

    /// Returns images of the trigger with a digest that none has.
    fn samples(&self) -> BTreeMap<String, RolloutImage> {
        let samples = self.repositories.iter().filter_map(|(name, place)| {
            let (registry, repository) = place;
            let image: Image = format!("{registry}/{repository}:latest").parse().ok()?;
            let digest = Digest::sha256_of(name.as_bytes());
            let sample = RolloutImage {
                pinned: image.pinned(&digest),
                image,
                revision: 1,
                digest,
                actor: None,
                previous: None,
            };
            Some((name.clone(), sample))
        });
        samples.collect()
    }
}

fn fatal(found: String, cure: String) -> TargetProblem {
    TargetProblem {
        fatal: true,
        found,
        cure,
    }
}
