//! `check`: validates and prints the configuration without connecting to anything. Secrets are never
//! printed.

use super::exit::{CommandResult, Exit};
use super::output::{OutputFormat, print_json};
use crate::config::{Config, EvidencePlace};

pub(super) fn run(config: &Config, output: OutputFormat) -> CommandResult {
    crate::app::check_documents(config)?;
    let v = &config.verify;
    let shown = serde_json::json!({
        "backup_place": config.bucket.uri(""),
        "backup_user_project": config.user_project,
        "backup_retention_days": config.retention_days,
        "db_host": config.db.host,
        "db_port": config.db.port,
        "db_user": config.db.user,
        "db_auth": config.db_auth.as_str(),
        "db_password": if config.db.password.is_some() { "set" } else { "not set" },
        "db_sslmode": config.db.ssl_mode.as_str(),
        "db_name": config.db_name,
        "db_maintenance_name": config.db.maintenance,
        "google_cloud_project": config.project,
        "restore_request_subscription": config.request_subscription,
        "restore_completion_topic": config.completion_topic,
        "pubsub_emulator": config.pubsub_emulator,
        "storage_emulator": config.storage_emulator.as_ref().map(|e| &e.json),
        "restore_jobs": config.jobs.map_or_else(|| "the server's cores".into(), serde_json::Value::from),
        "restore_max_concurrent": config.max_concurrent,
        "restore_timeout_seconds": config.timeout.as_secs(),
        "admin_addr": config.admin_addr.to_string(),
        "admin_hosts": config.admin_hosts,
        "log_url_template": config.log_url,
        "trace_url_template": config.trace_url,
        "backup_notification_subscription": config.notification_subscription,
        "verify_depth": v.depth.as_str(),
        "verify_checks": if v.checks.is_some() { "read" } else { "not set" },
        "verify_schedule_seconds": v.schedule.map(|s| s.as_secs()),
        "evidence_location": match &v.evidence {
            EvidencePlace::BesideBackup => "beside the backup".to_owned(),
            EvidencePlace::Nowhere => "none".to_owned(),
            EvidencePlace::At(place) => place.uri(""),
        },
        "evidence_signing_key": if v.signing_key.is_some() { "set" } else { "not set" },
        "evidence_trusted_keys": if v.trusted_keys.is_some() { "set" } else { "not set" },
        "backup_sets": v.sets.iter().map(|s| s.name.clone()).collect::<Vec<_>>(),
        "db_taken_from": taken_from(config),
        "standing_restores": if config.standing_restores.is_some() { "read" } else { "not set" },
        "scratch_db_host": v.scratch.as_ref().map(|s| &s.host),
    });
    if output == OutputFormat::Json {
        return print_json(&shown);
    }
    out!("The configuration is valid.");
    for (key, value) in shown.as_object().into_iter().flatten() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        if key != "db_taken_from" {
            let origin = config.db_origins.of(&key.to_uppercase());
            let origin = origin.map(|o| format!(" (from {o})")).unwrap_or_default();
            let text = if text == "null" { "-" } else { &text };
            out!("  {key:<30} {text}{origin}");
        }
    }
    if config.project.is_none() {
        out!("  GOOGLE_CLOUD_PROJECT is not set; `worker` and `request` need it.");
    }
    if config.standing_restores.is_some() && config.records.is_none() {
        out!(
            "  RESTORE_RECORDS is not set: unless the target server has a journal (`pgrestored doctor` says so), two workers can restore a backup twice for an order."
        );
    }
    Ok(Exit::Ok)
}

/// Where settings of the target server come from that `DB_*` does not set, by their names in this document.
fn taken_from(config: &Config) -> serde_json::Map<String, serde_json::Value> {
    let all = config.db_origins.iter();
    all.map(|(variable, origin)| (variable.to_lowercase(), origin.into()))
        .collect()
}
