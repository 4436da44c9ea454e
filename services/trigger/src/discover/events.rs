//! Events on annotated objects: their mistakes, and remarks for people.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tagtrail_kubernetes::{Event, Problem};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::write::Told;
use super::{Known, full};
use crate::settings::Settings;
use crate::target::Clusters;

/// Most events that are on their way.
const AT_ONCE: usize = 20;
/// Most events that are remembered as sent.
const REMEMBERED: usize = 10_000;
/// The time after which an event is sent again: an API server forgets events after an hour.
const AGAIN: Duration = Duration::from_secs(3600);

/// The events that were sent.
#[derive(Default)]
pub(super) struct Events {
    sent: BTreeMap<(String, String), Instant>,
    sending: JoinSet<()>,
    /// Whether a missing right was logged.
    refused: Arc<AtomicBool>,
}

impl Events {
    /// Tells all mistakes and remarks that were not told within the last hour.
    pub(super) fn tell_all(&mut self, settings: &Settings, known: &Known) {
        let mut told = Vec::new();
        for (key, row) in known.locked().iter() {
            let problem = settings.problems.get(&row.trigger);
            let problem = problem.filter(|problem| problem.broken && row.objection().is_none());
            let texts = row.objection().into_iter();
            let texts = texts.chain(problem.map(|problem| &problem.text));
            for text in texts.chain(&row.warnings) {
                told.push(Told {
                    key: key.clone(),
                    uid: row.uid.clone(),
                    text: text.clone(),
                });
            }
        }
        for one in told {
            self.tell(&settings.clusters, one);
        }
    }

    /// Sends an event in the background. One that finds no place comes with the next look.
    pub(super) fn tell(&mut self, clusters: &Clusters, told: Told) {
        while self.sending.try_join_next().is_some() {}
        let Told { key, uid, text } = told;
        let place = full(&key);
        let of = (place.clone(), text.clone());
        let fresh = |at: &Instant| at.elapsed() < AGAIN;
        if self.sent.get(&of).is_some_and(fresh) || self.sending.len() >= AT_ONCE {
            return;
        }
        let Ok(cluster) = clusters.named(&key.cluster) else {
            return;
        };
        if self.sent.len() >= REMEMBERED {
            // The API server finds repetitions by the names of events.
            self.sent.clear();
        }
        self.sent.insert(of, Instant::now());
        let refused = Arc::clone(&self.refused);
        self.sending.spawn(async move {
            let event = Event {
                reason: "TagtrailAnnotations",
                warning: true,
                cause: text.clone(),
                note: text,
            };
            let sent = cluster.record(&key.namespace, (&key.object, &uid), &event, false);
            let Err(problem) = sent.await else { return };
            let line = format!("an event on {place} is not recorded: {problem}");
            match problem {
                Problem::Forbidden(_) if !refused.swap(true, Ordering::Relaxed) => {
                    tracing::warn!("{line}; docs/kubernetes.md has the right");
                }
                _ => tracing::debug!("{line}"),
            }
        });
    }
}
