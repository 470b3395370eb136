//! Logs and traces. Logs go to standard error, as text on a terminal and otherwise as JSON. Traces are
//! sent by OTLP if an endpoint is configured; the trace context of a message is read from its
//! attributes.

use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};

use json_subscriber::JsonLayer;
use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::dispatcher::WeakDispatch;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, layer};

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, otherwise JSON.
    #[default]
    Auto,
    Text,
    Json,
}

/// Settings of logs and traces.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lowest severity of log lines to show.
    pub level: String,
    pub format: LogFormat,
    pub colours: bool,
    /// Endpoint to send traces to.
    pub otlp_endpoint: Option<String>,
    pub service_name: String,
    /// Google Cloud project, for Cloud Logging's link from a line to its trace.
    pub project: Option<String>,
}

/// Flushes unsent traces on drop.
pub struct Telemetry {
    traces: SdkTracerProvider,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Err(e) = self.traces.shutdown() {
            eprintln!("failed to flush traces: {e}");
        }
    }
}

/// Targets of the crates of this workspace that write log lines and spans.
const OUR_CRATES: [&str; 3] = ["pgrestored", "pgdump_restore", "pgdump_archive"];

/// Applies the level of `pgrestored` also to its library crates, unless the filter names them.
fn with_library_crates(mut filter: EnvFilter) -> EnvFilter {
    let directives = filter.to_string();
    let of = |name: &str| {
        let mut all = directives.split(',');
        all.find_map(|d| Some(d.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    };
    let Some(level) = of(OUR_CRATES[0]) else {
        return filter;
    };
    for name in OUR_CRATES.iter().skip(1).filter(|name| of(name).is_none()) {
        if let Ok(directive) = format!("{name}={level}").parse() {
            filter = filter.add_directive(directive);
        }
    }
    filter
}

/// Sets up logs (`RUST_LOG` overrides the level) and traces. Without an endpoint no trace is sent, but
/// spans still exist, so that log lines and result events carry the publisher's trace.
///
/// # Errors
/// The exporter rejects its endpoint, or a subscriber is already installed.
pub fn start(options: &Options) -> Result<Telemetry, String> {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .with_env_var("RUST_LOG")
        .try_from_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,pgrestored={}", options.level)));
    let filter = with_library_crates(filter);
    let traces = tracer_provider(options)?;
    let text = match options.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let context = Context::default();
    let lines = if text {
        text_lines(options.colours && std::io::stderr().is_terminal())
    } else {
        json_lines(context.clone(), options.project.clone())
    };
    // Spans are created whatever the log level is.
    let spans = Targets::new().with_targets(OUR_CRATES.map(|name| (name, LevelFilter::INFO)));
    tracing_subscriber::registry()
        .with(
            tracing_opentelemetry::layer()
                .with_tracer(traces.tracer("pgrestored"))
                .with_filter(spans),
        )
        .with(context)
        .with(
            lines.with_filter(
                filter
                    .and(filter_fn(has_no_secrets))
                    .or(filter_fn(is_our_span)),
            ),
        )
        .try_init()
        .map_err(|e| e.to_string())?;
    Ok(Telemetry { traces })
}

/// Libraries log what passes through them: statements with their values, passwords and authentication
/// messages, tokens in headers. Therefore they are capped at `INFO` whatever `RUST_LOG` says, and the
/// PostgreSQL client, which logs the server's notices, at `WARN`.
fn has_no_secrets(metadata: &tracing::Metadata<'_>) -> bool {
    let of = |name: &str| metadata.target().split("::").next() == Some(name);
    match () {
        () if OUR_CRATES.iter().any(|name| of(name)) => true,
        () if of("tokio_postgres") || of("postgres_protocol") => *metadata.level() <= Level::WARN,
        () => *metadata.level() <= Level::INFO,
    }
}

/// Our spans pass the filter at every level, because log lines take their request and trace from them.
fn is_our_span(metadata: &tracing::Metadata<'_>) -> bool {
    let name = metadata.target().split("::").next().unwrap_or_default();
    metadata.is_span() && OUR_CRATES.contains(&name)
}

/// Looks up what a log line says about its span: the request, and the ids of the trace.
#[derive(Clone, Default)]
struct Context(Arc<OnceLock<WeakDispatch>>);

/// The value of a span's field `request_id`.
struct RequestId(String);

/// Extracts `request_id` from a span's fields.
#[derive(Default)]
struct FindRequestId(Option<String>);

impl tracing::field::Visit for FindRequestId {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "request_id" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Context {
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        let _ = self.0.set(dispatch.downgrade());
    }

    fn on_new_span(&self, fields: &Attributes<'_>, id: &Id, context: layer::Context<'_, S>) {
        let mut found = FindRequestId::default();
        fields.record(&mut found);
        remember(found, id, &context);
    }

    fn on_record(&self, id: &Id, fields: &Record<'_>, context: layer::Context<'_, S>) {
        let mut found = FindRequestId::default();
        fields.record(&mut found);
        remember(found, id, &context);
    }
}

fn remember<S: Subscriber + for<'a> LookupSpan<'a>>(
    found: FindRequestId,
    id: &Id,
    context: &layer::Context<'_, S>,
) {
    if let (Some(request), Some(span)) = (found.0, context.span(id)) {
        span.extensions_mut().replace(RequestId(request));
    }
}

impl Context {
    /// The trace id and span id of `span`.
    fn trace(&self, span: &Id) -> Option<(String, String)> {
        let dispatch = self.0.get()?.upgrade()?;
        let context = tracing_opentelemetry::get_otel_context(span, &dispatch)?;
        let span = context.span().span_context().clone();
        span.is_valid()
            .then(|| (span.trace_id().to_string(), span.span_id().to_string()))
    }
}

type Lines<S> = Box<dyn Layer<S> + Send + Sync>;

fn text_lines<S: Subscriber + for<'a> LookupSpan<'a>>(colours: bool) -> Lines<S> {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    layer.with_ansi(colours).boxed()
}

/// JSON lines with the fields of docs/logging.md.
fn json_lines<S: Subscriber + for<'a> LookupSpan<'a>>(
    known: Context,
    project: Option<String>,
) -> Lines<S> {
    let mut layer = JsonLayer::stderr();
    layer.with_timer("time", tracing_subscriber::fmt::time::SystemTime);
    layer.add_multiple_dynamic_fields(move |event, context, line| {
        let severity = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            Level::DEBUG | Level::TRACE => "DEBUG",
        };
        // Errors are ignored: reporting one would need another log line.
        let _ = line.write_field("severity", severity);
        let Some(span) = context.event_span(event) else {
            return;
        };
        let request = span
            .scope()
            .find_map(|s| s.extensions().get::<RequestId>().map(|r| r.0.clone()));
        if let Some(request) = request {
            let _ = line.write_field("request_id", request);
        }
        let Some((trace, span)) = known.trace(&span.id()) else {
            return;
        };
        if let Some(project) = &project {
            let name = format!("projects/{project}/traces/{trace}");
            let _ = line.write_field("logging.googleapis.com/trace", name);
        }
        let _ = line.write_field("trace_id", trace);
        let _ = line.write_field("span_id", span);
    });
    layer.with_flattened_event();
    layer.boxed()
}

fn tracer_provider(options: &Options) -> Result<SdkTracerProvider, String> {
    use opentelemetry_otlp::WithExportConfig;
    let resource = opentelemetry_sdk::Resource::builder()
        .with_service_name(options.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder().with_resource(resource);
    let Some(endpoint) = &options.otlp_endpoint else {
        return Ok(provider.build());
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|e| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {e}"))?;
    Ok(provider.with_batch_exporter(exporter).build())
}

struct Incoming<'a>(&'a HashMap<String, String>);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let found = self
            .0
            .get(key)
            .or_else(|| self.0.get(&format!("googclient_{key}")));
        found.map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// Longest trace state that is passed on, in bytes; W3C Trace Context asks for at least 512.
const MAX_TRACE_BYTES: usize = 512;

struct Outgoing<'a>(&'a mut BTreeMap<String, String>);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        // A publisher's trace state may be longer than an attribute may be.
        if !value.is_empty() && value.len() <= MAX_TRACE_BYTES {
            self.0.insert(format!("googclient_{key}"), value.clone());
            self.0.insert(key.to_owned(), value);
        }
    }
}

/// Makes `span` a child of the publisher's span, if the message carries one.
pub fn follow(span: &Span, attributes: &HashMap<String, String>) {
    let parent = TraceContextPropagator::new().extract(&Incoming(attributes));
    // Fails only without a trace layer; then there is no trace.
    let _ = span.set_parent(parent);
}

/// Id of the current span's trace; `None` without a trace layer.
pub fn trace_id() -> Option<String> {
    let context = Span::current().context();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| span.trace_id().to_string())
}

/// Writes the current span's context into a message's attributes, in both documented forms.
pub fn inject(attributes: &mut BTreeMap<String, String>) {
    TraceContextPropagator::new()
        .inject_context(&Span::current().context(), &mut Outgoing(attributes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_level_applies_to_its_library_crates() {
        let filter = |text: &str| with_library_crates(EnvFilter::new(text)).to_string();
        for name in OUR_CRATES {
            assert!(filter("warn,pgrestored=debug").contains(&format!("{name}=debug")));
        }
        let named = filter("pgrestored=debug,pgdump_restore=trace");
        assert!(named.contains("pgdump_restore=trace") && !named.contains("pgdump_restore=debug"));
        assert_eq!(filter("info"), "info");
    }
}
