//! Traces: the path of a push through all processes, as an OpenTelemetry trace.
//!
//! Every step passes its context on, even if traces are not exported, so that a target can name the
//! request that began a rollout.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tagtrail_proto::TraceContext;

pub use opentelemetry::trace::SpanKind;

/// The options of traces.
#[derive(Debug, Clone, clap::Args)]
pub struct TraceArgs {
    /// Address to which traces are sent, by OTLP over HTTP, such as `http://collector:4318`
    /// [default: nowhere].
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Share of the traces begun by this process that are sent, from 0 to 1.
    #[arg(
        long,
        env = "OTEL_TRACES_SAMPLER_ARG",
        default_value_t = 1.0,
        value_name = "RATIO"
    )]
    pub trace_ratio: f64,
}

/// The tracer; not set if traces are not exported.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The sender of spans. [`Exporter::stop`] sends the last spans before the process ends.
#[derive(Debug, Default)]
pub(crate) struct Exporter(Option<SdkTracerProvider>);

impl Exporter {
    /// Starts to export, if an address is configured.
    pub(crate) fn start(args: &TraceArgs, service: &'static str) -> anyhow::Result<Exporter> {
        let Some(endpoint) = &args.otlp_endpoint else {
            return Ok(Exporter(None));
        };
        // By the specification, the variable holds the base of the URL and traces have a path
        // below.
        let endpoint = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&endpoint)
            .with_timeout(Duration::from_secs(5))
            .build()
            .with_context(|| format!("--otlp-endpoint: can't send traces to {endpoint}"))?;
        let resource = Resource::builder()
            .with_service_name(format!("tagtrail-{service}"))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let sampler = Sampler::TraceIdRatioBased(args.trace_ratio.clamp(0.0, 1.0));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(sampler)))
            .build();
        let _ = TRACER.set(provider.tracer("tagtrail"));
        tracing::info!("sending traces to {endpoint}");
        Ok(Exporter(Some(provider)))
    }

    /// Sends the remaining spans, for two seconds at most.
    pub(crate) fn stop(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown_with_timeout(Duration::from_secs(2))
        {
            tracing::warn!("the last traces may be lost: {error}");
        }
    }
}

/// One step of a trace, which ends when the span is dropped.
#[derive(Debug)]
pub struct Span {
    context: TraceContext,
    exported: Option<opentelemetry_sdk::trace::Span>,
}

impl Span {
    /// Begins a step that `parent` caused, or a new trace without one.
    #[must_use]
    pub fn start(name: &'static str, kind: SpanKind, parent: Option<&TraceContext>) -> Span {
        let exported = TRACER.get().map(|tracer| {
            let builder = tracer.span_builder(name).with_kind(kind);
            match parent {
                Some(parent) => tracer.build_with_context(builder, &remote(parent)),
                None => tracer.build_with_context(builder, &Context::new()),
            }
        });
        let context = match exported.as_ref().map(|span| span.span_context()) {
            Some(own) if own.is_valid() => TraceContext {
                trace: u128::from_be_bytes(own.trace_id().to_bytes()),
                parent: u64::from_be_bytes(own.span_id().to_bytes()),
                sampled: own.is_sampled(),
            },
            _ => random_context(parent),
        };
        Span { context, exported }
    }

    /// Returns the context that this step passes to the steps that it causes.
    #[must_use]
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// Sets an attribute, named by OpenTelemetry's semantic conventions where they have a name.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.exported {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Marks the step as failed.
    pub fn fail(&mut self, why: &dyn std::fmt::Display) {
        if let Some(span) = &mut self.exported {
            span.set_status(Status::error(why.to_string()));
        }
    }
}

fn remote(parent: &TraceContext) -> Context {
    let flags = if parent.sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from_bytes(parent.trace.to_be_bytes()),
        SpanId::from_bytes(parent.parent.to_be_bytes()),
        flags,
        true,
        TraceState::default(),
    ))
}

/// Returns a random context, for a step that is not exported.
fn random_context(parent: Option<&TraceContext>) -> TraceContext {
    // Zero is not allowed, and occurs once in 2^64.
    let step = rand::random::<u64>().max(1);
    match parent {
        Some(parent) => parent.child(step),
        None => TraceContext {
            trace: rand::random::<u128>().max(1),
            parent: step,
            sampled: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_belongs_to_the_trace_of_its_parent() {
        let first = Span::start("hook", SpanKind::Server, None);
        let second = Span::start("record", SpanKind::Consumer, Some(first.context()));
        assert_eq!(first.context().trace, second.context().trace);
        assert_ne!(first.context().parent, second.context().parent);
        let other = Span::start("hook", SpanKind::Server, None);
        assert_ne!(first.context().trace, other.context().trace);
    }
}
