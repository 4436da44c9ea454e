//! All objects of a kind, seen by a watch of their metadata alone.

use std::time::Duration;

use futures_util::StreamExt as _;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::{DynamicObject, ObjectMeta};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cluster::{Cluster, bounded};
use crate::discovery;
use crate::object::ObjectName;
use crate::problem::Problem;

/// Objects of one page of a list.
const PAGE: u32 = 500;
/// The time after which the API server ends a watch, in seconds.
const LIFE: u32 = 290;
/// A watch that is silent for this long is dead: the API server marks its place every minute.
const SILENCE: Duration = Duration::from_secs(150);
/// A watch that ends sooner than this has failed.
const SHORT: Duration = Duration::from_secs(5);

/// The objects that are watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// The kind, and its group unless it is built in.
    pub kind: String,
    /// The API group of a custom resource.
    pub group: Option<String>,
    /// The namespace. `None`: all.
    pub namespace: Option<String>,
}

/// An object as its metadata show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The uid.
    pub uid: String,
    /// The number of the specification.
    pub generation: i64,
    /// The annotations and labels that [`discovery`] reads, as in an object's `metadata`.
    pub metadata: Value,
}

/// A message about objects.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// A list of all objects begins.
    Begin,
    /// An object is there, or has changed.
    There(Sighting),
    /// The object with this namespace and name is deleted.
    Gone(String, String),
    /// The list is complete: objects that it did not have are not there.
    End,
}

impl Scope {
    /// Returns the name of an object of this kind.
    #[must_use]
    pub fn object(&self, name: &str) -> ObjectName {
        ObjectName {
            kind: self.kind.clone(),
            group: self.group.clone(),
            name: name.to_owned(),
        }
    }
}

impl Cluster {
    /// Lists all objects of a kind, and follows their changes until something fails.
    ///
    /// # Errors
    /// The problem that ended the watch. Begin again after a pause.
    pub async fn follow(
        &self,
        scope: &Scope,
        news: &mpsc::Sender<News>,
    ) -> Result<std::convert::Infallible, Problem> {
        let turn = self.turn_of_watch().await;
        let connected = self.connected().await?;
        let resource = self.resource(&connected.client, &scope.object("")).await?;
        let api: Api<DynamicObject> = match &scope.namespace {
            Some(namespace) => Api::namespaced_with(connected.client, namespace, &resource),
            None => Api::all_with(connected.client, &resource),
        };
        let mut version = list(&api, news).await?;
        drop(turn);
        let parameters = WatchParams::default().timeout(LIFE);
        loop {
            // A changed kubeconfig ends the watch.
            if !self.is_current(connected.number).await? {
                return Err(Problem::Expired);
            }
            let begun = Instant::now();
            let mut events = Box::pin(bounded(api.watch_metadata(&parameters, &version)).await?);
            loop {
                let event = tokio::time::timeout(SILENCE, events.next()).await;
                let silent = |_| Problem::Unreachable("a watch fell silent".to_owned());
                match event.map_err(silent)? {
                    None if begun.elapsed() < SHORT => {
                        return Err(Problem::Unreachable("a watch ended at once".to_owned()));
                    }
                    None => break,
                    Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                        version = version_of(&object.metadata)?;
                        send(news, there(object.metadata)).await?;
                    }
                    Some(Ok(WatchEvent::Deleted(object))) => {
                        version = version_of(&object.metadata)?;
                        let ObjectMeta {
                            namespace, name, ..
                        } = object.metadata;
                        let gone =
                            News::Gone(namespace.unwrap_or_default(), name.unwrap_or_default());
                        send(news, gone).await?;
                    }
                    Some(Ok(WatchEvent::Bookmark(mark))) => {
                        version = mark.metadata.resource_version;
                    }
                    Some(Ok(WatchEvent::Error(status))) => {
                        return Err(kube::Error::Api(status).into());
                    }
                    Some(Err(error)) => return Err(error.into()),
                }
            }
        }
    }

    /// Tries to list and watch the objects of a kind, without waiting for a change.
    ///
    /// # Errors
    /// If the cluster can't be reached, or refuses.
    pub async fn may_follow(&self, scope: &Scope) -> Result<(), Problem> {
        let client = self.client().await?;
        let resource = self.resource(&client, &scope.object("")).await?;
        let api: Api<DynamicObject> = match &scope.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        let listed = bounded(api.list_metadata(&ListParams::default().limit(1))).await?;
        let version = listed.metadata.resource_version.unwrap_or_default();
        let parameters = WatchParams::default().timeout(1);
        bounded(api.watch_metadata(&parameters, &version))
            .await
            .map(drop)
    }
}

/// Lists all objects, page by page. Returns the version of the list.
async fn list(api: &Api<DynamicObject>, news: &mpsc::Sender<News>) -> Result<String, Problem> {
    send(news, News::Begin).await?;
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = bounded(api.list_metadata(&parameters)).await?;
        for object in page.items {
            send(news, there(object.metadata)).await?;
        }
        match page.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => parameters = parameters.continue_token(&more),
            None => {
                send(news, News::End).await?;
                return page.metadata.resource_version.ok_or_else(nameless);
            }
        }
    }
}

async fn send(news: &mpsc::Sender<News>, one: News) -> Result<(), Problem> {
    let ended = |_| Problem::Unreachable("nobody reads the news any more".to_owned());
    news.send(one).await.map_err(ended)
}

fn nameless() -> Problem {
    Problem::Unreachable("an answer about objects has no version".to_owned())
}

fn version_of(metadata: &ObjectMeta) -> Result<String, Problem> {
    metadata.resource_version.clone().ok_or_else(nameless)
}

fn there(metadata: ObjectMeta) -> News {
    News::There(Sighting {
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        metadata: discovery::relevant(
            &metadata.annotations.unwrap_or_default(),
            &metadata.labels.unwrap_or_default(),
        ),
    })
}
