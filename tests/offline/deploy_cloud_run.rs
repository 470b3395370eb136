//! The worker pools of Cloud Run, and the order of steps in the guides.

use std::net::IpAddr;

use serde_json::Value;

use crate::deploy::{root, text_of};
use crate::deploy_rendered::list;

/// What Cloud Run allows between SIGTERM and SIGKILL.
const GRACE_SECONDS: u64 = 10;

/// Every worker pool, by the name of its file.
pub fn pools() -> Vec<(String, Value)> {
    let files = [
        "worker-pool.yaml",
        "worker-pool-auth-proxy.yaml",
        "worker-pool-iam.yaml",
    ];
    files
        .iter()
        .map(|file| {
            let pool = text_of(&format!("deploy/cloud-run/{file}"));
            ((*file).to_owned(), serde_saphyr::from_str(&pool).unwrap())
        })
        .collect()
}

#[test]
fn every_pool_is_tested() {
    let files = std::fs::read_dir(root().join("deploy/cloud-run")).unwrap();
    assert_eq!(files.count(), pools().len());
}

/// The value of a variable; empty if it is not set.
fn variable<'a>(worker: &'a Value, name: &str) -> &'a str {
    let mut variables = list(&worker["env"]).iter();
    let found = variables.find(|v| v["name"] == name);
    found.and_then(|v| v["value"].as_str()).unwrap_or_default()
}

#[test]
fn a_pool_verifies_its_server_and_stops_in_time() {
    for (name, pool) in pools() {
        let spec = &pool["spec"]["template"]["spec"];
        let worker = &spec["containers"][0];
        assert_eq!(worker["name"], "worker", "{name}");
        let drain = variable(worker, "DRAIN_TIMEOUT");
        let drain: u64 = drain.strip_suffix('s').unwrap().parse().unwrap();
        assert!(drain < GRACE_SECONDS / 2, "{name}: {drain} s");
        let host: IpAddr = variable(worker, "DB_HOST").parse().unwrap();
        if host.is_loopback() {
            let proxy = &spec["containers"][1];
            let args: Vec<&str> = list(&proxy["args"])
                .iter()
                .filter_map(Value::as_str)
                .collect();
            // It is stopped at the same time, but the worker must still reach the server.
            for flag in ["--private-ip", "--port=5432", "--min-sigterm-delay=9s"] {
                assert!(args.contains(&flag), "{name}: {flag}: {args:?}");
            }
            assert!(args.iter().any(|a| a.matches(':').count() == 2), "{args:?}");
            continue;
        }
        // An address is in no certificate of Cloud SQL, and no system trusts its CA.
        assert_eq!(variable(worker, "DB_SSLMODE"), "verify-ca", "{name}");
        let mount = &worker["volumeMounts"][0];
        let volume = &spec["volumes"][0];
        assert_eq!(mount["name"], volume["name"], "{name}");
        let (folder, file) = (&mount["mountPath"], &volume["secret"]["items"][0]["path"]);
        let path = format!("{}/{}", folder.as_str().unwrap(), file.as_str().unwrap());
        assert_eq!(variable(worker, "DB_SSLROOTCERT"), path, "{name}");
    }
}

/// The guide creates every secret, and lets the worker read it.
#[test]
fn the_guide_creates_the_secrets() {
    let guide = text_of("docs/guides/cloud-run.md");
    for (name, pool) in pools() {
        let spec = &pool["spec"]["template"]["spec"];
        let variables = list(&spec["containers"][0]["env"]).iter();
        let named = variables.map(|v| &v["valueFrom"]["secretKeyRef"]["name"]);
        let mounted = list(&spec["volumes"])
            .iter()
            .map(|v| &v["secret"]["secretName"]);
        let secrets: Vec<&str> = named.chain(mounted).filter_map(Value::as_str).collect();
        assert!(!secrets.is_empty(), "{name}");
        let (_, readable) = guide.split_once("for secret in ").unwrap();
        for secret in secrets {
            let created = format!("gcloud secrets create {secret} ");
            assert!(guide.contains(&created), "{name}: {secret}");
            assert!(
                readable.lines().next().unwrap().contains(secret),
                "{secret}"
            );
        }
    }
}

fn assert_in_order(guide: &str, steps: &[&str]) {
    let text = text_of(guide);
    let mut rest = text.as_str();
    for step in steps {
        let found = rest.split_once(step);
        (_, rest) = found.unwrap_or_else(|| panic!("{guide}: no {step} after the step before it"));
    }
}

#[test]
fn the_guides_have_every_step_in_order() {
    assert_in_order(
        "docs/guides/gke.md",
        &[
            "gcloud services enable cloudresourcemanager",
            // The Workload Identity pool, to which Terraform grants roles.
            "container clusters create-auto",
            "terraform -chdir=deploy/terraform init",
            "terraform -chdir=deploy/terraform apply",
            "gcloud auth configure-docker",
            "docker build",
            "docker push",
            "CREATE ROLE pgrestored",
            "helm repo add kedacore",
            "podIdentity.gcp.gcpIAMServiceAccount",
            "kubectl create namespace pgrestored",
            "create secret generic pgrestored",
            "kubectl apply -k",
            "pgrestored doctor",
            "gcloud sql ssl server-ca-certs list",
            "overlays/production-direct",
        ],
    );
    assert_in_order(
        "docs/guides/cloud-run.md",
        &[
            "gcloud services enable cloudresourcemanager",
            "terraform -chdir=deploy/terraform apply",
            "gke.md#3-the-image",
            "gke.md#4-a-role-on-the-target-server",
            "gcloud secrets create",
            "gcloud sql ssl server-ca-certs list",
            "worker-pools replace",
        ],
    );
}

/// Every name to replace is one that both guides replace; the base has none.
#[test]
fn the_guides_replace_every_name() {
    const NAMES: [&str; 4] = ["my-project", "my-region", "my-backups", "my-instance"];
    let guides = ["docs/guides/gke.md", "docs/guides/cloud-run.md"].map(text_of);
    for name in NAMES {
        let replaced = format!("s/{name}/$");
        assert!(guides.iter().all(|g| g.contains(&replaced)), "{name}");
    }
    let mut folders = ["kubernetes", "cloud-run", "helm/pgrestored/examples"]
        .map(|folder| root().join("deploy").join(folder))
        .to_vec();
    let mut found = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            for word in words.filter(|w| w.starts_with("my-") && *w != "my-") {
                let is_known = NAMES.iter().any(|name| word.starts_with(name));
                assert!(is_known, "{}: {word}", path.display());
                assert!(!folder.ends_with("base"), "{}: {word}", path.display());
                found += 1;
            }
        }
    }
    assert!(found > 20, "{found}");
}
