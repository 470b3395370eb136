//! Logs and traces. Logs go to standard error: those of commands as text, those of a worker as JSON unless standard
//! error is a terminal. Traces are sent by OTLP if an endpoint is configured; the trace context of a message is read
//! from its attributes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{IsTerminal, Write};
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
use tracing::{Dispatch, Event, Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, layer};

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// JSON for a worker whose log is not a terminal, otherwise text.
    #[default]
    Auto,
    Text,
    Json,
}

/// Who reads the log.
#[derive(Debug, Clone, Copy, Default)]
pub enum LogReader {
    /// Who runs a worker.
    #[default]
    Operator,
    /// Who gave a command. Text is one line per event, without the time. Lines about ended jobs are left out, because
    /// the command prints the result. The function writes a line to standard error where no progress bar is.
    Person(fn(&[u8])),
}

/// Settings of logs and traces.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lowest severity of log lines to show.
    pub level: String,
    pub format: LogFormat,
    pub reader: LogReader,
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
    let is_terminal = std::io::stderr().is_terminal();
    let text = match (options.format, options.reader) {
        (LogFormat::Auto, LogReader::Operator) => is_terminal,
        (LogFormat::Auto, LogReader::Person(_)) | (LogFormat::Text, _) => true,
        (LogFormat::Json, _) => false,
    };
    let context = Context::default();
    let colours = options.colours && is_terminal;
    let write = match options.reader {
        LogReader::Operator => write_to_stderr,
        LogReader::Person(write) => write,
    };
    let (lines, with_results) = match (text, options.reader) {
        (false, _) => {
            let lines = json_lines(context.clone(), options.project.clone(), write);
            (lines, true)
        }
        (true, LogReader::Operator) => (text_lines(colours), true),
        (true, LogReader::Person(_)) => (person_lines(colours, write), false),
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
                    .and(filter_fn(move |line| with_results || !is_result(line)))
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

/// Whether a line is about a job that has ended: only such lines have this field.
fn is_result(line: &tracing::Metadata<'_>) -> bool {
    line.is_event() && line.fields().field("failure_reason").is_some()
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

/// Lines for who gave a command.
fn person_lines<S: Subscriber + for<'a> LookupSpan<'a>>(
    colours: bool,
    write: fn(&[u8]),
) -> Lines<S> {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || LineWriter(write))
        .event_format(OneLine);
    layer.with_ansi(colours).boxed()
}

fn write_to_stderr(line: &[u8]) {
    // There is nowhere to report it.
    let _ = std::io::stderr().write_all(line);
}

/// Passes each line to a function.
struct LineWriter(fn(&[u8]));

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        (self.0)(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `warning: what happened field=value …`, with control characters escaped.
struct OneLine;

impl<S, N> FormatEvent<S, N> for OneLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (word, colour) = match *event.metadata().level() {
            Level::ERROR => ("error", "1;31"),
            Level::WARN => ("warning", "33"),
            Level::INFO => ("info", "2"),
            Level::DEBUG | Level::TRACE => ("debug", "2"),
        };
        if line.has_ansi_escapes() {
            write!(line, "\x1b[{colour}m{word}\x1b[0m: ")?;
        } else {
            write!(line, "{word}: ")?;
        }
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        for c in fields.chars() {
            if crate::error::is_unsafe(c) {
                write!(line, "{}", c.escape_default())?;
            } else {
                line.write_char(c)?;
            }
        }
        writeln!(line)
    }
}

/// JSON lines with the fields of docs/logging.md.
fn json_lines<S: Subscriber + for<'a> LookupSpan<'a>>(
    known: Context,
    project: Option<String>,
    write: fn(&[u8]),
) -> Lines<S> {
    let mut layer = JsonLayer::new(move || LineWriter(write));
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

    /// What a command's log shows: one line per event, escaped, and nothing of results, which the command prints.
    #[test]
    fn lines_for_a_person_are_short_and_safe() {
        static SHOWN: parking_lot::Mutex<Vec<u8>> = parking_lot::Mutex::new(Vec::new());
        let lines = person_lines(false, |line| SHOWN.lock().extend_from_slice(line));
        let log = tracing_subscriber::registry()
            .with(lines.with_filter(filter_fn(|line| !is_result(line))));
        tracing::subscriber::with_default(log, || {
            let _job = tracing::info_span!("restore", request_id = "r1").entered();
            tracing::warn!(name = "a\x1b[2Jb", "download interrupted");
            tracing::error!(failure_reason = "timeout", "the restore failed");
        });
        let shown = String::from_utf8(SHOWN.lock().clone()).unwrap();
        assert!(
            shown.starts_with("warning: download interrupted name="),
            "{shown}"
        );
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(!shown.contains('\x1b') && !shown.contains("r1"), "{shown}");
    }

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
