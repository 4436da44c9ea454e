//! Target `kubernetes`: changes the images of objects of one namespace, and reads their health.

mod apply;
mod arrival;
mod events;
mod observe;
mod probe;
mod settings;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::Value;
use tagtrail_config::{File, Names, Trigger};
use tagtrail_kubernetes::{
    Change, Cluster, Entry, ObjectName, Place, Problem, Reference, entries, places, pod_spec,
    written_reference,
};
use tagtrail_policy::retry::Outcome;
use tagtrail_proto::{Pinned, Registry, Repository, RolloutImage, clean_text};

use super::claims::{Claim, SharedImages};
use super::clusters::Clusters;
use super::contract::{
    ConfigureResult, OnForeignChange, Order, Running, Seen, Target, TargetFuture, TargetKind,
    TargetProblem,
};
use super::news::TargetNews;
use crate::act;
pub(super) use arrival::Arrival;
use events::Events;
use settings::{Part, Settings, WrittenPlace};
use watches::Watches;

pub(super) const KUBERNETES: TargetKind = TargetKind {
    name: "kubernetes",
    configure,
    tells: true,
    setup: "Give Tagtrail's account the rights `get`, `list`, `watch` and `patch` on the named objects, and `list` \
            on pods (docs/kubernetes.md has the Role and an admission policy). The images in the manifests of a \
            GitOps tool must be left out, or its tool must ignore the fields that tagtrail manages.",
};

/// Most attempts at one cluster at the same time: more would only fill the queue of its API server.
const AT_ONE_CLUSTER: usize = 20;

/// Objects of one namespace of a cluster.
struct KubernetesTarget {
    cluster: Arc<Cluster>,
    settings: Settings,
    /// The repositories of the images, by their names in the trigger.
    repositories: BTreeMap<String, (Registry, Repository)>,
    names: Names,
    /// True if a rollout may leave images out.
    partial: bool,
    /// True if another system writes the images, and Tagtrail reads alone.
    reads: bool,
    watches: Watches,
    events: Events,
}

fn configure(value: &toml::Value, trigger: &Trigger, of: (&File, &Clusters)) -> ConfigureResult {
    Ok(Box::new(KubernetesTarget::new(value, trigger, of)?))
}

impl Target for KubernetesTarget {
    fn apply<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Outcome> {
        Box::pin(async move {
            let outcome = self.bring(order).await;
            self.tell_outcome(order, &outcome);
            outcome
        })
    }

    fn observe<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Seen> {
        Box::pin(async move {
            let seen = self.look(order).await;
            self.tell_seen(order, &seen);
            seen
        })
    }

    fn watches(&self) -> bool {
        true
    }

    /// An image that no rollout had before is not taken from anybody.
    fn asks_for_background(&self) -> bool {
        self.partial
    }

    fn place(&self) -> act::Place {
        act::Place {
            kind: KUBERNETES.name,
            part: Some(self.cluster.name().to_owned()),
            at_once: AT_ONE_CLUSTER,
        }
    }

    fn identity(&self) -> String {
        let mut objects: Vec<String> = self
            .settings
            .all()
            .iter()
            .map(ToString::to_string)
            .collect();
        objects.sort();
        let (cluster, namespace) = (self.cluster.name(), &self.settings.namespace);
        format!("kubernetes {cluster} {namespace} {}", objects.join(" "))
    }

    fn claims(&self) -> Vec<Claim> {
        let mut claims = Vec::new();
        for object in self.settings.objects.iter().filter(|_| !self.reads) {
            for (image, (registry, repository)) in &self.repositories {
                let containers = self.settings.containers.get(image);
                claims.push(Claim {
                    place: self.full(object),
                    repository: format!("{registry}/{repository}"),
                    containers: containers.cloned().unwrap_or_default(),
                });
            }
        }
        claims
    }

    fn tell_shared(&self, shared: &SharedImages, text: &str) {
        let mut objects = self.settings.objects.iter();
        if let Some(object) = objects.find(|object| self.full(object) == shared.place) {
            self.send(
                object,
                &shared.with,
                ("TagtrailShared", true),
                text.to_owned(),
            );
        }
    }

    fn try_out(&self) -> TargetFuture<'_, Vec<TargetProblem>> {
        Box::pin(self.probe())
    }

    fn follow(&self, trigger: &str, news: &Arc<TargetNews>) {
        self.begin_watches(trigger, news);
    }

    fn on_foreign_change(&self) -> OnForeignChange {
        self.settings.on_foreign_change
    }

    fn foreign<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Option<String>> {
        Box::pin(async move {
            let found = self.changed_by_others(order).await;
            if let Some(text) = &found {
                self.tell_foreign(order, text);
            }
            found
        })
    }

    fn current(&self) -> TargetFuture<'_, Running> {
        Box::pin(self.running())
    }
}

/// A place of an object that runs an image of the trigger.
struct Used {
    /// Name of the image in the trigger.
    image: String,
    place: Place,
    /// The part of the image that the place holds.
    part: Part,
}

impl KubernetesTarget {
    fn new(
        value: &toml::Value,
        trigger: &Trigger,
        (file, clusters): (&File, &Clusters),
    ) -> Result<KubernetesTarget, String> {
        let settings = Settings::parse(value, trigger)?;
        let images = trigger.all_images();
        let repositories = images.iter().map(|(name, image)| {
            let place = (image.registry().clone(), image.repository().clone());
            (name.clone(), place)
        });
        Ok(KubernetesTarget {
            cluster: clusters.named(&settings.cluster)?,
            repositories: repositories.collect(),
            names: file.names().clone(),
            partial: trigger.partial,
            reads: false,
            watches: Watches::new(),
            events: Events::default(),
            settings,
        })
    }

    /// Returns the places of an object that run images of the trigger. An error says which place
    /// of the settings is missing.
    fn used(&self, object: &ObjectName, value: &Value) -> Result<Vec<Used>, String> {
        let mut used = Vec::new();
        if self.settings.objects.contains(object) {
            for place in places(value, pod_spec(&object.kind)) {
                if let Some(image) = self.image_of(&place) {
                    used.push(Used {
                        image,
                        place,
                        part: Part::Pinned,
                    });
                }
            }
        }
        for written in &self.settings.paths {
            if written.object != *object {
                continue;
            }
            if let Some(entries) = entries(value, &written.at) {
                used.extend(self.entry(object, written, entries)?);
                continue;
            }
            let text = match value.pointer(&written.at) {
                None if written.record && parent(value, &written.at) => Some(""),
                text => text.and_then(Value::as_str),
            };
            let Some(text) = text else {
                if self.partial {
                    continue;
                }
                let (image, at) = (&written.image, &written.at);
                return Err(format!(
                    "{object} has no text at {at}; correct paths.{image}, or write a first value there"
                ));
            };
            used.push(Used {
                image: written.image.clone(),
                place: Place {
                    at: written.at.clone(),
                    beside: None,
                    name: written.at.clone(),
                    image: text.to_owned(),
                },
                part: written.write,
            });
        }
        Ok(used)
    }

    /// Returns the places of a list that stand for the image. An error says what to add.
    fn entry(
        &self,
        object: &ObjectName,
        written: &WrittenPlace,
        entries: Vec<Entry>,
    ) -> Result<Vec<Used>, String> {
        let WrittenPlace { image, at, .. } = written;
        let mut used = Vec::new();
        for Entry {
            place,
            reference,
            digest,
        } in entries
        {
            let of = (
                self.names.registry(reference.registry),
                reference.repository,
            );
            if self.repositories.get(image) == Some(&of) {
                used.push(Used {
                    image: image.clone(),
                    place,
                    part: if digest { Part::Digest } else { Part::Pinned },
                });
            }
        }
        match (used.is_empty(), self.repositories.get(image)) {
            (true, Some((registry, repository))) if !self.partial => Err(format!(
                "{object} has no entry of {registry}/{repository} at {at}; add one, with a `digest` for Flux"
            )),
            _ => Ok(used),
        }
    }

    /// Returns the image of the trigger that a container or a volume runs.
    fn image_of(&self, place: &Place) -> Option<String> {
        let mut named = self.settings.containers.iter();
        if let Some((image, _)) = named.find(|(_, containers)| containers.contains(&place.name)) {
            return Some(image.clone());
        }
        let reference = Reference::parse(&place.image)?;
        let registry = self.names.registry(reference.registry);
        let mut images = self.repositories.iter();
        let runs = images.find(|(image, (of, repository))| {
            !self.settings.containers.contains_key(*image)
                && *of == registry
                && *repository == reference.repository
        });
        runs.map(|(image, _)| image.clone())
    }

    /// Returns the changes that bring places of an object to these images.
    fn changes(&self, used: Vec<Used>, images: &BTreeMap<String, RolloutImage>) -> Vec<Change> {
        let mut changes = Vec::new();
        for Used { image, place, part } in used {
            let Some(wanted) = images.get(&image) else {
                continue;
            };
            let to = self.written(wanted, &place, part);
            if place.image != to {
                changes.push(Change { place, to });
            }
        }
        changes
    }

    /// Returns the text that brings a place to an image. A name of the registry that the place has
    /// stays: a cluster may reach the registry by that name alone.
    fn written(&self, wanted: &RolloutImage, place: &Place, part: Part) -> String {
        let reference = written_reference(&place.image).filter(|reference| {
            reference.repository == wanted.pinned.repository
                && self.names.registry(reference.registry.clone()) == wanted.pinned.registry
        });
        let name = reference.map_or_else(
            || format!("{}/{}", wanted.pinned.registry, wanted.pinned.repository),
            |reference| reference.name,
        );
        match part {
            Part::Pinned => {
                // An entry of Argo CD begins with the name that it replaces.
                let before = place.image.split_once('=');
                let before = before.map_or_else(String::new, |(before, _)| format!("{before}="));
                format!("{before}{name}@{}", wanted.digest)
            }
            Part::Digest => wanted.digest.to_string(),
            Part::Tag => wanted.image.tag.to_string(),
            Part::Name => name,
        }
    }

    /// Returns the changes of places that run images. The others are notes, in which nobody decides
    /// about an image.
    fn running_changes(
        &self,
        object: &ObjectName,
        used: Vec<Used>,
        images: &BTreeMap<String, RolloutImage>,
    ) -> Vec<Change> {
        let runs = |used: &Used| !self.settings.is_record(object, &used.place.at);
        let used = used.into_iter().filter(runs).collect();
        self.changes(used, images)
    }

    /// Reads all objects at the same time, in the order in which they change.
    async fn read(&self) -> Vec<(&ObjectName, Result<Value, Problem>)> {
        let objects = self.settings.all().into_iter();
        let namespace = &self.settings.namespace;
        let reads = objects
            .map(|object| async move { (object, self.cluster.get(namespace, object).await) });
        join_all(reads).await
    }

    /// Reads the images that the objects run now.
    async fn running(&self) -> Running {
        let (mut running, mut unpinned) = (BTreeMap::new(), BTreeSet::new());
        for (object, value) in self.read().await {
            let value = match value {
                Ok(value) => value,
                Err(Problem::NotFound(why)) => {
                    return Running::NoSet(format!("{} is missing ({why})", self.full(object)));
                }
                Err(problem) => {
                    return Running::NoAnswer(format!("{}: {problem}", self.full(object)));
                }
            };
            let used = match self.used(object, &value) {
                Ok(used) => used,
                Err(why) => return Running::NoSet(why),
            };
            for used in used {
                if self.settings.is_record(object, &used.place.at) {
                    continue;
                }
                let image = used.image.clone();
                match self.add_running(&mut running, object, used) {
                    Ok(()) => {}
                    Err(_) if self.partial => drop(unpinned.insert(image)),
                    Err(why) => return Running::NoSet(why),
                }
            }
        }
        running.retain(|image, _| !unpinned.contains(image));
        Running::Images(running)
    }

    /// Adds the image of a place. An error says why the place belongs to no set of pinned images.
    fn add_running(
        &self,
        running: &mut BTreeMap<String, Pinned>,
        object: &ObjectName,
        used: Used,
    ) -> Result<(), String> {
        let Used { image, place, part } = used;
        let Some((registry, repository)) = self.repositories.get(&image) else {
            return Ok(());
        };
        let written = written_reference(&place.image);
        let (digest, named) = match part {
            Part::Pinned => (
                written.as_ref().and_then(|written| written.digest.clone()),
                written.map(|written| (self.names.registry(written.registry), written.repository)),
            ),
            Part::Digest => (place.image.parse().ok(), None),
            // Another place has the digest, if one has it.
            Part::Tag | Part::Name => return Ok(()),
        };
        let text = clean_text(&place.image, 200);
        let Some(digest) = digest else {
            let at = &place.name;
            return Err(format!("{at} of {object} runs {text}, which has no digest"));
        };
        if let Some(named) = named
            && named != (registry.clone(), repository.clone())
        {
            let at = &place.name;
            return Err(format!(
                "{at} of {object} runs {text}, another image than {registry}/{repository}"
            ));
        }
        let pinned = Pinned {
            registry: registry.clone(),
            repository: repository.clone(),
            digest,
        };
        let one = running.entry(image).or_insert_with(|| pinned.clone());
        match *one == pinned {
            true => Ok(()),
            false => Err(format!(
                "{} of {object} runs {text}, and another place runs {one}",
                place.name
            )),
        }
    }

    /// Returns an object as people name it in this cluster.
    fn full(&self, object: &ObjectName) -> String {
        let (cluster, namespace) = (self.cluster.name(), &self.settings.namespace);
        format!("{object} in namespace {namespace} of cluster {cluster}")
    }

    /// Returns the outcome of a request that has failed.
    fn outcome(&self, object: &ObjectName, problem: Problem) -> Outcome {
        let what = self.full(object);
        match problem {
            Problem::NotFound(why) => Outcome::Lacking(format!(
                "{what} is missing ({why}); create it, or correct objects"
            )),
            Problem::Forbidden(why) => Outcome::Lacking(format!(
                "Tagtrail's account has no right to change {what}: {why}; docs/kubernetes.md has the Role"
            )),
            Problem::Invalid(why) => {
                Outcome::Refused(format!("the change of {what} is refused: {why}"))
            }
            Problem::Busy { after, .. } => Outcome::Failed {
                error: format!("{what}: {problem}"),
                after,
            },
            problem => Outcome::Failed {
                error: format!("{what}: {problem}"),
                after: None,
            },
        }
    }
}

/// Returns whether a key can be added at this place: the value above it is a map.
fn parent(value: &Value, at: &str) -> bool {
    let above = at
        .rsplit_once('/')
        .and_then(|(above, _)| value.pointer(above));
    above.is_some_and(Value::is_object)
}

#[cfg(test)]
mod tests;
