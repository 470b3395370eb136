//! Logs and traces. Logs go to standard error: for people on a terminal, else as JSON. Traces go out
//! by OTLP where an endpoint is configured; the context of a message is read from its attributes.

use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::prelude::*;

/// Flushes what is not sent yet when dropped.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.traces
            && let Err(e) = provider.shutdown()
        {
            eprintln!("traces could not be flushed: {e}");
        }
    }
}

/// Sets up logs at `level` and above (`RUST_LOG` overrides it) and, with an endpoint, traces.
///
/// # Errors
/// What the exporter says of its endpoint.
pub fn start(level: &str, otlp_endpoint: Option<&str>) -> Result<Telemetry, String> {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::WARN.into())
        .with_env_var("RUST_LOG")
        .try_from_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("warn,pgrestored={level}")));
    let traces = otlp_endpoint.map(tracer_provider).transpose()?;
    let people = std::io::stderr().is_terminal();
    let pretty =
        people.then(|| tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false));
    let json = (!people).then(|| {
        tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .with_target(false)
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(pretty)
        .with(json)
        .with(traces.as_ref().map(|p| tracing_opentelemetry::layer().with_tracer(p.tracer("pgrestored"))))
        .try_init()
        .map_err(|e| e.to_string())?;
    Ok(Telemetry { traces })
}

fn tracer_provider(endpoint: &str) -> Result<SdkTracerProvider, String> {
    use opentelemetry_otlp::WithExportConfig;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|e| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {e}"))?;
    let resource = opentelemetry_sdk::Resource::builder().with_service_name("pgrestored").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

struct Incoming<'a>(&'a HashMap<String, String>);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.get(key).or_else(|| self.0.get(&format!("googclient_{key}")));
        found.map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

struct Outgoing<'a>(&'a mut BTreeMap<String, String>);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if !value.is_empty() {
            self.0.insert(format!("googclient_{key}"), value.clone());
            self.0.insert(key.to_owned(), value);
        }
    }
}

/// Makes `span` a child of the publisher's span, if the message carries one.
pub fn follow(span: &Span, attributes: &HashMap<String, String>) {
    let parent = TraceContextPropagator::new().extract(&Incoming(attributes));
    // Without a trace layer there is nothing to follow.
    let _ = span.set_parent(parent);
}

/// Writes the current span's context into a message's attributes, in both documented forms.
pub fn inject(attributes: &mut BTreeMap<String, String>) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut Outgoing(attributes));
}
