//! Connecting with libpq's settings.

use std::process::Command;

use crate::support::Cluster;

/// A service names host and role; `PGUSER` comes after it, `DB_USER` before it.
#[test]
fn a_service_is_taken_where_nothing_else_is_given() {
    let c = Cluster::start();
    c.psql(
        "postgres",
        "CREATE ROLE of_service LOGIN; CREATE ROLE of_variable LOGIN",
    );
    let services = c.scratch("services.conf");
    let host = c.sandbox.host();
    std::fs::write(
        &services,
        format!("[restore]\nhost={host}\nuser=of_service\n"),
    )
    .unwrap();
    let reached_as = |more: &[(&str, &str)]| {
        let out = Command::new(env!("CARGO_BIN_EXE_pgrestored"))
            .args(["doctor", "--output", "json"])
            .env_clear()
            .env(
                "BACKUP_BUCKET",
                format!("file://{}", c.scratch("").display()),
            )
            .env("PGSERVICE", "restore")
            .env("PGSERVICEFILE", &services)
            .env("PGUSER", "of_variable")
            .envs(more.iter().copied())
            .output()
            .unwrap();
        let found: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let all = found.as_array().unwrap().iter();
        let server = all.clone().find(|d| d["check"] == "target server");
        server.unwrap()["message"].as_str().unwrap().to_owned()
    };
    let message = reached_as(&[]);
    assert!(message.ends_with(", as of_service"), "{message}");
    // The service's server is a target: this is no machine that only verifies.
    let message = reached_as(&[("BACKUP_NOTIFICATION_SUBSCRIPTION", "notifications")]);
    assert!(message.ends_with(", as of_service"), "{message}");
    let message = reached_as(&[("DB_USER", "of_variable")]);
    assert!(message.ends_with(", as of_variable"), "{message}");
}
