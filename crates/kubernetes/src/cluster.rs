//! The connection to one cluster, and the requests that Tagtrail makes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Response;
use http_body_util::Limited;
use kube::api::{
    ApiResource, DeleteParams, ListParams, Patch, PatchParams, Preconditions, WatchParams,
};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::{Api, Client, Config};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tagtrail_config::{Secret, Stamp, stamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tower::util::MapResponseLayer;

use crate::object::{BuiltIn, ObjectName};
use crate::owners::MANAGER;
use crate::problem::Problem;
use crate::stuck::Pod;

/// The longest time for a connection, and for the answer to a request.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(15);
/// Most bytes of one answer, also of a watch, which then begins anew. An object has at most
/// 1.5 MiB.
const BYTES: usize = 32 * 1024 * 1024;
/// Most pods that are read to find the reason of a failure.
const PODS: u32 = 100;
/// Most objects that are watched at the same time: each watch keeps a connection open. Objects
/// beyond are read before each use.
pub(crate) const WATCHES: usize = 500;
/// Most watches that begin at the same time.
const BEGIN: usize = 4;

/// The way into a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The kubeconfig. `None`: the service account of the pod that this process runs in.
    pub kubeconfig: Option<Secret>,
    /// The context of the kubeconfig; `None`: its current one.
    pub context: Option<String>,
    /// Variables of the environment that a program named by the kubeconfig does not get.
    pub hidden: Vec<String>,
}

/// A cluster. Connections are opened at the first use, and stay open.
pub struct Cluster {
    name: String,
    state: Mutex<State>,
    /// Held while a connection is set up, which may run a program.
    connecting: Arc<tokio::sync::Mutex<()>>,
    watches: Arc<Semaphore>,
    beginning: Semaphore,
}

struct State {
    access: Access,
    connected: Option<Connected>,
    /// The number of connections so far.
    connections: u64,
    /// The resources that were asked for, by kind and group.
    resources: BTreeMap<(String, String), ApiResource>,
}

#[derive(Clone)]
pub(crate) struct Connected {
    pub(crate) number: u64,
    pub(crate) client: Client,
    /// The state of the file of the kubeconfig.
    stamp: Option<Stamp>,
}

impl Cluster {
    /// Returns the cluster with this name. Nothing is opened or read.
    #[must_use]
    pub fn new(name: &str, access: Access) -> Cluster {
        Cluster {
            name: name.to_owned(),
            state: Mutex::new(State {
                access,
                connected: None,
                connections: 0,
                resources: BTreeMap::new(),
            }),
            connecting: Arc::default(),
            watches: Arc::new(Semaphore::new(WATCHES)),
            beginning: Semaphore::new(BEGIN),
        }
    }

    /// The cluster's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes the way into the cluster. The next request opens a connection if it differs.
    pub fn change(&self, access: Access) {
        let mut state = self.locked();
        if state.access != access {
            state.access = access;
            state.connected = None;
            state.resources.clear();
        }
    }

    /// Returns a client. A kubeconfig whose file has changed is read again.
    pub(crate) async fn client(&self) -> Result<Client, Problem> {
        Ok(self.connected().await?.client)
    }

    pub(crate) async fn connected(&self) -> Result<Connected, Problem> {
        let known = |access: &Access| {
            let state = self.locked();
            let stamp = match &access.kubeconfig {
                Some(Secret::File(path)) => stamp(path).0,
                _ => None,
            };
            let known = state.connected.clone();
            let known = known.filter(|one| one.stamp == stamp && state.access == *access);
            (known, stamp)
        };
        let access = self.locked().access.clone();
        if let (Some(connected), _) = known(&access) {
            return Ok(connected);
        }
        let waiting = Arc::clone(&self.connecting).lock_owned();
        let turn = tokio::time::timeout(ANSWER, waiting).await;
        let turn = turn.map_err(|_| slow())?;
        let (connected, stamp) = known(&access);
        if let Some(connected) = connected {
            return Ok(connected);
        }
        let config = self.config(&access).await?;
        // A program that the kubeconfig names may take long. Its time counts as the time for an
        // answer, and no second one is started meanwhile.
        let setting_up = tokio::task::spawn_blocking(move || {
            let client = client(config);
            drop(turn);
            client
        });
        let client = tokio::time::timeout(ANSWER, setting_up).await;
        let client = client
            .map_err(|_| slow())?
            .map_err(|error| Problem::Unreachable(error.to_string()))?
            .map_err(|error| {
                let name = &self.name;
                Problem::Access(format!(
                    "cluster {name}: no connection can be set up: {error}"
                ))
            })?;
        let mut state = self.locked();
        state.connections += 1;
        let connected = Connected {
            number: state.connections,
            client,
            stamp,
        };
        if state.access == access {
            state.connected = Some(connected.clone());
        }
        Ok(connected)
    }

    /// Returns a connection for a watch, with its number.
    pub(crate) async fn connection(
        &self,
        namespace: &str,
        object: &ObjectName,
    ) -> Result<(u64, Api<DynamicObject>), Problem> {
        let connected = self.connected().await?;
        let resource = self.resource(&connected.client, object).await?;
        let api = Api::namespaced_with(connected.client, namespace, &resource);
        Ok((connected.number, api))
    }

    /// Returns whether new requests go over this connection. A changed kubeconfig ends it.
    pub(crate) async fn is_current(&self, connection: u64) -> Result<bool, Problem> {
        Ok(self.connected().await?.number == connection)
    }

    /// Returns the right to a further watch, if the cluster may have one.
    pub(crate) fn slot_of_watch(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.watches).try_acquire_owned().ok()
    }

    /// Waits until a watch may begin. `None` never comes, as the semaphore is never closed.
    pub(crate) async fn turn_of_watch(&self) -> Option<SemaphorePermit<'_>> {
        self.beginning.acquire().await.ok()
    }

    async fn config(&self, access: &Access) -> Result<Config, Problem> {
        let wrong =
            |why: &dyn fmt::Display| Problem::Access(format!("cluster {}: {why}", self.name));
        let mut config = match &access.kubeconfig {
            None => Config::incluster().map_err(|error| {
                wrong(&format!(
                    "this process does not run in a pod ({error}); give the entry [[cluster]] a `kubeconfig`"
                ))
            })?,
            Some(secret) => {
                let mut kubeconfig = read(secret).map_err(|why| wrong(&why))?;
                for user in &mut kubeconfig.auth_infos {
                    if let Some(exec) = user.auth_info.as_mut().and_then(|info| info.exec.as_mut()) {
                        exec.drop_env = Some(access.hidden.clone());
                    }
                }
                let options = KubeConfigOptions {
                    context: access.context.clone(),
                    ..KubeConfigOptions::default()
                };
                Config::from_custom_kubeconfig(kubeconfig, &options)
                    .await
                    .map_err(|error| wrong(&format!("the kubeconfig can't be used: {error}")))?
            }
        };
        config.connect_timeout = Some(CONNECT);
        // The caller waits and says so. Retries within an attempt would use up its time.
        config.default_retry = false;
        Ok(config)
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the resource of an object: known by heart, or asked from the API server once.
    pub(crate) async fn resource(
        &self,
        client: &Client,
        object: &ObjectName,
    ) -> Result<ApiResource, Problem> {
        let unknown = |group: &str| {
            let (name, kind) = (&self.name, &object.kind);
            Problem::NotFound(format!(
                "cluster {name} has no kind {kind} in the group {group}: install its CustomResourceDefinition"
            ))
        };
        let Some(group) = &object.group else {
            let known = BuiltIn::named(&object.kind).ok_or_else(|| unknown("apps"))?;
            let kind = GroupVersionKind::gvk(known.group, "v1", known.kind);
            return Ok(ApiResource::from_gvk_with_plural(&kind, known.plural));
        };
        let key = (object.kind.clone(), group.clone());
        if let Some(resource) = self.locked().resources.get(&key) {
            return Ok(resource.clone());
        }
        let found = match bounded(kube::discovery::group(client, group)).await {
            Err(Problem::NotFound(_)) => return Err(unknown(group)),
            found => found?,
        };
        let named = |resource: &ApiResource| {
            [resource.kind.to_lowercase(), resource.plural.clone()].contains(&object.kind)
        };
        let mut resources = found.recommended_resources().into_iter();
        let (resource, _) = resources
            .find(|(resource, _)| named(resource))
            .ok_or_else(|| unknown(group))?;
        self.locked().resources.insert(key, resource.clone());
        Ok(resource)
    }

    async fn api(
        &self,
        namespace: &str,
        object: &ObjectName,
    ) -> Result<Api<DynamicObject>, Problem> {
        let client = self.client().await?;
        let resource = self.resource(&client, object).await?;
        Ok(Api::namespaced_with(client, namespace, &resource))
    }

    /// Reads an object.
    ///
    /// # Errors
    /// If the cluster can't be reached, or refuses.
    pub async fn get(&self, namespace: &str, object: &ObjectName) -> Result<Value, Problem> {
        let api = self.api(namespace, object).await?;
        bounded(api.get(&object.name)).await.and_then(json)
    }

    /// Sends a JSON Patch (RFC 6902), with `dry_run` only to learn whether it would be accepted.
    /// Returns the object after the patch.
    ///
    /// # Errors
    /// If the cluster can't be reached, or refuses.
    pub async fn patch(
        &self,
        namespace: &str,
        object: &ObjectName,
        patch: &Value,
        dry_run: bool,
    ) -> Result<Value, Problem> {
        let api = self.api(namespace, object).await?;
        let patch: json_patch::Patch = serde_json::from_value(patch.clone())
            .map_err(|error| Problem::Access(format!("the patch is no JSON Patch: {error}")))?;
        let parameters = PatchParams {
            dry_run,
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::<()>::Json(patch);
        bounded(api.patch(&object.name, &parameters, &patch))
            .await
            .and_then(json)
    }

    /// Tries to watch an object, without waiting for a change.
    ///
    /// # Errors
    /// If the cluster can't be reached, or refuses.
    pub async fn may_watch(&self, namespace: &str, object: &ObjectName) -> Result<(), Problem> {
        let api = self.api(namespace, object).await?;
        let selector = format!("metadata.name={}", object.name);
        let listed = bounded(api.list(&ListParams::default().fields(&selector).limit(1))).await?;
        let version = listed.metadata.resource_version.unwrap_or_default();
        let parameters = WatchParams::default().fields(&selector).timeout(1);
        bounded(api.watch(&parameters, &version)).await.map(drop)
    }

    /// Applies fields to an object, without force: a field with another value of another owner is a
    /// conflict (409).
    ///
    /// # Errors
    /// If the cluster can't be reached, or refuses.
    pub async fn apply(
        &self,
        namespace: &str,
        object: &ObjectName,
        fields: &Value,
    ) -> Result<Value, Problem> {
        let api = self.api(namespace, object).await?;
        let parameters = PatchParams::apply(MANAGER);
        let patch = Patch::Apply(fields);
        bounded(api.patch(&object.name, &parameters, &patch))
            .await
            .and_then(json)
    }

    /// Writes the status of an object of a kind that has one, by a merge patch.
    ///
    /// # Errors
    /// If the cluster can't be reached, or refuses.
    pub async fn patch_status(
        &self,
        namespace: &str,
        object: &ObjectName,
        status: &Value,
    ) -> Result<(), Problem> {
        let api = self.api(namespace, object).await?;
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(serde_json::json!({"status": status}));
        bounded(api.patch_status(&object.name, &parameters, &patch))
            .await
            .map(drop)
    }

    /// Deletes a pod, if it still is this one. A pod that is gone is a success.
    ///
    /// # Errors
    /// If the cluster can't be reached, or refuses.
    pub async fn delete_pod(&self, namespace: &str, pod: &Pod) -> Result<(), Problem> {
        let kind = GroupVersionKind::gvk("", "v1", "Pod");
        let resource = ApiResource::from_gvk_with_plural(&kind, "pods");
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client().await?, namespace, &resource);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(pod.uid.clone()),
                ..Preconditions::default()
            }),
            ..DeleteParams::default()
        };
        match bounded(api.delete(&pod.name, &parameters)).await {
            Ok(_) | Err(Problem::NotFound(_)) => Ok(()),
            Err(problem) => Err(problem),
        }
    }

    /// Reads the pods that a selector of labels matches, at most 100.
    ///
    /// # Errors
    /// If the cluster can't be reached, or refuses.
    pub async fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Value>, Problem> {
        let kind = GroupVersionKind::gvk("", "v1", "Pod");
        let resource = ApiResource::from_gvk_with_plural(&kind, "pods");
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client().await?, namespace, &resource);
        let parameters = ListParams::default().labels(selector).limit(PODS);
        let pods = bounded(api.list(&parameters)).await?;
        pods.items.into_iter().map(json).collect()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({})", self.name)
    }
}

/// Waits for an answer, for a bounded time.
pub(crate) async fn bounded<T>(
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(answer) => answer.map_err(Problem::from),
        Err(_) => Err(slow()),
    }
}

/// Returns a client whose answers are bounded: kube keeps an answer, and each line of a watch, in
/// memory.
fn client(config: Config) -> Result<Client, kube::Error> {
    let bounded =
        MapResponseLayer::new(|answer: Response<_>| answer.map(|body| Limited::new(body, BYTES)));
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&bounded)
        .build())
}

fn slow() -> Problem {
    Problem::Unreachable(format!("none within {} s", ANSWER.as_secs()))
}

pub(crate) fn json(object: DynamicObject) -> Result<Value, Problem> {
    serde_json::to_value(object)
        .map_err(|error| Problem::Unreachable(format!("the answer is no object: {error}")))
}

/// Tries to read a kubeconfig, and looks for its context.
///
/// # Errors
/// If it can't be read, or lacks the context.
pub fn check_kubeconfig(secret: &Secret, context: Option<&str>) -> Result<(), String> {
    let kubeconfig = read(secret)?;
    let Some(context) = context.or(kubeconfig.current_context.as_deref()) else {
        return Err("the kubeconfig has no current context; name one by `context`".to_owned());
    };
    let known = kubeconfig.contexts.iter().map(|one| one.name.as_str());
    let known: Vec<&str> = known.collect();
    match known.contains(&context) {
        true => Ok(()),
        false => Err(format!(
            "the kubeconfig has no context {context:?}; known are {}",
            known.join(", ")
        )),
    }
}

/// Reads a kubeconfig. Relative paths in a file begin in its folder. No error holds its content.
fn read(secret: &Secret) -> Result<Kubeconfig, String> {
    match secret {
        Secret::File(path) => Kubeconfig::read_from(path).map_err(|error| {
            let why = match &error {
                // Its text names the file again.
                KubeconfigError::ReadConfig(error, _) => error.to_string(),
                error => error.to_string(),
            };
            format!("the kubeconfig {} can't be read: {why}", path.display())
        }),
        other => {
            let text = other.read().map_err(|error| error.to_string())?;
            Kubeconfig::from_yaml(text.expose_secret())
                .map_err(|_| format!("the kubeconfig of {other} is no YAML of a kubeconfig"))
        }
    }
}
