//! The Helm chart: it renders what kustomize renders, and refuses wrong values.

use std::process::{Command, Output};

use serde_json::Value;

use crate::deploy::{root, text_of};
use crate::deploy_rendered::{Rendered, list, text, worker_pod};
use crate::platforms::{documents_of, of_kind};
use crate::tools::installed;

/// The files with values in `examples`.
pub const EXAMPLES: [&str; 5] = ["gke", "gke-direct", "gke-iam", "gke-verification", "plain"];

const CHART: &str = "deploy/helm/pgrestored";

/// Runs Helm; `None`, with a message, if it is not installed.
fn helm(args: &[&str]) -> Option<Output> {
    let mut helm = Command::new(installed("helm/helm")?);
    let out = helm.args(args).current_dir(root()).output();
    Some(out.expect("Helm does not run"))
}

fn template(example: &str, more: &[&str]) -> Option<Output> {
    let values = format!("{CHART}/examples/{example}.yaml");
    let mut args = vec!["template", "pgrestored", CHART, "--namespace", "pgrestored"];
    args.extend(["--values", values.as_str()]);
    args.extend(more);
    helm(&args)
}

/// The documents that the chart renders with the values of an example.
pub fn chart(example: &str, more: &[&str]) -> Option<Vec<Value>> {
    let out = template(example, more)?;
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{example}: {stderr}");
    Some(documents_of(&String::from_utf8(out.stdout).unwrap()))
}

#[test]
fn the_chart_is_linted() {
    for example in EXAMPLES {
        let values = format!("{CHART}/examples/{example}.yaml");
        let Some(out) = helm(&["lint", "--strict", CHART, "-f", &values]) else {
            return;
        };
        let stdout = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{example}: {stdout}");
    }
}

/// Without what only Helm adds, and without the names of generated ConfigMaps.
fn normalized(value: &Value) -> Value {
    const HELM: [&str; 4] = [
        "app.kubernetes.io/instance",
        "checksum/settings",
        "imagePullPolicy",
        "configMapRef",
    ];
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| !HELM.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), normalized(value)))
            .collect(),
        Value::Array(items) => items.iter().map(normalized).collect(),
        other => other.clone(),
    }
}

/// Without Helm, there is nothing to compare.
pub fn the_chart_renders_the_overlays(all: &[Rendered]) {
    let rendered = |wanted: &str| {
        let found = all.iter().find(|(name, _)| name == wanted);
        found.map(|(_, documents)| documents)
    };
    for (example, name) in [
        ("gke", "overlays/production"),
        ("gke-direct", "overlays/production-direct"),
        ("gke-iam", "overlays/production-iam"),
        ("gke-verification", "overlays/verification"),
    ] {
        let theirs = rendered(name).unwrap();
        let Some(ours) = rendered(&format!("helm {example}")) else {
            return;
        };
        for (kind, part) in [
            ("Deployment", "/spec"),
            ("ConfigMap", "/data"),
            ("Service", "/spec"),
            ("ServiceAccount", "/metadata/annotations"),
            ("PodDisruptionBudget", "/spec"),
            ("NetworkPolicy", "/spec"),
            ("PodMonitoring", "/spec"),
            ("ScaledObject", "/spec"),
            ("TriggerAuthentication", "/spec"),
        ] {
            let of = |documents: &[Value]| of_kind(documents, kind).pointer(part).map(normalized);
            assert_eq!(of(ours), of(theirs), "{example}: {kind}");
        }
        let kinds = |documents: &[Value]| {
            let kinds = documents.iter().map(|d| d["kind"].to_string());
            kinds.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(kinds(ours), kinds(theirs), "{example}");
    }
}

/// Each of these is refused, by the schema or by a template, with a message that names it.
#[test]
fn wrong_values_are_refused() {
    for (given, named) in [
        ("nonsense=1", "nonsense"),
        ("settings.db_host=x", "db_host"),
        ("settings.DB_PASSWORD=x", "DB_PASSWORD"),
        ("cloudSql.mode=public", "/cloudSql/mode"),
        ("cloudSql.mode=proxy", "/cloudSql/instance"),
        (
            "terminationGracePeriodSeconds=7200",
            "/terminationGracePeriodSeconds",
        ),
        ("autoscaling.enabled=true", "/autoscaling/project"),
        ("image.repository=", "image.repository"),
        ("replicas=many", "/replicas"),
        ("finishing.files.a\\.txt=x", "a.txt"),
        ("standing.masks.x\\.yaml=x", "standing.orders"),
    ] {
        let Some(out) = template("plain", &["--set", given]) else {
            return;
        };
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success(), "{given} is accepted");
        assert!(stderr.contains(named), "{given}: {stderr}");
    }
    let without_metrics = ["--set", "autoscaling.enabled=true,autoscaling.project=p"];
    let Some(out) = template("plain", &without_metrics) else {
        return;
    };
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(stderr.contains("monitoring.podMonitoring"), "{stderr}");
}

/// The files that the pods get are at the places that the variables name, and the program accepts them.
#[test]
fn the_chart_gives_the_workers_orders_and_what_these_name() {
    let example = format!("{CHART}/examples/standing.yaml");
    let Some(documents) = chart("plain", &["--values", &example]) else {
        return;
    };
    let data_of = |name: &Value| {
        let is_it = |d: &&Value| d["kind"] == "ConfigMap" && d["metadata"]["name"] == *name;
        &documents.iter().find(is_it).unwrap()["data"]
    };
    let folder = tempfile::tempdir().unwrap();
    let here = |path: &str| path.replace("/etc/", &format!("{}/etc/", folder.path().display()));
    let pod = worker_pod(&documents);
    for mount in list(&pod["containers"][0]["volumeMounts"]) {
        let of_mount = |v: &&Value| v["name"] == mount["name"];
        let volume = list(&pod["volumes"]).iter().find(of_mount).unwrap();
        let config = &volume["configMap"]["name"];
        if config.is_null() {
            continue;
        }
        let place = std::path::PathBuf::from(here(text(&mount["mountPath"])));
        std::fs::create_dir_all(&place).unwrap();
        for (name, file) in data_of(config).as_object().unwrap() {
            std::fs::write(place.join(name), text(file)).unwrap();
        }
    }
    let settings = data_of(&Value::from("pgrestored"));
    let setting = |name: &str| here(text(&settings[name]));
    assert_eq!(setting("MASK_KEY_FILE"), "/run/secrets/pgrestored/mask-key");
    let key = folder.path().join("mask-key");
    std::fs::write(&key, "a key of at least sixteen bytes").unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    check
        .arg("check")
        .env_clear()
        .env("DB_HOST", "db.example.com")
        .env("MASK_KEY_FILE", &key);
    for name in [
        "ALLOWED_TARGETS",
        "STANDING_RESTORES",
        "RESTORE_FINISH_FROM",
    ] {
        check.env(name, setting(name));
    }
    let out = check.output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{stderr}");
    let finishing = setting("RESTORE_FINISH_FROM");
    let finishing = std::path::Path::new(finishing.strip_prefix("file://").unwrap());
    for file in ["staging.sql", "staging.checks.yaml"] {
        assert!(finishing.join(file).is_file(), "{file}");
    }
}

#[test]
fn settings_replace_and_remove_the_charts_own() {
    let more = [
        "--set",
        "settings.RESTORE_TIMEOUT=3h,settings.DRAIN_TIMEOUT=null,settings.RESTORE_MAX_GIB=1000000",
    ];
    let Some(documents) = chart("plain", &more) else {
        return;
    };
    let data = &of_kind(&documents, "ConfigMap")["data"];
    assert_eq!(data["RESTORE_TIMEOUT"], "3h");
    assert_eq!(data["DRAIN_TIMEOUT"], Value::Null);
    assert_eq!(data["RESTORE_MAX_GIB"], "1000000");
}

/// The schema and the table in the README have every value.
#[test]
fn every_value_is_described() {
    let read = |file: &str| text_of(&format!("{CHART}/{file}"));
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let readme = read("README.md");
    let table: String = readme.lines().filter(|l| l.starts_with("| `")).collect();
    for (name, value) in values.as_object().unwrap() {
        let of = &schema["properties"][name];
        assert!(of.is_object(), "{name} is not in the schema");
        assert!(table.contains(&format!("`{name}")), "{name}: README");
        let is_closed = of["additionalProperties"] == false;
        for part in value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(part, _)| part)
        {
            let is_known = of["properties"][part].is_object();
            assert!(is_known || !is_closed, "{name}.{part} is not in the schema");
        }
    }
    assert_eq!(schema["additionalProperties"], false);
}
