//! `reference`: generates the pages of `docs/reference` from the code; `man`: generates the man pages.

use std::fmt::Write as _;
use std::path::Path;

use super::exit::{CommandResult, Exit};
use super::files;
use super::schema;
use crate::error::{FailureReason, RetryClass};
use crate::metrics::RestoreMetricsManager;

/// Header of generated pages.
const NOTE: &str = "<!-- Generated from the code by `make reference`. -->";

/// Writes the pages of `docs/reference` from the definition of the command line.
pub(super) fn write(cli: &clap::Command, folder: &Path) -> CommandResult {
    files::create_folder(folder)?;
    for (name, title, body) in [
        ("configuration", "Configuration", configuration(cli)),
        ("commands", "Commands", commands(cli)),
        ("metrics", "Metrics", metrics()),
        ("failure-reasons", "Failure reasons", failure_reasons()),
        ("exit-codes", "Exit codes", exit_codes()),
        ("schemas", "Documents and their schemas", schemas()),
    ] {
        files::write(
            &folder.join(format!("{name}.md")),
            format!("{NOTE}\n\n# {title}\n\n{body}"),
        )?;
    }
    Ok(Exit::Ok)
}

/// Writes `pgrestored.1` and a page for each command.
pub(super) fn man(cli: clap::Command, folder: &Path) -> CommandResult {
    files::create_folder(folder)?;
    let written = clap_mangen::generate_to(cli, folder);
    written.map_err(|e| files::fault(folder, "written", &e))?;
    Ok(Exit::Ok)
}

/// Escapes text for a table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('\n', " ")
        .replace('<', "&lt;")
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut out = line(head.iter().map(|h| (*h).to_owned()).collect());
    out += &line(head.iter().map(|_| "---".to_owned()).collect());
    rows.into_iter().for_each(|row| out += &line(row));
    out
}

/// Splits `[default: …]` off the help text.
fn split_default(help: &str) -> (&str, &str) {
    match help.rsplit_once(" [default: ") {
        Some((text, rest)) => (text, rest.trim_end_matches(']')),
        None => (help, ""),
    }
}

fn code(text: &str) -> String {
    if text.is_empty() {
        "–".into()
    } else {
        format!("`{text}`")
    }
}

fn configuration(cli: &clap::Command) -> String {
    let rows = cli.get_arguments().filter_map(|arg| {
        let (variable, flag) = (arg.get_env()?.to_str()?, arg.get_long()?);
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let (meaning, default) = split_default(&help);
        let flags = std::iter::once(flag).chain(arg.get_visible_aliases().into_iter().flatten());
        let flags: Vec<String> = flags.map(|f| format!("`--{f}`")).collect();
        Some(vec![
            format!("`{variable}`"),
            flags.join(" "),
            cell(meaning),
            code(default),
        ])
    });
    let head = "Every variable is also a flag; flags override variables. `NAME_FILE` reads a secret from a file. \
                Durations look like `90s`, `10m`, `12h` or `7d`. `pgrestored check` prints the effective configuration, or all \
                of its errors at once.\n\n";
    let otel = "\nTraces are sent by OTLP over gRPC if `OTEL_EXPORTER_OTLP_ENDPOINT` is set. The SDK's other `OTEL_*` variables \
                apply too: `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TIMEOUT`, `OTEL_RESOURCE_ATTRIBUTES`, \
                `OTEL_SERVICE_NAME`, `OTEL_BSP_*`. `RUST_LOG` filters log lines by module.\n";
    format!(
        "{head}{}{otel}",
        table(&["variable", "flag", "meaning", "default"], rows)
    )
}

fn commands(cli: &clap::Command) -> String {
    let mut out = "`pgrestored COMMAND --help` prints the same, and `pgrestored man FOLDER` writes man pages. Every command also \
                   accepts the flags of the [configuration](configuration.md).\n"
        .to_owned();
    let mut top = cli.clone();
    top.build();
    for command in top
        .get_subcommands()
        .filter(|c| !c.is_hide_set() && c.get_name() != "help")
    {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n## {}\n\n{}\n\n", command.get_name(), about(command));
        let inner: Vec<_> = command
            .get_subcommands()
            .filter(|c| c.get_name() != "help")
            .collect();
        for c in &inner {
            let _ = writeln!(
                out,
                "- `{} {}`: {}",
                command.get_name(),
                c.get_name(),
                about(c)
            );
        }
        let own = command
            .get_arguments()
            .filter(|a| a.get_env().is_none() && !a.is_global_set());
        let rows: Vec<_> = own
            .filter(|a| !["help", "version"].contains(&a.get_id().as_str()) && !a.is_hide_set())
            .map(|a| {
                let name = match a.get_long() {
                    Some(long) => format!("`--{long}`"),
                    None => format!("`{}`", a.get_id().as_str().to_uppercase()),
                };
                let help = a.get_help().map(ToString::to_string).unwrap_or_default();
                let (meaning, marked) = split_default(&help);
                let given = a
                    .get_default_values()
                    .first()
                    .map(|v| v.to_string_lossy().into_owned());
                let given = given.filter(|v| a.get_action().takes_values() && !v.is_empty());
                vec![
                    name,
                    cell(meaning),
                    code(given.as_deref().unwrap_or(marked)),
                ]
            })
            .collect();
        if !rows.is_empty() {
            out += &table(&["argument", "meaning", "default"], rows);
        }
    }
    out
}

fn about(command: &clap::Command) -> String {
    command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn metrics() -> String {
    let text = RestoreMetricsManager::sample();
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut help = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, h)| h);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            rows.push(vec![
                format!("`{name}`"),
                kind.into(),
                String::new(),
                cell(help),
            ]);
        } else if let Some(row) = rows.last_mut()
            && let Some((_, labels)) = line.split_once('{')
        {
            let named = labels
                .split("\",")
                .filter_map(|l| l.split_once('='))
                .map(|(label, _)| label);
            let named: Vec<String> = named
                .filter(|l| *l != "le")
                .map(|l| format!("`{l}`"))
                .collect();
            row[2] = named.join(" ");
        }
    }
    let head = "At `/metrics` of `ADMIN_ADDR`, in the Prometheus text format. Counters exist from the start, with every value of \
         their label. Labels never contain an id, the name of a database or object, or a message.\n\n";
    format!(
        "{head}{}",
        table(&["metric", "type", "labels", "meaning"], rows)
    )
}

fn failure_reasons() -> String {
    let schema = schemars::schema_for!(FailureReason);
    let described = schema
        .get("oneOf")
        .and_then(|o| o.as_array())
        .cloned()
        .unwrap_or_default();
    let meaning = |reason: &str| {
        let found = described.iter().find(|d| d["const"] == reason);
        found
            .and_then(|d| d["description"].as_str())
            .unwrap_or_default()
            .replace('\n', " ")
    };
    let retry = |class| match class {
        RetryClass::Permanent => "no; a failure is published at once",
        RetryClass::Transient => "up to RESTORE_MAX_ATTEMPTS, then a failure is published",
        RetryClass::Environment => "by another worker; this worker becomes not ready",
        RetryClass::Busy => "the request waits",
        RetryClass::Interrupted => "by another worker",
    };
    let rows = FailureReason::ALL.map(|r| {
        let blame = r.blame().as_str().to_owned();
        let exit = Exit::of(r).code().to_string();
        vec![
            format!("`{r}`"),
            meaning(r.as_str()),
            blame,
            retry(r.retry_class()).into(),
            exit,
        ]
    });
    let head = "The values of the label `failure_reason` of `restore_failure_total`, of `error.reason` in a result, and of the \
                attribute `failure_reason` of its message. The list is closed: only a new version adds a value. A verification \
                runs on our own server, so some of its failures are blamed on the backup instead; `error.blame` is \
                authoritative.\n\n";
    format!(
        "{head}{}",
        table(
            &["reason", "meaning", "blame", "retried", "exit code"],
            rows
        )
    )
}

fn exit_codes() -> String {
    let rows = Exit::ALL.map(|e| vec![e.code().to_string(), e.meaning().into()]);
    table(&["code", "meaning"], rows)
}

fn schemas() -> String {
    let rows = schema::all().into_iter().map(|(name, schema)| {
        let description = schema
            .get("description")
            .and_then(|d| d.as_str())
            .unwrap_or_default();
        let first = description.split("\n\n").next().unwrap_or_default();
        vec![
            format!("[`{name}`](../../schemas/{name}.v1.json)"),
            cell(first),
        ]
    });
    let head = "JSON Schema 2020-12, generated from the types; `pgrestored schema NAME` prints one. Requests and checks \
                files are strict: an unknown field is an error. All other documents are open: readers ignore unknown \
                fields. [`asyncapi.yaml`](../../schemas/asyncapi.yaml) describes the topics, and \
                [`examples`](../../schemas/examples) contains one example of each document.\n\n";
    format!("{head}{}", table(&["document", "description"], rows))
}
