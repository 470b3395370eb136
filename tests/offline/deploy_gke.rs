//! The limits of GKE, and the scaling of workers there.

use serde_json::{Value, json};

use crate::deploy::{RULES_TEST, installed, test_of_rules};
use crate::deploy_rendered::{Rendered, containers, list, settings, text, worker_pod};
use crate::platforms::of_kind;

/// Bytes of a quantity such as `64Mi`.
fn bytes(quantity: &Value) -> u64 {
    let quantity = text(quantity);
    let (number, unit) = quantity.split_at(quantity.len() - 2);
    let factor = match unit {
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => panic!("{quantity}"),
    };
    number.parse::<u64>().unwrap() * factor
}

/// What GKE waits for in a node upgrade (cloud.google.com/kubernetes-engine/docs/how-to/extended-duration-pods, 11/2026).
const LONGEST_GRACE: u64 = 3600;
/// What a pod on Autopilot may use of its node's disk (…/docs/concepts/autopilot-resource-requests, 11/2026).
const MOST_STORAGE: u64 = 10 << 30;

pub fn pods_fit_into_gke(on_gke: &[Rendered]) {
    for (name, documents) in on_gke {
        let pod = worker_pod(documents);
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace <= LONGEST_GRACE, "{name}: {grace} s");
        let mut storage = 0;
        for container in containers(pod) {
            let (requests, limits) = (
                &container["resources"]["requests"],
                &container["resources"]["limits"],
            );
            // Autopilot sets limits to requests, whatever they are.
            for resource in ["memory", "ephemeral-storage"] {
                assert_eq!(requests[resource], limits[resource], "{name}: {resource}");
            }
            storage += bytes(&requests["ephemeral-storage"]);
        }
        let volumes = list(&pod["volumes"]).iter();
        let folders = volumes.filter(|v| !v["emptyDir"].is_null());
        let folders: u64 = folders.map(|v| bytes(&v["emptyDir"]["sizeLimit"])).sum();
        assert!(folders <= storage, "{name}: {folders} of {storage}");
        assert!(storage <= MOST_STORAGE, "{name}: {storage} bytes");
    }
}

/// A sandbox holds a whole database, so it has a disk of its own, in a folder that the worker creates there: it rejects a
/// folder of root's, such as the volume itself.
pub fn sandboxes_have_their_own_disk(on_gke: &[Rendered]) {
    let verifying = on_gke
        .iter()
        .filter(|(_, d)| !settings(d)["SANDBOX_DIR"].is_null());
    let mut checked = 0;
    for (name, documents) in verifying {
        let pod = worker_pod(documents);
        let folder = text(&settings(documents)["SANDBOX_DIR"]);
        let mounts = list(&pod["containers"][0]["volumeMounts"]);
        let mount = mounts
            .iter()
            .find(|m| folder.starts_with(&format!("{}/", text(&m["mountPath"]))))
            .unwrap_or_else(|| panic!("{name}: {folder} is not in a volume"));
        let mut volumes = list(&pod["volumes"]).iter();
        let volume = volumes.find(|v| v["name"] == mount["name"]).unwrap();
        let claim = &volume["ephemeral"]["volumeClaimTemplate"]["spec"];
        assert!(bytes(&claim["resources"]["requests"]["storage"]) > MOST_STORAGE);
        checked += 1;
    }
    assert!(checked > 0);
}

/// The demand for workers, evaluated by Prometheus. A ReplicaSet may stop any of its pods, so demand must not fall below
/// their number while a request waits or runs.
pub fn no_worker_is_removed_while_a_request_runs(on_gke: &[Rendered]) {
    for (name, documents) in on_gke {
        let trigger = &of_kind(documents, "ScaledObject")["spec"]["triggers"][0]["metadata"];
        assert_eq!(trigger["threshold"], "1", "{name}");
        assert_eq!(settings(documents)["RESTORE_MAX_CONCURRENT"], "1", "{name}");
        let folder = tempfile::tempdir().unwrap();
        let rules = json!({ "groups": [{ "name": "demand", "rules": [
            { "record": "demand", "expr": trigger["query"] },
        ]}]});
        // Requests that wait or run, workers, demand.
        let cases = [
            (3, 1, Some(3)),
            (1, 4, Some(4)),
            (3, 0, Some(3)),
            (0, 4, None),
        ];
        let tests: Vec<Value> = cases.iter().map(|case| demand_test(*case)).collect();
        let test = json!({ "rule_files": ["rules.yml"], "tests": tests });
        std::fs::write(folder.path().join("rules.yml"), rules.to_string()).unwrap();
        std::fs::write(folder.path().join(RULES_TEST), test.to_string()).unwrap();
        let Some(out) = installed(&mut test_of_rules(folder.path())) else {
            return;
        };
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{name}: {stderr}");
    }
}

/// A test for promtool: the demand for workers with so many requests and workers; `None` if there is none.
fn demand_test((requests, workers, demand): (u64, u64, Option<u64>)) -> Value {
    const REQUESTS: &str = "pubsub_googleapis_com:subscription_num_undelivered_messages\
        {monitored_resource=\"pubsub_subscription\",subscription_id=\"restore-requests\"}";
    let mut series = vec![json!({ "series": REQUESTS, "values": format!("{requests}x20") })];
    for worker in 0..workers {
        let labels = format!(r#"job="pgrestored",namespace="pgrestored",instance="{worker}""#);
        series.push(json!({
            "series": format!("restore_in_progress{{{labels}}}"),
            "values": "0x20",
        }));
    }
    let expected: Vec<Value> = demand
        .iter()
        .map(|value| json!({ "labels": "demand", "value": value }))
        .collect();
    json!({
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            { "expr": "demand", "eval_time": "10m", "exp_samples": expected },
        ],
    })
}
