//! Target `git`: writes the images to files of a branch of a git repository, and pushes the commit.

mod access;
mod clone;
mod clones;
mod drift;
mod edits;
mod files;
mod locks;
mod message;
mod place;
mod probe;
mod problem;
mod program;
mod propose;
mod settings;
mod turn;

use std::collections::BTreeMap;
use std::sync::Arc;

use tagtrail_config::{File, Fresh, Names, Trigger};
use tagtrail_policy::retry::Outcome;
use tagtrail_proto::{Registry, Repository};

use super::clusters::Clusters;
use super::contract::{
    ConfigureResult, OnForeignChange, Order, Running, Seen, Target, TargetFuture, TargetKind,
    TargetProblem, readable_secrets,
};
use super::kubernetes::Arrival;
use super::news::TargetNews;
use crate::act;
use access::Access;
pub(crate) use clones::Clones;
use settings::{Push, Settings};
use turn::Job;

pub(super) const GIT: TargetKind = TargetKind {
    name: "git",
    configure,
    tells: true,
    setup: "Install git 2.34 or newer, and openssh-client, where the trigger service runs. Give Tagtrail an account of its own that may \
            push to the branch: a deploy key with `auth.ssh`, or a token with `auth.username` and `auth.password`. End the line of each \
            image with a marker, such as # {\"$imagepolicy\": \"shop:web\"}, or use the edits `kustomize` and `yaml` (docs/git.md).",
};

/// Most attempts at one branch at the same time: they share turns, and each turn makes one commit.
const AT_ONE_BRANCH: usize = 250;
/// The longest time of an attempt, as a multiple of `timeout_seconds`: it may wait for the turn of
/// others, and for the lock, before its own turn.
const TURNS: u32 = 5;

/// Files of a branch.
struct GitTarget {
    settings: Arc<Settings>,
    access: Fresh<Access>,
    /// The repositories of the images, by their names in the trigger.
    repositories: BTreeMap<String, (Registry, Repository)>,
    names: Names,
    /// True if a rollout may leave images out.
    partial: bool,
    last: drift::LastLook,
    /// The objects that show the arrival of the images in a cluster.
    arrival: Option<Arrival>,
}

fn configure(
    value: &toml::Value,
    trigger: &Trigger,
    (file, clusters): (&File, &Clusters),
) -> ConfigureResult {
    let settings = Settings::parse(value, trigger)?;
    let arrival = settings.arrival.as_ref();
    let arrival = arrival.map(|objects| Arrival::new(objects, trigger, (file, clusters)));
    let arrival = arrival.transpose()?;
    let of = format!("target.git of trigger {}", trigger.name.get_ref());
    let images = trigger.all_images();
    let repositories = images.iter().map(|(name, image)| {
        let place = (image.registry().clone(), image.repository().clone());
        (name.clone(), place)
    });
    Ok(Box::new(GitTarget {
        access: Access::fresh(&settings, of)?,
        repositories: repositories.collect(),
        names: file.names().clone(),
        partial: trigger.partial,
        last: drift::LastLook::default(),
        arrival,
        settings: Arc::new(settings),
    }))
}

impl Target for GitTarget {
    fn apply<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Outcome> {
        Box::pin(async move {
            match (self.attempt(order).await, &self.arrival) {
                // The objects tell when the images have arrived.
                (Outcome::Done, Some(_)) => Outcome::Applied,
                (outcome, _) => outcome,
            }
        })
    }

    fn watches(&self) -> bool {
        self.arrival.is_some()
    }

    fn observe<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Seen> {
        Box::pin(async move {
            match &self.arrival {
                Some(arrival) => arrival.look(order).await,
                None => Seen::Healthy,
            }
        })
    }

    fn follow(&self, trigger: &str, news: &Arc<TargetNews>) {
        if let Some(arrival) = &self.arrival {
            arrival.follow(trigger, news);
        }
    }

    fn asks_for_background(&self) -> bool {
        true
    }

    fn place(&self) -> act::Place {
        act::Place {
            kind: GIT.name,
            part: Some(self.settings.branch.to_string()),
            at_once: AT_ONE_BRANCH,
        }
    }

    fn identity(&self) -> String {
        let (branch, path) = (&self.settings.branch, &self.settings.path);
        let proposed = match self.settings.push {
            Push::Direct => "",
            Push::Branch => " as a proposal",
        };
        format!("git {branch} below /{path}{proposed}")
    }

    fn judge(&self) -> Vec<TargetProblem> {
        readable_secrets(self.settings.places()).collect()
    }

    fn try_out(&self) -> TargetFuture<'_, Vec<TargetProblem>> {
        Box::pin(async move {
            let mut problems = self.probe().await;
            if let Some(arrival) = &self.arrival {
                problems.extend(arrival.try_out().await);
            }
            problems
        })
    }

    /// A proposal is not in the branch before a person merges it.
    fn on_foreign_change(&self) -> OnForeignChange {
        match self.settings.push {
            Push::Direct => self.settings.on_foreign_change,
            Push::Branch => OnForeignChange::Ignore,
        }
    }

    fn foreign<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Option<String>> {
        Box::pin(self.changed_by_others(order))
    }

    fn current(&self) -> TargetFuture<'_, Running> {
        Box::pin(self.written())
    }
}

impl GitTarget {
    async fn attempt(&self, order: &Order) -> Outcome {
        let Some(clones) = &order.clones else {
            return Outcome::Refused("clones are made by the trigger service alone".to_owned());
        };
        let access = self.access.get();
        order.said.hide(access.hidden());
        let job = Job {
            order: order.clone(),
            settings: Arc::clone(&self.settings),
            access,
            names: self.names.clone(),
        };
        let limit = self.settings.timeout * TURNS;
        let attempt = clones.outcome(&self.settings.branch, job);
        let ended = tokio::time::timeout(limit, attempt).await;
        ended.unwrap_or_else(|_| Outcome::Failed {
            error: format!(
                "{}: the attempt took longer than {} s, with the time in which it waited for others",
                self.settings.branch,
                limit.as_secs()
            ),
            after: None,
        })
    }
}

#[cfg(test)]
mod tests;
