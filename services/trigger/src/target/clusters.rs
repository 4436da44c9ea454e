//! The clusters of the file. Targets of one cluster share its connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use tagtrail_config::{Broken, File, Table};
use tagtrail_kubernetes::{Access, Cluster, check_kubeconfig};

use super::command::credentials;

/// Returns the clusters whose kubeconfig can't be used. Services begin without it, and read it at
/// each use.
pub(crate) fn unusable(file: &File) -> Vec<Broken> {
    let mut unusable = Vec::new();
    for entry in &file.cluster {
        let context = entry.context.as_ref().map(|context| context.get_ref());
        let Some(secret) = &entry.kubeconfig else {
            continue;
        };
        if let Err(why) = check_kubeconfig(secret, context.map(String::as_str)) {
            let (at, name) = (entry.name.span().start, entry.name.get_ref());
            let problem = file.error_at(at, "cluster.kubeconfig", why);
            unusable.push(Broken::new(Table::Cluster, name.to_string(), problem));
        }
    }
    unusable
}

/// The clusters, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clusters(BTreeMap<String, Arc<Cluster>>);

impl Clusters {
    /// Returns the clusters of the file. One that `before` has keeps its connections, unless its
    /// entry has changed.
    pub(crate) fn of(file: &File, before: Option<&Clusters>) -> Clusters {
        let mut clusters = BTreeMap::new();
        for entry in &file.cluster {
            let name = entry.name.get_ref().to_string();
            let access = Access {
                kubeconfig: entry.kubeconfig.clone(),
                context: entry
                    .context
                    .as_ref()
                    .map(|context| context.get_ref().clone()),
                hidden: credentials(file).into_iter().collect(),
            };
            let known = before.and_then(|before| before.0.get(&name)).cloned();
            let cluster = known.unwrap_or_else(|| Arc::new(Cluster::new(&name, access.clone())));
            // The targets that stay hold the same cluster.
            cluster.change(access);
            clusters.insert(name, cluster);
        }
        Clusters(clusters)
    }

    /// Returns the cluster with this name. An error says how to add it.
    pub(crate) fn named(&self, name: &str) -> Result<Arc<Cluster>, String> {
        self.0.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            let known = match known.as_slice() {
                [] => "the file has none".to_owned(),
                known => format!("known are {}", known.join(", ")),
            };
            format!("cluster: no entry [[cluster]] has the name {name:?}; {known}")
        })
    }
}
