//! Follows the files: tokens and names of registries change without a restart.

use std::sync::{Arc, PoisonError, RwLock};

use tagtrail_config::{File, Follower, Role, Token, Trigger};
use tagtrail_daemon::Context;
use tagtrail_proto::Name;

use crate::http::tokens::Tokens;
use crate::shared::Shared;

/// A value of the files, as it is now, and how often it was changed since the start.
#[derive(Debug)]
pub(crate) struct Current<T>(Arc<RwLock<(Arc<T>, u64)>>);

impl<T> Current<T> {
    pub(crate) fn new(value: T) -> Current<T> {
        Current(Arc::new(RwLock::new((Arc::new(value), 0))))
    }

    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    pub(crate) fn changes(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).1
    }

    fn set(&self, value: T) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = (Arc::new(value), current.1 + 1);
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Current<T> {
        Current(Arc::clone(&self.0))
    }
}

/// Reads the tokens, and logs the broken ones.
pub(crate) fn tokens(file: &File, metrics: &tagtrail_daemon::Metrics) -> Tokens {
    let (tokens, broken) = Tokens::read(file);
    metrics.config_errors("api", file.mistakes(&broken));
    for one in &broken {
        let name = one.name.as_deref().unwrap_or("?");
        tracing::error!(
            token = name,
            "token {name} is broken, and admits nobody: {}",
            one.problem
        );
    }
    for token in file.token.iter().filter(|token| carries(file, token)) {
        let name = token.name.get_ref();
        tracing::warn!(token = %name, "token {name} acts on {}", own_alone(name));
    }
    tokens
}

/// Returns whether a trigger of the files carries the name of a token without `triggers`.
pub(crate) fn carries(file: &File, token: &Token) -> bool {
    let own = token.own();
    let carries = |trigger: &Trigger| {
        own.iter()
            .any(|glob| glob.matches(trigger.name.get_ref().as_ref()))
    };
    let acts = matches!(token.role, Role::Operate | Role::Approve);
    acts && token.triggers.is_none() && file.trigger.iter().any(carries)
}

/// Returns the effect of triggers that carry the name of a token without `triggers`.
pub(crate) fn own_alone(token: &Name) -> String {
    format!(
        "triggers {token} and {token}-* alone, because they carry its name and it has no key `triggers`; write triggers = [\"*\"] for all"
    )
}

/// Follows the files until shutdown.
pub(crate) async fn follow(
    mut files: Follower,
    shared: Shared,
    ctx: Context,
) -> anyhow::Result<()> {
    loop {
        let file = tokio::select! {
            () = ctx.shutdown.cancelled() => return Ok(()),
            file = files.changed() => file,
        };
        shared.names.set(file.names().clone());
        shared.file.set(file.as_ref().clone());
        let now = tokens(&file, &ctx.metrics);
        // The routes that pages of other origins may read were decided at the start.
        if now.is_empty() != shared.tokens.get().is_empty() {
            tracing::warn!(
                "the first [[token]] was added, or the last one removed: the api goes on as before, until its restart"
            );
            continue;
        }
        shared.tokens.set(now);
        tracing::info!("read the changed files again");
    }
}
