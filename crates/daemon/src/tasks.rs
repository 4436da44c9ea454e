//! The tasks of a process. A task that ends by itself ends the process.

use std::collections::HashMap;

use anyhow::{Context as _, anyhow};
use tokio::task::{Id, JoinSet};

use crate::{Context, until};

/// A set of named tasks.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Returns an empty set.
    #[must_use]
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// Starts a task, which must run until a stop is requested.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until the shutdown of `ctx` has fired and all tasks have ended. A task that ends
    /// earlier, with or without an error, ends all tasks: a process that has lost a part must not
    /// look alive.
    ///
    /// # Errors Names the task that ended too early, failed, panicked, or did not stop within the
    /// stop time of
    /// `ctx`.
    pub async fn join(mut self, ctx: &Context) -> anyhow::Result<()> {
        let Context {
            shutdown,
            stop_time,
            ..
        } = ctx;
        let mut deadline = None;
        while !self.set.is_empty() {
            let ended = tokio::select! {
                biased;
                () = shutdown.cancelled(), if deadline.is_none() => {
                    deadline = Some(tokio::time::Instant::now() + stop_time.get());
                    continue;
                }
                () = until(deadline) => {
                    let mut left: Vec<_> = self.names.values().copied().collect();
                    left.sort_unstable();
                    return Err(anyhow!("still running {:?} after the request to stop: {}", stop_time.get(), left.join(", ")));
                }
                Some(ended) = self.set.join_next_with_id() => ended,
            };
            let (id, outcome) = match ended {
                Ok((id, outcome)) => (id, outcome),
                Err(panic) => (panic.id(), Err(anyhow!("panicked: {panic}"))),
            };
            let name = self.names.remove(&id).unwrap_or("?");
            outcome.with_context(|| format!("the task {name:?} failed"))?;
            if deadline.is_none() && !shutdown.is_cancelled() {
                return Err(anyhow!("the task {name:?} ended by itself"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn outcome(task: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> String {
        let mut tasks = Tasks::new();
        tasks.spawn("other", std::future::pending());
        tasks.spawn("this", task);
        format!("{:#}", tasks.join(&Context::default()).await.unwrap_err())
    }

    #[tokio::test]
    async fn a_task_that_ends_ends_all_tasks() {
        assert_eq!(
            outcome(async { Ok(()) }).await,
            r#"the task "this" ended by itself"#
        );
        assert_eq!(
            outcome(async { Err(anyhow!("no")) }).await,
            r#"the task "this" failed: no"#
        );
        assert!(
            outcome(async { panic!("oh") })
                .await
                .starts_with(r#"the task "this" failed: panicked"#)
        );
    }

    #[tokio::test]
    async fn tasks_that_stop_on_request_are_no_failure() {
        let (ctx, mut tasks) = (Context::default(), Tasks::new());
        let asked = ctx.shutdown.clone();
        tasks.spawn("polite", async move {
            asked.cancelled().await;
            Ok(())
        });
        ctx.shutdown.cancel();
        tasks.join(&ctx).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_named() {
        let (ctx, mut tasks) = (Context::default(), Tasks::new());
        tasks.spawn("stubborn", std::future::pending());
        ctx.shutdown.cancel();
        let error = tasks.join(&ctx).await.unwrap_err().to_string();
        assert!(error.ends_with("stubborn"), "{error}");
    }
}
