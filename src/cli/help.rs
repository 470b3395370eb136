//! Help: every option under a topic, a `-h` that fits a screen, and usage lines that depend on the command alone.
//! `--help`, the man pages and the completion scripts have every option.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

pub(super) const TARGET: &str = "Target";
pub(super) const SELECTION: &str = "Selection";
pub(super) const POLICY: &str = "Policy";
pub(super) const REQUEST: &str = "Request";
pub(super) const OUTPUT: &str = "Output";
const SOURCE: &str = "Source";
const LIMITS: &str = "Limits";
const QUEUE: &str = "Topics and subscriptions";
const VERIFICATION: &str = "Verification";
const EVIDENCE: &str = "Evidence and retention";
const OPERATION: &str = "Operation";
/// The topic of options that `TOPICS` does not know.
const OTHER: &str = "Configuration";

/// Topics of the options that every command has, by the beginning of their ids; the first that fits counts.
const TOPICS: [(&str, &str); 53] = [
    ("output", OUTPUT),
    ("log_url_template", OPERATION),
    ("trace_url_template", OPERATION),
    ("log_", OUTPUT),
    ("backup_sets", EVIDENCE),
    ("backup_retention_", EVIDENCE),
    ("evidence_", EVIDENCE),
    ("backup_notification_", QUEUE),
    ("google_cloud_project", QUEUE),
    ("pubsub_", QUEUE),
    ("request_", QUEUE),
    ("restore_request_", QUEUE),
    ("restore_completion_", QUEUE),
    ("restore_records", QUEUE),
    ("backup_", SOURCE),
    ("trusted_sources", SOURCE),
    ("allowed_sources", SOURCE),
    ("storage_", SOURCE),
    ("db_", TARGET),
    ("restricted_owner", TARGET),
    ("allowed_targets", TARGET),
    ("protected_databases", TARGET),
    ("restore_owners", POLICY),
    ("restore_role_", POLICY),
    ("restore_create_roles", POLICY),
    ("restore_no_", POLICY),
    ("restore_extensions", POLICY),
    ("restore_on_error", POLICY),
    ("restore_profile", POLICY),
    ("restore_rehearse", POLICY),
    ("restore_mask", POLICY),
    ("mask_", POLICY),
    ("restore_in_place", POLICY),
    ("restore_globals", POLICY),
    ("restore_require_complete", POLICY),
    ("restore_keep_previous", POLICY),
    ("restore_resume", POLICY),
    ("restore_swap_when_idle", POLICY),
    ("restore_finish_from", SOURCE),
    ("restore_copy_format", LIMITS),
    ("restore_", LIMITS),
    ("retry_", LIMITS),
    ("download_", LIMITS),
    ("drain_", LIMITS),
    ("reap_", OPERATION),
    ("admin_", OPERATION),
    ("standing_", OPERATION),
    ("otel_", OPERATION),
    ("verify_", VERIFICATION),
    ("sandbox_", VERIFICATION),
    ("scratch_", VERIFICATION),
    ("pg_bindir", VERIFICATION),
    ("pg", TARGET),
];

/// Texts of one line for the configuration that `-h` shows.
const SHORT: [(&str, &str); 15] = [
    (
        "backup_bucket",
        "Bucket name, gs://bucket/prefix or file:///folder",
    ),
    (
        "db_host",
        "Server, or the folder of its socket [default: localhost]",
    ),
    ("db_user", "Role to connect as [default: postgres]"),
    ("google_cloud_project", "Project of the topics"),
    (
        "restore_request_subscription",
        "Subscription with the requests",
    ),
    ("backup_sets", "Sets of backups: NAME=PREFIX, …"),
    ("restore_owners", "Owners: keep, map or none"),
    ("restore_no_privileges", "Leave out GRANT and REVOKE"),
    ("restore_extensions", "If missing: require or skip-missing"),
    ("restore_on_error", "If refused: stop or skip"),
    ("restore_mask", "File with the masking rules (YAML)"),
    ("mask_key_file", "File with the key of the rules"),
    ("verify_checks", "File with checks of the data (YAML)"),
    ("admin_addr", "Address of the status page and /metrics"),
    ("standing_restores", "File with the orders (YAML)"),
];

/// The configuration that `-h` of a command shows besides the command's own options.
fn shown(command: &str) -> &'static [&'static str] {
    match command {
        "worker" => &[
            "backup_bucket",
            "db_host",
            "db_user",
            "google_cloud_project",
            "restore_request_subscription",
            "admin_addr",
        ],
        "restore" => &[
            "db_host",
            "db_user",
            "restore_owners",
            "restore_no_privileges",
            "restore_extensions",
            "restore_on_error",
        ],
        "rehearse" => &[
            "db_host",
            "db_user",
            "restore_owners",
            "restore_no_privileges",
            "restore_extensions",
        ],
        "rollback" | "reap" => &["db_host", "db_user"],
        "verify" => &["backup_bucket", "verify_checks"],
        "inspect" => &["backup_bucket", "db_host", "db_user"],
        "check" | "doctor" => &[
            "backup_bucket",
            "db_host",
            "db_user",
            "google_cloud_project",
        ],
        "list" => &["backup_bucket"],
        "mask" => &["backup_bucket", "restore_mask", "mask_key_file"],
        "prune" | "report" => &["backup_bucket", "backup_sets"],
        "standing" => &["backup_bucket", "db_host", "db_user", "standing_restores"],
        "request" | "watch" => &["google_cloud_project"],
        _ => &[],
    }
}

/// `help COMMAND -h` as `COMMAND -h`, and the same with `--help`: what follows the command `help` is for clap the name of
/// a command, whatever it looks like.
pub(super) fn without_help_command(mut args: Vec<OsString>) -> Vec<OsString> {
    let is_option = |a: &OsString| a.as_encoded_bytes().starts_with(b"-");
    let names = args.iter().skip(1).take_while(|a| !is_option(a));
    let place = names.clone().position(|a| a == "help");
    let first_option = args.get(1 + names.count());
    let asks = first_option.is_some_and(|a| a == "-h" || a == "--help");
    if let (Some(place), true) = (place, asks) {
        args.remove(1 + place);
    }
    args
}

fn topic_of(id: &str) -> &'static str {
    let found = TOPICS.iter().find(|(start, _)| id.starts_with(start));
    found.map_or(OTHER, |(_, topic)| topic)
}

/// The whole command line, with every option under its topic.
pub(super) fn arrange(cli: Command) -> Command {
    let mut place = 100;
    let cli = cli.disable_help_flag(true).mut_args(|arg| {
        place += 1;
        let is_config = arg.get_env().is_some();
        let topic = topic_of(arg.get_id().as_str());
        arg.help_heading(topic)
            .display_order(place)
            .hide_short_help(is_config)
    });
    let config: Vec<Arg> = cli.get_arguments().cloned().collect();
    let cli = cli.mut_subcommands(|command| {
        let names = shown(command.get_name()).iter();
        let found = names.filter_map(|id| config.iter().find(|a| a.get_id() == *id));
        command.args(found.map(in_short_help).collect::<Vec<_>>())
    });
    let help = Arg::new("help")
        .short('h')
        .long("help")
        .action(ArgAction::Help)
        .global(true)
        .help("Print help; --help prints every option")
        .long_help("Print help; -h prints a summary")
        .help_heading(OUTPUT)
        .display_order(998);
    let version = Arg::new("version")
        .short('V')
        .long("version")
        .action(ArgAction::Version)
        .help("Print the version")
        .help_heading(OUTPUT)
        .display_order(999);
    with_long_texts(cli.disable_version_flag(true).arg(help).arg(version))
}

/// An option of the configuration as a command shows it with `-h`: on one line.
fn in_short_help(arg: &Arg) -> Arg {
    let id = arg.get_id().as_str();
    let short = SHORT.iter().find(|(known, _)| *known == id);
    let text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let variable = arg.get_env().map(|v| v.to_string_lossy().into_owned());
    let variable = variable.unwrap_or_default();
    let arg = arg.clone().hide_short_help(false).hide_env(true);
    let arg = arg.long_help(format!("{text}\n\n[env: {variable}]"));
    match short {
        Some((_, short)) => arg.help(*short),
        None => arg,
    }
}

/// Man pages contain the long text of an option that `-h` hides, and nothing if there is none.
fn with_long_texts(command: Command) -> Command {
    let command = command.mut_args(|arg| match (arg.get_long_help(), arg.get_help().cloned()) {
        (None, Some(text)) if arg.is_hide_short_help_set() => arg.long_help(text),
        _ => arg,
    });
    command.mut_subcommands(with_long_texts)
}

/// The same command line with usage lines that depend on the command alone. clap's own usage line after an error
/// shows every option that was given as required, also one that was given by its environment variable.
pub(super) fn with_usage(cli: Command) -> Command {
    let mut built = cli.clone();
    built.build();
    usage_from(cli, &mut built)
}

fn usage_from(command: Command, built: &mut Command) -> Command {
    let usage = built.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    command.override_usage(usage).mut_subcommands(|inner| {
        match built.find_subcommand_mut(inner.get_name()) {
            Some(built) => usage_from(inner, built),
            None => inner,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn all() -> Command {
        arrange(crate::cli::Cli::command())
    }

    /// A new variable needs a row in `TOPICS`.
    #[test]
    fn every_option_of_the_configuration_has_a_topic() {
        let cli = all();
        let lost: Vec<_> = cli
            .get_arguments()
            .filter(|a| a.get_help_heading().is_none_or(|h| h == OTHER))
            .map(|a| a.get_id().as_str())
            .collect();
        assert!(lost.is_empty(), "{lost:?}");
    }

    /// The names in `shown` and `SHORT` are options that exist.
    #[test]
    fn options_of_short_help_exist() {
        let cli = all();
        let exists = |id: &str| cli.get_arguments().any(|a| a.get_id() == id);
        for command in cli.get_subcommands() {
            for id in shown(command.get_name()) {
                assert!(exists(id), "{}: {id}", command.get_name());
                assert!(SHORT.iter().any(|(known, _)| known == id), "{id}");
            }
        }
    }

    #[test]
    fn the_help_command_takes_the_options_of_help() {
        let plain = |all: &[&str]| without_help_command(all.iter().map(OsString::from).collect());
        for (given, wanted) in [
            (&["p", "help", "-h"][..], &["p", "-h"][..]),
            (&["p", "help", "--help"], &["p", "--help"]),
            (&["p", "help", "restore", "-h"], &["p", "restore", "-h"]),
            (
                &["p", "evidence", "help", "verify", "--help"],
                &["p", "evidence", "verify", "--help"],
            ),
            (&["p", "help", "restore"], &["p", "help", "restore"]),
            (&["p", "restore", "-h"], &["p", "restore", "-h"]),
            // A value of an option.
            (
                &["p", "restore", "x", "--target", "help", "-h"],
                &["p", "restore", "x", "--target", "help", "-h"],
            ),
        ] {
            assert_eq!(plain(given), wanted, "{given:?}");
        }
    }

    #[test]
    fn usage_lines_do_not_depend_on_the_environment() {
        let cli = with_usage(all());
        let of = |name: &str| {
            let found = cli.find_subcommand(name).unwrap();
            found.get_overridden_usage().unwrap().to_string()
        };
        assert_eq!(of("restore"), "pgrestored restore [OPTIONS] <BACKUP>");
        assert_eq!(of("evidence"), "pgrestored evidence [OPTIONS] <COMMAND>");
        // As if the environment had set it.
        let given = ["pgrestored", "restore", "--backup-bucket", "x"];
        let e = cli.try_get_matches_from(given).unwrap_err().to_string();
        assert!(
            e.contains("Usage: pgrestored restore [OPTIONS] <BACKUP>\n"),
            "{e}"
        );
    }
}
