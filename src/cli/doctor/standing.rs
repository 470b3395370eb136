//! Checks what finishes restores and what standing restores need: the files that finish a copy, backups, and the place of the
//! state. What is wrong with the file of orders itself ends every command at its start.

use super::diagnostic_result::{CheckHealth, DiagnosticResult, failed};
use crate::app::App;
use crate::cli::output::noun;
use crate::cli::standing::orders_of;
use crate::error::{RestoreError, report};
use crate::standing::{NewestBackup, StandingOrder, StandingStates, newest};
use crate::verification::ChecksFile;

const PLACE: &str = "finishing files";
const ORDER: &str = "standing restore";

/// Whether there is the place with the files that requests and orders may name.
pub(super) async fn finishing_place(app: &App) -> DiagnosticResult {
    let Some(place) = &app.config.finish_from else {
        return DiagnosticResult::skipped(PLACE, "RESTORE_FINISH_FROM is not set");
    };
    match app.manager.catalog().check_finishing_place().await {
        Ok(()) => DiagnosticResult::ok(PLACE, format!("{}: may be listed", place.uri(""))),
        Err(e) => failed(
            PLACE,
            &e,
            "check that RESTORE_FINISH_FROM exists, and let this account list and read it (roles/storage.objectViewer on the bucket)",
        ),
    }
}

/// Whether each order has what its next run needs.
pub(super) async fn orders(app: &App) -> Vec<DiagnosticResult> {
    if app.config.standing_restores.is_none() {
        let what = "STANDING_RESTORES is not set";
        return vec![DiagnosticResult::skipped(ORDER, what)];
    }
    let mut results = Vec::new();
    for order in orders_of(app).unwrap_or_default() {
        let found = look_at(app, &order).await;
        let found = found.unwrap_or_else(|e| failed(ORDER, &e, "see the check `bucket`"));
        results.push(DiagnosticResult {
            message: format!("order {}: {}", order.name, found.message),
            ..found
        });
    }
    results
}

async fn look_at(app: &App, order: &StandingOrder) -> Result<DiagnosticResult, RestoreError> {
    let catalog = app.manager.catalog();
    let (files, checks) = order.finishing();
    let read = async {
        let files = catalog.finishing_files(files).await?;
        if let Some(name) = checks {
            let document = catalog.finishing_checks(name).await?;
            ChecksFile::parse_as("finish_checks", &document)?;
        }
        Ok::<_, RestoreError>(files.len())
    };
    let files = match read.await {
        Ok(files) => files,
        Err(e) => {
            let fix = "put the file into RESTORE_FINISH_FROM, or correct it or the order";
            return Ok(failed(ORDER, &e, fix));
        }
    };
    let history = async {
        StandingStates::open(catalog)
            .await?
            .history(&order.name)
            .await
    };
    let history = match history.await {
        Ok(history) => history,
        Err(e) => {
            let fix = "let this account list, read and create objects in RESTORE_RECORDS, otherwise where evidence is kept";
            return Ok(failed(ORDER, &e, fix));
        }
    };
    let warn = |what: String| DiagnosticResult::new(ORDER, CheckHealth::Warning, what);
    let now = jiff::Timestamp::now();
    let wanted = order.wanted_at(now).unwrap_or_else(|| order.wanted.clone());
    let backup = match newest(catalog, wanted).await? {
        NewestBackup::Found(backup) => backup.name,
        NewestBackup::Nothing => {
            let at = app.config.bucket.uri(&order.wanted.prefix);
            return Ok(
                warn(format!("{at}: no backups")).fix("check `set` or `prefix` of the order")
            );
        }
        NewestBackup::NoneOfThem(e) => {
            let why = order.why_none(&report(&e));
            return Ok(warn(why).fix("`pgrestored list` shows what there is"));
        }
    };
    if let Some(problem) = history.copy_problem(order) {
        return Ok(warn(problem));
    }
    let mut what = format!("{backup} is its newest backup");
    if files > 0 {
        let n = noun(files as u64, "file");
        what = format!("{what}; {files} SQL {n} will finish the copy");
    }
    if history.paused_since.is_some() {
        what = format!("{what}; it is paused");
    }
    Ok(DiagnosticResult::ok(ORDER, what))
}
