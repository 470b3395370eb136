//! Promotion: a restored copy takes the target's place as a restore would, or nothing changes.

use pgrestored::database::{Promoted, Promotion, Provenance};
use pgrestored::error::{FailureReason as R, RestoreError};
use pgrestored::job::{OnExisting, RestoreJob};
use pgrestored::policy::Selection;

use crate::support::{Cluster, job};

const SOURCE: &str =
    "CREATE TABLE restored (id int); INSERT INTO restored SELECT generate_series(1, 500)";

/// The names of the tables of a database, which show where it came from.
fn marker(c: &Cluster, database: &str) -> String {
    c.psql(
        database,
        "SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'",
    )
}

fn promotion<'a>(id: &'a str, copy: &'a str, target_db: &'a str) -> Promotion<'a> {
    Promotion {
        request_id: id,
        copy,
        target_db,
        on_existing: OnExisting::Replace,
        provenance: Provenance::Required,
    }
}

async fn promote(c: &Cluster, promotion: &Promotion<'_>) -> Result<Promoted, RestoreError> {
    c.app(&[]).manager.promote(promotion).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_copy_takes_the_targets_place_and_can_be_rolled_back() {
    let c = Cluster::start();
    c.create("src", SOURCE);
    c.create("app", "CREATE TABLE precious (a int)");
    c.psql(
        "postgres",
        "ALTER DATABASE app OWNER TO role_a; ALTER DATABASE app SET my.setting = 'kept'; COMMENT ON DATABASE app IS 'ours'",
    );
    let restored = job(&c.dump_to_file("src", &[]), "copy", OnExisting::Fail);
    assert_eq!(c.restore_with(&restored, &[]).await.result.error, None);
    // What somebody set while it was a copy.
    c.psql(
        "postgres",
        "ALTER DATABASE copy SET default_transaction_read_only = on; ALTER DATABASE copy SET statement_timeout = '7s';
         ALTER ROLE role_b IN DATABASE copy SET work_mem = '1MB'; ALTER DATABASE copy CONNECTION LIMIT 1;
         REVOKE CONNECT ON DATABASE copy FROM PUBLIC; GRANT CREATE ON DATABASE copy TO role_b",
    );
    // A session on the copy is ended, as on the target.
    let config = format!("host={} user=postgres dbname=copy", c.sandbox.host());
    let (reader, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .unwrap();
    let reading = tokio::spawn(connection);

    let careful = Promotion {
        on_existing: OnExisting::Fail,
        ..promotion("careful", "copy", "app")
    };
    let e = promote(&c, &careful).await.unwrap_err();
    assert_eq!(e.reason(), R::TargetExists, "{e}");
    assert_eq!(
        (marker(&c, "app").as_str(), marker(&c, "copy").as_str()),
        ("precious", "restored")
    );
    assert!(!reader.is_closed());

    let first = promotion("first", "copy", "app");
    let done = promote(&c, &first).await.unwrap();
    assert_eq!(
        done.restored_by.as_deref(),
        Some(restored.request_id.as_str())
    );
    assert_eq!(done.notes, Vec::<String>::new());
    let _ = reading.await.unwrap();
    assert!(reader.is_closed());
    assert_eq!(marker(&c, "app"), "restored");
    assert!(!c.databases().contains(&"copy".to_owned()));
    let properties =
        "SELECT pg_get_userbyid(datdba) || ' ' || shobj_description(oid, 'pg_database')
        FROM pg_database WHERE datname = 'app'";
    assert_eq!(c.psql("postgres", properties), "role_a ours");
    assert_eq!(c.psql("app", "SHOW my.setting"), "kept");
    // Nothing is left of what the copy had.
    let own = "SELECT datconnlimit, (SELECT string_agg(entry, ',') FROM pg_db_role_setting, unnest(setconfig) AS entry WHERE setdatabase = d.oid),
          (SELECT string_agg(privilege_type, ',' ORDER BY privilege_type) FROM aclexplode(datacl) WHERE grantee = 0),
          (SELECT count(*) FROM aclexplode(datacl) WHERE grantee = 'role_b'::regrole)
        FROM pg_database d WHERE datname = 'app'";
    assert_eq!(
        c.psql("postgres", own),
        "-1|my.setting=kept|CONNECT,TEMPORARY|0"
    );
    // The same id is the same promotion, and the id of another one.
    assert_eq!(promote(&c, &first).await.unwrap(), done);
    let other = promotion("first", "app", "elsewhere");
    assert_eq!(
        promote(&c, &other).await.unwrap_err().reason(),
        R::InvalidRequest
    );
    // A restore that was requested before the promotion does not undo it.
    let late = RestoreJob {
        request_id: "late".into(),
        target_db: "app".into(),
        on_existing: OnExisting::Replace,
        ..restored.clone()
    };
    assert_eq!(
        c.restore_with(&late, &[]).await.failure,
        Some(R::TargetNotAllowed)
    );

    let back = c.app(&[]).manager.rollback("app", None, "back").await;
    assert_eq!(
        Some(back.unwrap().restored_database),
        done.previous_database
    );
    assert_eq!(marker(&c, "app"), "precious");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_copy_that_a_restore_made_is_promoted() {
    let c = Cluster::start_with("-c wal_level=logical -c max_wal_senders=4");
    c.create(
        "src",
        &format!("{SOURCE}; CREATE TABLE more AS SELECT 1 AS a"),
    );
    c.create("app", "CREATE TABLE precious (a int)");
    c.create("handmade", "CREATE TABLE handmade ()");
    let dump = c.dump_to_file("src", &[]);
    for target in ["gone", "busy", "closed", "shielded", "older", "endless"] {
        let restored = c.try_restore(&dump, target, OnExisting::Fail).await;
        assert_eq!(restored.result.error, None, "{target}");
    }
    let part = RestoreJob {
        selection: Selection {
            tables: vec!["public.restored".into()],
            ..Selection::default()
        },
        ..job(&dump, "part", OnExisting::Fail)
    };
    let part = c.restore_with(&part, &[]).await.result;
    assert_eq!((part.error, part.partial), (None, true));
    // Rows that are added to a part make no whole of it.
    for (target, first, then) in [
        (
            "one_table",
            Selection {
                tables: vec!["public.restored".into()],
                exclude_table_data: vec!["public.restored".into()],
                ..Selection::default()
            },
            Selection {
                tables: vec!["public.restored".into()],
                ..Selection::default()
            },
        ),
        (
            "without_rows",
            Selection {
                schema_only: true,
                ..Selection::default()
            },
            Selection {
                exclude_table_data: vec!["public.restored".into()],
                ..Selection::default()
            },
        ),
    ] {
        let begun = RestoreJob {
            selection: first,
            ..job(&dump, target, OnExisting::Fail)
        };
        let begun = c.restore_with(&begun, &[]).await.result;
        assert_eq!((begun.error, begun.partial), (None, true), "{target}");
        let filled = RestoreJob {
            selection: Selection {
                data_only: true,
                ..then
            },
            ..job(&dump, target, OnExisting::Replace)
        };
        let filled = c.restore_with(&filled, &[]).await.result;
        assert_eq!((filled.error, filled.partial), (None, true), "{target}");
    }
    // As an earlier version recorded it, and as a restore of SQL text without its end mark is recorded.
    c.psql(
        "postgres",
        "UPDATE pgrestored.request SET outcome = outcome - 'partial' WHERE target = 'older';
         UPDATE pgrestored.request SET outcome = outcome || '{\"completeness\": \"unknown\"}' WHERE target = 'endless'",
    );
    // Another database of the same name is not the restored one.
    c.psql("postgres", "DROP DATABASE gone");
    c.create("gone", "CREATE TABLE imposter ()");
    c.psql(
        "busy",
        "SELECT pg_create_logical_replication_slot('s', 'test_decoding')",
    );
    c.psql("postgres", "ALTER DATABASE closed ALLOW_CONNECTIONS false");
    let app = c.app(&[("protected-databases", "shielded")]);
    let before = c.databases();
    for (copy, reason, word) in [
        ("handmade", R::TargetNotAllowed, "--unproven"),
        ("gone", R::TargetNotAllowed, "--unproven"),
        ("older", R::TargetNotAllowed, "an earlier version"),
        ("endless", R::TargetNotAllowed, "end mark"),
        ("part", R::TargetNotAllowed, "a part of a backup"),
        ("one_table", R::TargetNotAllowed, "a part of a backup"),
        ("without_rows", R::TargetNotAllowed, "a part of a backup"),
        ("busy", R::TargetNotAllowed, "slot"),
        ("closed", R::TargetNotAllowed, "ALLOW_CONNECTIONS true"),
        ("shielded", R::TargetNotAllowed, "PROTECTED_DATABASES"),
        ("postgres", R::TargetNotAllowed, "is protected"),
        ("nowhere", R::TargetNotAllowed, "does not exist"),
        ("app", R::InvalidRequest, "is the target itself"),
    ] {
        let e = app.manager.promote(&promotion(copy, copy, "app")).await;
        let e = e.unwrap_err();
        assert!(
            e.reason() == reason && e.to_string().contains(word),
            "{copy}: {} {e}",
            e.reason()
        );
    }
    let e = promote(&c, &promotion("p", "part", "postgres")).await;
    assert_eq!(e.unwrap_err().reason(), R::TargetNotAllowed);
    assert_eq!(
        (c.databases(), marker(&c, "app").as_str()),
        (before, "precious")
    );

    // A part replaces nothing, but may have any free name. It keeps its own properties.
    c.psql(
        "postgres",
        "COMMENT ON DATABASE part IS 'its own'; ALTER DATABASE part SET statement_timeout = '7s';
         ALTER DATABASE part CONNECTION LIMIT 5; GRANT CREATE ON DATABASE part TO role_b",
    );
    let moved = promote(&c, &promotion("move", "part", "moved"))
        .await
        .unwrap();
    assert_eq!(moved.previous_database, None);
    assert_eq!(
        moved.notes,
        [
            "moved keeps what the copy had of its own: settings (statement_timeout), connection limit (5), grants (CREATE to role_b)"
        ]
    );
    assert_eq!(c.psql("moved", "SHOW statement_timeout"), "7s");
    let comment =
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'moved'";
    assert_eq!(c.psql("postgres", comment), "its own");
    // A person may vouch for a database, and the result says so.
    let vouched = Promotion {
        provenance: Provenance::Waived,
        ..promotion("vouched", "handmade", "app")
    };
    let done = promote(&c, &vouched).await.unwrap();
    assert_eq!(done.restored_by, None);
    let says = |done: &Promoted, why: &str| {
        assert!(
            done.notes.iter().any(|n| n.contains(why)),
            "{:?}",
            done.notes
        );
    };
    says(&done, "the journal knows no restore that made it");
    assert_eq!(marker(&c, "app"), "handmade");
    let vouched = Promotion {
        provenance: Provenance::Waived,
        ..promotion("older", "older", "app")
    };
    let done = promote(&c, &vouched).await.unwrap();
    assert!(done.restored_by.is_some());
    says(&done, "an earlier version");
}
