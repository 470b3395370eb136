//! Deployment files, checked with their platforms' validators: Kubernetes, Docker, Terraform, systemd,
//! Grafana and Alertmanager. Nothing is started. What they must say is in `deploy_*`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::deploy::{installed, names_of_series, root, text_of};
use crate::deploy_rendered::Rendered;
use crate::tools::installed as installed_tool;

fn deploy() -> PathBuf {
    root().join("deploy")
}

/// Runs a program installed by `make setup`.
fn run_tool(name: &str, args: &[&str]) -> Option<String> {
    run(Command::new(installed_tool(&format!("python/bin/{name}"))?).args(args))
}

/// Standard output of a program that must succeed; `None`, with a message, if it is not installed.
fn run(command: &mut Command) -> Option<String> {
    let out = installed(command.current_dir(deploy()))?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.status.success(), "{command:?}: {stdout}\n{stderr}");
    Some(stdout.into_owned())
}

/// The documents that an overlay generates, as JSON.
pub fn overlay(name: &str) -> Option<Vec<Value>> {
    kustomize(&deploy().join("kubernetes").join(name))
}

/// The documents that a folder with a `kustomization.yaml` generates.
pub fn kustomize(folder: &Path) -> Option<Vec<Value>> {
    let yaml = run(Command::new("kubectl").arg("kustomize").arg(folder))?;
    Some(documents_of(&yaml))
}

/// The documents of a YAML stream.
pub fn documents_of(yaml: &str) -> Vec<Value> {
    let stream = format!("\n{yaml}");
    let parts = stream
        .split("\n---\n")
        .filter(|part| !part.trim().is_empty());
    parts
        .map(|part| serde_saphyr::from_str::<Value>(part).unwrap())
        .collect()
}

pub const OVERLAYS: [&str; 6] = [
    "base",
    "overlays/local",
    "overlays/production",
    "overlays/production-direct",
    "overlays/production-iam",
    "overlays/verification",
];
/// Custom resources; the validator has no schemas for them.
const CUSTOM: [&str; 4] = [
    "ScaledObject",
    "TriggerAuthentication",
    "PodMonitor",
    "PodMonitoring",
];

pub fn manifests_are_valid(all: &[Rendered]) {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (name, documents) in all {
        let known = documents
            .iter()
            .filter(|d| !CUSTOM.contains(&d["kind"].as_str().unwrap()));
        for (number, document) in known.enumerate() {
            let file = format!("{}-{number}.yaml", name.replace(['/', ' '], "-"));
            let file = folder.path().join(file);
            std::fs::write(&file, document.to_string()).unwrap();
            files.push(file.to_str().unwrap().to_owned());
        }
    }
    let mut validate = vec!["--strict", "--kubernetes-version", "1.32"];
    validate.extend(files.iter().map(String::as_str));
    run_tool("kubernetes-validate", &validate);
}

/// The one document of this kind.
pub fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    documents
        .iter()
        .find(|d| d["kind"] == kind)
        .unwrap_or_else(|| panic!("no {kind}"))
}

pub fn a_worker_on_kubernetes_is_hardened_and_drains(all: &[Rendered]) {
    for wanted in [
        "overlays/production",
        "overlays/production-direct",
        "overlays/production-iam",
        "overlays/verification",
    ] {
        let (name, documents) = all.iter().find(|(name, _)| name == wanted).unwrap();
        let pod = &of_kind(documents, "Deployment")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(
            container["securityContext"]["readOnlyRootFilesystem"], true,
            "{name}"
        );
        assert_eq!(
            container["securityContext"]["capabilities"]["drop"][0], "ALL",
            "{name}"
        );
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        // The worker drains and cleans up before the pod is killed.
        let settings = &of_kind(documents, "ConfigMap")["data"];
        let drain = settings["DRAIN_TIMEOUT"]
            .as_str()
            .unwrap()
            .strip_suffix('m')
            .unwrap();
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(
            drain.parse::<u64>().unwrap() * 60 + 60 < grace,
            "{name}: {drain} min of {grace} s"
        );
        // KEDA sets the number of workers, and refers to the right deployment.
        assert_eq!(
            of_kind(documents, "Deployment")["spec"]["replicas"],
            Value::Null,
            "{name}"
        );
        let scaled = &of_kind(documents, "ScaledObject")["spec"];
        assert_eq!(
            scaled["scaleTargetRef"]["name"],
            of_kind(documents, "Deployment")["metadata"]["name"]
        );
        assert_eq!(scaled["triggers"][0]["type"], "prometheus");
        let auth = &of_kind(documents, "TriggerAuthentication")["metadata"]["name"];
        assert_eq!(scaled["triggers"][0]["authenticationRef"]["name"], *auth);
        // Google's managed Prometheus uses the name as `job`, by which the rules identify the workers.
        let monitoring = of_kind(documents, "PodMonitoring");
        assert_eq!(monitoring["metadata"]["name"], "pgrestored", "{name}");
        assert_eq!(
            monitoring["spec"]["endpoints"][0]["port"], container["ports"][0]["name"],
            "{name}"
        );
    }
}

/// Every variable that a platform sets exists, and the program accepts its value.
pub fn deployed_variables_are_valid(all: &[Rendered]) {
    let mut sets: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for (name, documents) in all {
        let data = of_kind(documents, "ConfigMap")["data"]
            .as_object()
            .unwrap()
            .clone();
        let pairs = data
            .into_iter()
            .map(|(k, v)| (k, v.as_str().unwrap().to_owned()))
            .collect();
        sets.push((name.clone(), pairs));
    }
    let text =
        |file: &str| serde_saphyr::from_str::<Value>(&text_of(&format!("deploy/{file}"))).unwrap();
    for (name, pool) in crate::deploy_cloud_run::pools() {
        let env = pool["spec"]["template"]["spec"]["containers"][0]["env"]
            .as_array()
            .unwrap();
        let plain = env
            .iter()
            .filter_map(|e| Some((e["name"].as_str()?.into(), e["value"].as_str()?.into())));
        sets.push((name, plain.collect()));
    }
    let compose = text("compose.yaml");
    let env = compose["services"]["worker"]["environment"]
        .as_object()
        .unwrap();
    let plain = env
        .iter()
        .map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()));
    sets.push(("compose".into(), plain.collect()));
    let known = crate::documents::variables();
    for (name, pairs) in sets {
        let unknown: Vec<_> = pairs.iter().filter(|(k, _)| !known.contains(k)).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        // The files with secrets and certificates do not exist here.
        let is_file = |name: &str| name.ends_with("_FILE") || name == "DB_SSLROOTCERT";
        let pairs = pairs.iter().filter(|(k, _)| !is_file(k));
        let mut check = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        let out = check
            .arg("check")
            .env_clear()
            .envs(pairs.cloned())
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
}

#[test]
fn the_dockerfile_is_linted() {
    run_tool("hadolint", &["Dockerfile"]);
}

#[test]
fn the_compose_file_is_valid() {
    run_tool(
        "check-jsonschema",
        &["--builtin-schema", "vendor.compose-spec", "compose.yaml"],
    );
    run_tool(
        "yamllint",
        &[
            "-d",
            // Helm's templates are no YAML before they are rendered.
            "{extends: relaxed, ignore: [helm/pgrestored/templates/], rules: {line-length: disable}}",
            ".",
        ],
    );
}

#[test]
fn terraform_is_formatted() {
    run(Command::new("terraform").args(["fmt", "-check", "-recursive", "-diff", "terraform"]));
}

#[test]
fn the_systemd_unit_is_valid() {
    let unit = text_of("deploy/systemd/pgrestored.service");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgrestored.service");
    let here = unit.replace(
        "/usr/local/bin/pgrestored",
        env!("CARGO_BIN_EXE_pgrestored"),
    );
    std::fs::write(&file, here).unwrap();
    let mut verify = Command::new("systemd-analyze");
    let Some(out) = installed(verify.args(["verify", "--man=no"]).arg(&file)) else {
        return;
    };
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    let ours: Vec<&str> = stderr
        .lines()
        .filter(|l| l.contains("pgrestored.service"))
        .collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

#[test]
fn alertmanager_routes_alerts_by_severity() {
    let file = "alertmanager/alertmanager.yml";
    let amtool = |args: &[&str]| run(Command::new("amtool").args(args));
    if amtool(&["check-config", file]).is_none() {
        return;
    }
    let alerts = crate::deploy::alerts();
    assert!(alerts.len() > 10, "{alerts:?}");
    for (name, severity) in &alerts {
        let wanted = if severity == "critical" {
            "pager"
        } else {
            "chat"
        };
        let config = format!("--config.file={file}");
        let verify = format!("--verify.receivers={wanted}");
        let labels = [format!("alertname={name}"), format!("severity={severity}")];
        amtool(&[
            "config", "routes", "test", &config, &verify, &labels[0], &labels[1],
        ]);
    }
    // Inhibition rules name only existing alerts.
    let config = text_of("deploy/alertmanager/alertmanager.yml");
    let named = config
        .split("alertname=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap());
    for name in named {
        assert!(alerts.iter().any(|(alert, _)| alert == name), "{name}");
    }
}

/// The dashboard queries only existing series; its panels have descriptions and do not overlap.
#[test]
fn the_dashboard_is_valid() {
    let dashboard: Value =
        serde_json::from_str(&text_of("deploy/grafana/pgrestored.json")).unwrap();
    let known: BTreeSet<String> = crate::deploy::series();
    let (mut taken, mut queries) = (BTreeSet::new(), 0);
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for (x, y) in (at("x")..at("x") + at("w"))
            .flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            assert!(
                x < 24 && taken.insert((x, y)),
                "{title} overlaps at {x}, {y}"
            );
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(
            panel["description"].as_str().is_some_and(|d| d.len() > 10),
            "{title}"
        );
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            queries += 1;
            for name in names_of_series(target["expr"].as_str().unwrap()) {
                assert!(known.contains(&name), "{title}: {name}");
            }
        }
    }
    assert!(queries > 20, "{queries}");
}

#[test]
fn the_asyncapi_document_is_valid() {
    let Some(modules) = installed_tool("node/node_modules") else {
        return;
    };
    let program = "const { Parser, fromFile } = require('@asyncapi/parser'); const p = new Parser(); \
        fromFile(p, process.argv[1]).parse().then(({ document, diagnostics }) => { \
          const bad = diagnostics.filter((d) => d.severity <= 1); bad.forEach((d) => console.error(d.message, d.path)); \
          process.exit(document && bad.length === 0 ? 0 : 1); })";
    let mut node = Command::new("node");
    node.args(["-e", program])
        .arg(root().join("schemas/asyncapi.yaml"))
        .env("NODE_PATH", modules);
    run(&mut node);
}
