//! Target `webhook`: a request to a URL, signed or with credentials of the receiver.

mod caller;
mod probe;
mod settings;
mod template;

use std::borrow::Cow;

use tagtrail_config::{File, Trigger};

use super::address::Allowed;
use super::clusters::Clusters;
use super::contract::{
    ConfigureResult, Order, Seen, Target, TargetFuture, TargetKind, TargetProblem,
};
use crate::act::Place;
use crate::store::looks::{Report, ReportState};
use caller::ROLLOUTS;
pub(super) use probe::Probe;
use settings::Answer;
use tagtrail_policy::retry::Outcome;
pub(super) use template::sample;

pub(crate) use caller::{Caller, Words};
pub(crate) use settings::Settings;
pub(crate) use template::Template;

pub(super) const WEBHOOK: TargetKind = TargetKind {
    name: "webhook",
    configure,
    tells: false,
    setup: "The receiver checks each request by Standard Webhooks 1.0 with the same secret, or by the token in \
            `url` or `headers`, ignores a webhook-id that it has seen, and answers 2xx within \
            `timeout_seconds` (30 s); after any other answer but 410 the rollout is retried.",
};

/// Most attempts at one server at the same time.
const AT_ONE_SERVER: usize = 250;

/// A receiver of rollouts.
struct WebhookTarget {
    caller: Caller,
    /// `None`: the body is the event.
    template: Option<Template>,
}

fn configure(
    value: &toml::Value,
    trigger: &Trigger,
    (file, _): (&File, &Clusters),
) -> ConfigureResult {
    let settings = Settings::parse(value, trigger.folder())?;
    let usual = match settings.has_body() {
        true => "application/json",
        false => tagtrail_proto::CONTENT_TYPE,
    };
    let template = settings.template(usual, || Ok(vec![sample(trigger)?]))?;
    let of = format!("target.webhook of trigger {}", trigger.name.get_ref());
    Ok(Box::new(WebhookTarget {
        caller: Caller::new(settings, usual, of, ROLLOUTS, Allowed::of(trigger, file))?,
        template,
    }))
}

impl Target for WebhookTarget {
    fn apply<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Outcome> {
        Box::pin(self.post(order))
    }

    fn observe<'a>(&'a self, order: &'a Order) -> TargetFuture<'a, Seen> {
        let seen = match self.caller.done() {
            Answer::Accepted => Seen::Healthy,
            Answer::Reported => reported(order.report.as_ref()),
        };
        Box::pin(std::future::ready(seen))
    }

    fn reports(&self) -> bool {
        self.caller.done() == Answer::Reported
    }

    fn place(&self) -> Place {
        Place {
            kind: WEBHOOK.name,
            part: Some(self.caller.server()),
            at_once: AT_ONE_SERVER,
        }
    }

    fn identity(&self) -> String {
        self.caller.identity().to_owned()
    }

    fn judge(&self) -> Vec<TargetProblem> {
        self.caller.judge()
    }

    fn try_out(&self) -> TargetFuture<'_, Vec<TargetProblem>> {
        Box::pin(self.caller.connect())
    }
}

impl WebhookTarget {
    /// Returns the body: the same bytes at each attempt.
    fn body<'a>(&self, order: &'a Order) -> Result<Cow<'a, [u8]>, String> {
        match &self.template {
            Some(template) => template.render(&order.body).map(Cow::Owned),
            None => Ok(Cow::Borrowed(&order.body)),
        }
    }

    async fn post(&self, order: &Order) -> Outcome {
        let body = match self.body(order) {
            Ok(body) => body,
            Err(why) => return Outcome::Refused(format!("the body can't be made: {why}")),
        };
        let (id, body) = (&order.rollout.id, body.into_owned());
        let trace = Some(&order.trace);
        match self.caller.send(id, body, trace, &order.said).await {
            Outcome::Done if self.reports() => Outcome::Applied,
            outcome => outcome,
        }
    }
}

/// Returns the result that the receiver reported.
fn reported(report: Option<&Report>) -> Seen {
    let Some(Report { state, text, .. }) = report else {
        return Seen::Progressing("the receiver has reported no result yet".to_owned());
    };
    let text = match text {
        Some(text) => format!(": {text}"),
        None => String::new(),
    };
    match state {
        ReportState::Succeeded => Seen::Healthy,
        ReportState::Progressing => {
            Seen::Progressing(format!("the receiver reported progress{text}"))
        }
        ReportState::Failed => Seen::Failed(format!("the receiver reported a failure{text}")),
    }
}

#[cfg(test)]
mod tests;
