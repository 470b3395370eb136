//! What `mask`, `mask suggest` and `mask check` are about: a backup, and rules.

use crate::app::App;
use crate::cli::backup::backup_of;
use crate::cli::exit::{CommandError, usage};
use crate::cli::help;
use crate::config::MaskingRules;
use crate::job::BackupRef;

/// A backup that rules are for.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct MaskSource {
    /// Object name, gs:// or file:// URI, path, - for standard input, latest or latest-proven
    ///
    /// latest@TIME and latest-proven@TIME leave out what was made after that time.
    pub(super) backup: String,
    /// Prefix under which `latest` and `latest-proven` search
    ///
    /// It is an error with a backup that is named.
    #[arg(long, default_value = "", hide_default_value = true, help_heading = help::SELECTION)]
    prefix: String,
    /// Only this database: of latest, or of a whole cluster's dump
    #[arg(long, value_name = "NAME", help_heading = help::SELECTION)]
    pub(super) database: Option<String>,
}

impl MaskSource {
    pub(super) fn backup(&self, app: &App) -> Result<BackupRef, CommandError> {
        let place = (self.prefix.as_str(), self.database.as_deref());
        Ok(backup_of(&app.config, &self.backup, place)?)
    }
}

/// The rules of `--mask`.
pub(super) fn rules(app: &App) -> Result<MaskingRules, CommandError> {
    let what = "there are no masking rules: name their file with --mask (pgrestored mask suggest writes one to start from)";
    app.config.masking.clone().ok_or_else(|| usage(what))
}
