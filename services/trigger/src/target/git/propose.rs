//! Proposals: commits to a branch of the trigger, for a pull request.

use tagtrail_failpoint::FailPoint;
use tagtrail_policy::retry::Outcome;

use super::clone::Pushed;
use super::clones::Waiting;
use super::edits::{Edited, edit};
use super::files::Loaded;
use super::message::{BASE, message};
use super::program::Problem;
use super::turn::{Tries, Turn, part};

impl Turn<'_> {
    /// Pushes the changes to the branch of the trigger, again if others pushed meanwhile.
    pub(super) async fn propose(&self, one: &mut Waiting) -> Result<(), Problem> {
        let mut tries = Tries::default();
        loop {
            match self.proposal(one).await {
                Ok(Pushed::Done) => return Ok(()),
                Ok(Pushed::Refused(why)) => return self.refused(&mut [one], &why).await,
                Ok(Pushed::Raced) if tries.race().await => {}
                Ok(Pushed::Raced) => return Ok(()),
                Err(problem) => tries.problem(self, problem)?,
            }
        }
    }

    /// Makes one try. A proposal of Tagtrail alone is made anew from the branch; to one with
    /// commits of people, a commit is added.
    async fn proposal(&self, one: &mut Waiting) -> Result<Pushed, Problem> {
        let base = self.clone.fetch(&self.place.branch).await?;
        let Some((files, changes)) = self.edited(one, &base, "branch").await? else {
            return Ok(Pushed::Done);
        };
        let branch = format!("tagtrail/{}", one.job.order.rollout.trigger);
        let (mut files, mut changes, mut parent, mut over) = (files, changes, base.clone(), None);
        match self.clone.head(&branch).await? {
            None => over = Some(String::new()),
            Some(_) => {
                let tip = self.clone.fetch(&branch).await?;
                let Some(on_top) = self.edited(one, &tip, "proposal").await? else {
                    return Ok(Pushed::Done);
                };
                if self.is_ours(&tip).await? {
                    over = Some(tip);
                } else {
                    (files, changes) = on_top;
                    parent = tip;
                }
            }
        }
        let of = over.as_ref().map(|_| base.as_str());
        let message = message(&[part(&one.job)], of);
        let commit = self
            .clone
            .commit(&parent, &files.changed(), &message)
            .await?;
        FailPoint::TriggerCommitted.pass();
        let pushed = self.clone.push(&commit, &branch, over.as_deref()).await?;
        if pushed == Pushed::Done {
            let lines = format!(
                "{}\ncommit {commit} of branch {branch}\n",
                changes.join("\n")
            );
            one.job.order.said.push(lines.as_bytes());
            one.answer(Outcome::Done);
        }
        Ok(pushed)
    }

    /// Returns the files to change in a commit. `None`: the job has its outcome.
    async fn edited(
        &self,
        one: &mut Waiting,
        commit: &str,
        what: &str,
    ) -> Result<Option<(Loaded, Vec<String>)>, Problem> {
        let mut files = Loaded::default();
        let loading = files.load(&self.clone, commit, &one.job.settings);
        let found = match loading.await? {
            Ok(()) => edit(&one.job.wanted(), files.contents()),
            Err(why) => Err(why),
        };
        Ok(match found {
            Err(why) => {
                one.answer(Outcome::Refused(format!("{}: {why}", self.place)));
                None
            }
            Ok(Edited { files, .. }) if files.is_empty() => {
                let line = format!("the {what} had the images already\n");
                one.job.order.said.push(line.as_bytes());
                one.answer(Outcome::Done);
                None
            }
            Ok(Edited {
                files: changed,
                changes,
                ..
            }) => {
                files.change(changed);
                Some((files, changes))
            }
        })
    }

    /// Returns whether a proposal is one commit of Tagtrail on the branch, so that nothing of
    /// people is lost with it.
    async fn is_ours(&self, tip: &str) -> Result<bool, Problem> {
        let commit = self.clone.content(tip).await?;
        let parents: Vec<&str> = commit
            .lines()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.strip_prefix("parent "))
            .collect();
        let base = commit
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(BASE));
        Ok(base.is_some_and(|base| parents == [base]))
    }
}
