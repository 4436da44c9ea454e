//! `[[cluster]]`: the clusters that targets act on.

use serde::Deserialize;
use tagtrail_proto::Name;
use toml::Spanned;

use crate::Secret;
use crate::file::Mistake;

/// The access to a cluster of Kubernetes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The cluster's name in targets.
    pub name: Spanned<Name>,
    /// The kubeconfig. Without it: the cluster that Tagtrail runs in, by its service account.
    pub kubeconfig: Option<Secret>,
    /// The context of the kubeconfig. Without it: its current one.
    pub context: Option<Spanned<String>>,
}

impl Cluster {
    /// Checks the entry.
    pub(crate) fn check(&mut self) -> Result<(), Mistake> {
        match (&self.context, &self.kubeconfig) {
            (Some(context), None) => Err(Mistake {
                at: context.span().start,
                key: "cluster.context".to_owned(),
                message: "is a part of a kubeconfig, and the entry has none; add kubeconfig = { file = \"…\" }".to_owned(),
            }),
            _ => Ok(()),
        }
    }
}
