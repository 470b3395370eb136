//! `list --versions`: lists the generations of each object, also those that are not live any more.

use super::proof_text::proof_text;
use crate::app::App;
use crate::backup::Backup;
use crate::cli::exit::{CommandResult, Exit};
use crate::cli::output::{OutputFormat, human_bytes, print_json};
use crate::error::report;
use crate::manager::{BackupProof, ProvenGeneration};
use crate::store::GenerationState;

/// What became of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ListedState {
    /// Its name means it.
    Live,
    /// It was overwritten or deleted, and can be read by its generation.
    NonCurrent,
    /// It was overwritten or deleted, and can be read once it is restored.
    SoftDeleted,
}

impl ListedState {
    fn label(self) -> &'static str {
        match self {
            ListedState::Live => "live",
            ListedState::NonCurrent => "non-current",
            ListedState::SoftDeleted => "soft-deleted",
        }
    }
}

/// One generation of an object.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct ListedGeneration {
    #[serde(flatten)]
    backup: Backup,
    state: ListedState,
    /// Since when it is not live any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<jiff::Timestamp>,
    /// Until when a soft-deleted one can be restored, if the store says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    restorable_until: Option<jiff::Timestamp>,
    /// What the evidence says about this generation, if it was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<BackupProof>,
}

impl From<ProvenGeneration> for ListedGeneration {
    fn from(found: ProvenGeneration) -> Self {
        let (state, ended, restorable_until) = match found.state {
            GenerationState::Live => (ListedState::Live, None, None),
            GenerationState::NonCurrent { since } => (ListedState::NonCurrent, Some(since), None),
            GenerationState::SoftDeleted { since, until } => {
                (ListedState::SoftDeleted, Some(since), until)
            }
        };
        ListedGeneration {
            backup: found.backup,
            state,
            ended,
            restorable_until,
            proof: found.proof,
        }
    }
}

pub(super) async fn run(app: &App, prefix: &str, output: OutputFormat) -> CommandResult {
    let listing = app.manager.catalog().list_generations(prefix).await?;
    if let Some(why) = &listing.incomplete {
        err!("proofs may be missing from this list: {why}");
    }
    if let Some(e) = &listing.without_deleted {
        err!("soft-deleted objects are not listed: {}", report(e));
    }
    let all = listing.generations.into_iter();
    let all: Vec<ListedGeneration> = all.map(ListedGeneration::from).collect();
    if output == OutputFormat::Json {
        return print_json(&all);
    }
    if all.is_empty() {
        out!("No backups in {}", app.config.bucket.uri(prefix));
        return Ok(Exit::Ok);
    }
    let rows = || std::iter::once(header()).chain(all.iter().map(cells_of));
    let (mut of_state, mut of_proof) = (0, 0);
    for [_, _, state, proof, _] in rows() {
        of_state = of_state.max(state.chars().count());
        of_proof = of_proof.max(proof.chars().count());
    }
    for [created, size, state, proof, name] in rows() {
        out!("{created:<20} {size:>12}  {state:<of_state$}  {proof:<of_proof$}  {name}");
    }
    Ok(Exit::Ok)
}

fn header() -> [String; 5] {
    ["CREATED", "SIZE", "STATE", "PROOF", "NAME#GENERATION"].map(str::to_owned)
}

fn cells_of(g: &ListedGeneration) -> [String; 5] {
    let minute = |t: jiff::Timestamp| t.strftime("%Y-%m-%d %H:%MZ").to_string();
    let since = g.ended.map(|t| format!(" since {}", minute(t)));
    let until = g.restorable_until;
    let until = until.map(|t| format!(", restorable until {}", minute(t)));
    [
        g.backup.created.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        human_bytes(g.backup.size),
        format!(
            "{}{}{}",
            g.state.label(),
            since.unwrap_or_default(),
            until.unwrap_or_default()
        ),
        g.proof.as_ref().map_or("none".into(), proof_text),
        format!("{}#{}", g.backup.name, g.backup.generation),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_says_what_became_of_it() {
        let at = |text: &str| -> jiff::Timestamp { text.parse().unwrap() };
        let generation = |state| {
            ListedGeneration::from(ProvenGeneration {
                backup: Backup {
                    name: "app.dump".into(),
                    size: 1,
                    created: at("2026-11-20T01:00:00Z"),
                    checksum: None,
                    generation: "7".into(),
                },
                state,
                proof: None,
            })
        };
        let since = at("2026-11-21T01:00:00Z");
        let until = Some(at("2026-11-28T01:00:00Z"));
        for (state, wanted, json) in [
            (GenerationState::Live, "live", "live"),
            (
                GenerationState::NonCurrent { since },
                "non-current since 2026-11-21 01:00Z",
                "non_current",
            ),
            (
                GenerationState::SoftDeleted { since, until },
                "soft-deleted since 2026-11-21 01:00Z, restorable until 2026-11-28 01:00Z",
                "soft_deleted",
            ),
        ] {
            let listed = generation(state);
            let [_, _, shown, _, name] = cells_of(&listed);
            assert_eq!((shown.as_str(), name.as_str()), (wanted, "app.dump#7"));
            let printed = serde_json::to_value(&listed).unwrap();
            assert_eq!(printed["state"], json);
            assert_eq!(printed["generation"], "7");
        }
    }
}
