//! What is restored, and how: the policy, limits of stages, the format of rows.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;

use super::raw::RawConfig;
use super::values::{ConfigErrors, list, non_empty};
use crate::policy::{Extensions, InPlace, OnError, Owners, Policy, Profile, Rehearse, pair};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn binary_from(raw: &RawConfig, errors: &mut ConfigErrors) -> Option<usize> {
    match non_empty(&raw.restore_copy_format) {
        None | Some("auto") => Some(64 << 10),
        Some("text") => None,
        Some("binary") => Some(0),
        Some(_) => {
            errors.add("RESTORE_COPY_FORMAT", "must be auto, text or binary");
            None
        }
    }
}

pub(super) fn in_place(raw: &RawConfig, errors: &mut ConfigErrors) -> InPlace {
    let chosen = non_empty(&raw.restore_in_place)
        .map(|t| InPlace::from_str(t, true))
        .transpose();
    chosen
        .unwrap_or_else(|_| {
            errors.add("RESTORE_IN_PLACE", "must be auto, always or never");
            None
        })
        .unwrap_or_default()
}

pub(super) fn rehearse(raw: &RawConfig, errors: &mut ConfigErrors) -> Rehearse {
    let chosen = non_empty(&raw.restore_rehearse)
        .map(|t| Rehearse::from_str(t, true))
        .transpose();
    chosen
        .unwrap_or_else(|_| {
            errors.add("RESTORE_REHEARSE", "must be auto, always or never");
            None
        })
        .unwrap_or_default()
}

fn on_error(raw: &RawConfig, errors: &mut ConfigErrors) -> OnError {
    let chosen = non_empty(&raw.restore_on_error)
        .map(|t| OnError::from_str(t, true))
        .transpose();
    chosen
        .unwrap_or_else(|_| {
            errors.add("RESTORE_ON_ERROR", "must be stop or skip");
            None
        })
        .unwrap_or_default()
}

fn profile(raw: &RawConfig, errors: &mut ConfigErrors) -> Profile {
    let chosen = non_empty(&raw.restore_profile)
        .map(|t| Profile::from_str(t, true))
        .transpose();
    chosen
        .unwrap_or_else(|_| {
            let known: Vec<String> = Profile::value_variants()
                .iter()
                .filter_map(Profile::to_possible_value)
                .map(|value| value.get_name().to_owned())
                .collect();
            let known = known.join(", ");
            errors.add("RESTORE_PROFILE", format!("must be one of {known}"));
            None
        })
        .unwrap_or_default()
}

/// How long a swap waits for sessions that may not be terminated.
pub(super) fn swap_when_idle(raw: &RawConfig, errors: &mut ConfigErrors) -> Option<Duration> {
    non_empty(&raw.restore_swap_when_idle)?;
    let (variable, given) = ("RESTORE_SWAP_WHEN_IDLE", &raw.restore_swap_when_idle);
    Some(errors.duration(variable, given, Duration::ZERO))
}

pub(super) fn policy(raw: &RawConfig, errors: &mut ConfigErrors) -> Policy {
    let owners = non_empty(&raw.restore_owners)
        .map(|t| Owners::from_str(t, true))
        .transpose();
    let extensions = non_empty(&raw.restore_extensions)
        .map(|t| Extensions::from_str(&t.replace('_', "-"), true))
        .transpose();
    let known = errors.0.len();
    let role_map = role_map(raw, errors);
    let is_read = errors.0.len() == known;
    if let (true, Ok(owners)) = (is_read, &owners) {
        check_role_map(owners.unwrap_or_default(), &role_map, raw, errors);
    }
    let role_passwords = errors.parse(
        "RESTORE_ROLE_PASSWORDS",
        &raw.restore_role_passwords,
        false,
        "must be true or false",
    );
    if role_passwords && non_empty(&raw.restore_globals).is_none() {
        errors.add(
            "RESTORE_ROLE_PASSWORDS",
            "has no effect without RESTORE_GLOBALS (--globals), the file with the roles: set it, or leave this out",
        );
    }
    Policy {
        owners: owners
            .unwrap_or_else(|_| {
                errors.add("RESTORE_OWNERS", "must be keep, map or none");
                None
            })
            .unwrap_or_default(),
        role_map,
        privileges: !errors.parse(
            "RESTORE_NO_PRIVILEGES",
            &raw.restore_no_privileges,
            false,
            "must be true or false",
        ),
        create_roles: errors.parse(
            "RESTORE_CREATE_ROLES",
            &raw.restore_create_roles,
            false,
            "must be true or false",
        ),
        extensions: extensions
            .unwrap_or_else(|_| {
                errors.add("RESTORE_EXTENSIONS", "must be require or skip-missing");
                None
            })
            .unwrap_or_default(),
        on_error: on_error(raw, errors),
        profile: profile(raw, errors),
        leave_out_platform_rows: true,
        analyze: !errors.parse(
            "RESTORE_NO_ANALYZE",
            &raw.restore_no_analyze,
            false,
            "must be true or false",
        ),
        globals: non_empty(&raw.restore_globals).map(str::to_owned),
        role_passwords,
    }
}

/// A map and the policy that uses it are given together: one without the other would be ignored.
fn check_role_map(
    owners: Owners,
    role_map: &BTreeMap<String, String>,
    raw: &RawConfig,
    errors: &mut ConfigErrors,
) {
    match (owners, non_empty(&raw.restore_role_map)) {
        (Owners::Map, None) => errors.add(
            "RESTORE_OWNERS",
            "map needs the roles to substitute: set RESTORE_ROLE_MAP (--role-map OLD=NEW,… or @FILE), or use keep or none",
        ),
        (Owners::Map, Some(_)) if role_map.is_empty() => errors.add(
            "RESTORE_ROLE_MAP",
            "has no pair OLD=NEW, and RESTORE_OWNERS=map needs one",
        ),
        (Owners::Keep | Owners::None, Some(_)) => errors.add(
            "RESTORE_ROLE_MAP",
            "has no effect unless RESTORE_OWNERS is map: set it (--owners map), or leave the map out",
        ),
        (_, _) => {}
    }
}

/// Stages of a job, as progress and metrics name them.
const STAGES: [&str; 8] = [
    "prepare", "schema", "data", "indexes", "analyze", "check", "finish", "sandbox",
];

pub(super) fn stage_limits(
    raw: &RawConfig,
    errors: &mut ConfigErrors,
) -> BTreeMap<String, Duration> {
    let mut limits = BTreeMap::new();
    for text in list(&raw.restore_stage_limits) {
        match pair(&text) {
            Ok((stage, time)) if STAGES.contains(&stage.as_str()) => {
                let limit = errors.duration("RESTORE_STAGE_LIMITS", &Some(time), SECOND);
                limits.insert(stage, limit);
            }
            _ => errors.add(
                "RESTORE_STAGE_LIMITS",
                format!(
                    "must be STAGE=TIME, separated by commas; the stages are {}",
                    STAGES.join(", ")
                ),
            ),
        }
    }
    limits
}

fn role_map(raw: &RawConfig, errors: &mut ConfigErrors) -> BTreeMap<String, String> {
    let Some(text) = non_empty(&raw.restore_role_map) else {
        return BTreeMap::new();
    };
    let text = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).unwrap_or_else(|e| {
            errors.add(
                "RESTORE_ROLE_MAP",
                format!("{file}: cannot be read: {}", e.kind()),
            );
            String::new()
        }),
        None => text.replace(',', "\n"),
    };
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .filter_map(|line| {
            pair(line)
                .map_err(|e| errors.add("RESTORE_ROLE_MAP", e))
                .ok()
        })
        .collect()
}
