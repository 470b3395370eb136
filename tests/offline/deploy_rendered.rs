//! What Kubernetes is given, by kustomize and by Helm: selectors, open ports, the connection to the server.

use serde_json::{Value, json};

use crate::deploy::{root, text_of};
use crate::deploy_helm::{self, EXAMPLES, chart};
use crate::platforms::{OVERLAYS, kustomize, of_kind, overlay};
use crate::{deploy_gke, platforms};

/// The name of an overlay or of an example of the chart, and its documents.
pub type Rendered = (String, Vec<Value>);

/// What is true of all of them, of which each is rendered once.
#[test]
fn what_kubernetes_is_given_is_right() {
    let Some(all) = rendered() else {
        return;
    };
    every_selector_matches_one_workload(&all);
    every_port_in_use_is_open(&all);
    platforms::manifests_are_valid(&all);
    platforms::deployed_variables_are_valid(&all);
    platforms::a_worker_on_kubernetes_is_hardened_and_drains(&all);
    deploy_helm::the_chart_renders_the_overlays(&all);
    let on_gke = for_gke(&all);
    the_server_is_verified(&on_gke);
    deploy_gke::pods_fit_into_gke(&on_gke);
    deploy_gke::sandboxes_have_their_own_disk(&on_gke);
    deploy_gke::no_worker_is_removed_while_a_request_runs(&on_gke);
}

/// Every overlay and every example of the chart.
fn rendered() -> Option<Vec<Rendered>> {
    let mut all = Vec::new();
    for name in OVERLAYS {
        all.push((name.to_owned(), overlay(name)?));
    }
    for name in EXAMPLES {
        if let Some(documents) = chart(name, &[]) {
            all.push((format!("helm {name}"), documents));
        }
    }
    Some(all)
}

/// Those that run on GKE with Cloud SQL.
fn for_gke(all: &[Rendered]) -> Vec<Rendered> {
    let is_for_gke = |name: &str| {
        ["production", "verification", "helm gke"]
            .iter()
            .any(|part| name.contains(part))
    };
    let on_gke = all.iter().filter(|(name, _)| is_for_gke(name));
    let on_gke: Vec<Rendered> = on_gke.cloned().collect();
    assert!(on_gke.len() >= 3, "{}", on_gke.len());
    on_gke
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

pub fn settings(documents: &[Value]) -> &Value {
    &of_kind(documents, "ConfigMap")["data"]
}

/// The templates of every workload's pods.
fn templates(documents: &[Value]) -> Vec<&Value> {
    documents
        .iter()
        .filter(|d| d["kind"] == "Deployment")
        .map(|d| &d["spec"]["template"])
        .collect()
}

/// The pod with the worker.
pub fn worker_pod(documents: &[Value]) -> &Value {
    let pods = templates(documents).into_iter().map(|t| &t["spec"]);
    let mut workers = pods.filter(|pod| pod["containers"][0]["name"] == "worker");
    workers.next().expect("no pod has a worker")
}

/// The containers of a pod, and its sidecars.
pub fn containers(pod: &Value) -> Vec<&Value> {
    let sidecars = list(&pod["initContainers"]).iter();
    sidecars.chain(list(&pod["containers"])).collect()
}

/// Where an object of each kind says which pods it is about.
const SELECTORS: [(&str, &str); 6] = [
    ("Deployment", "/spec/selector/matchLabels"),
    ("Service", "/spec/selector"),
    ("PodDisruptionBudget", "/spec/selector/matchLabels"),
    ("NetworkPolicy", "/spec/podSelector/matchLabels"),
    ("PodMonitoring", "/spec/selector/matchLabels"),
    ("PodMonitor", "/spec/selector/matchLabels"),
];

/// Asserts that every selector matches the pods of one workload, and returns how many there are.
fn check_selectors(name: &str, documents: &[Value]) -> usize {
    let mut checked = 0;
    for document in documents {
        let kind = text(&document["kind"]);
        let Some((_, path)) = SELECTORS.iter().find(|(of, _)| *of == kind) else {
            continue;
        };
        let selector = document.pointer(path).and_then(Value::as_object);
        let Some(selector) = selector.filter(|labels| !labels.is_empty()) else {
            panic!("{name}: this {kind} selects all pods or none");
        };
        let is_selected = |template: &&Value| {
            let labels = &template["metadata"]["labels"];
            selector
                .iter()
                .all(|(key, value)| labels[key.as_str()] == *value)
        };
        let selected = templates(documents).into_iter().filter(is_selected).count();
        assert_eq!(selected, 1, "{name}: {kind}: {selector:?}");
        checked += 1;
    }
    checked
}

fn every_selector_matches_one_workload(all: &[Rendered]) {
    for (name, documents) in all {
        let checked = check_selectors(name, documents);
        assert!(checked >= 4, "{name}: only {checked} selectors");
    }
}

/// The base with a component that no overlay contains.
fn with_component(component: &str) -> Option<Vec<Value>> {
    let folder = tempfile::tempdir().unwrap();
    // kustomize accepts relative paths only.
    let depth = folder.path().canonicalize().unwrap().components().count() - 1;
    let base = root().canonicalize().unwrap();
    let up = format!("{}{}", "../".repeat(depth), &base.to_str().unwrap()[1..]);
    let kustomization = json!({
        "resources": [format!("{up}/deploy/kubernetes/base")],
        "components": [format!("{up}/deploy/kubernetes/components/{component}")],
    });
    let file = folder.path().join("kustomization.yaml");
    std::fs::write(file, kustomization.to_string()).unwrap();
    kustomize(folder.path())
}

#[test]
fn the_prometheus_operator_finds_the_workers() {
    let Some(documents) = with_component("prometheus-operator") else {
        return;
    };
    assert_eq!(check_selectors("prometheus-operator", &documents), 5);
    let monitor = &of_kind(&documents, "PodMonitor")["spec"];
    let labels = &templates(&documents)[0]["metadata"]["labels"];
    assert_eq!(labels[text(&monitor["jobLabel"])], "pgrestored");
    let port = &worker_pod(&documents)["containers"][0]["ports"][0]["name"];
    assert_eq!(monitor["podMetricsEndpoints"][0]["port"], *port);
}

#[test]
fn the_workers_get_the_orders_of_standing_restores() {
    let Some(documents) = with_component("standing-restores") else {
        return;
    };
    let pod = worker_pod(&documents);
    let volumes = list(&pod["volumes"]);
    let orders = volumes.iter().find(|v| v["name"] == "standing").unwrap();
    let config = text(&orders["configMap"]["name"]);
    let file = documents.iter().find(|d| d["metadata"]["name"] == config);
    assert!(file.unwrap()["data"]["standing.yaml"].is_string());
    let mounts = list(&pod["containers"][0]["volumeMounts"]);
    let mount = mounts.iter().find(|m| m["name"] == "standing").unwrap();
    let path = format!("{}/standing.yaml", text(&mount["mountPath"]));
    let settings = documents
        .iter()
        .find(|d| d["data"]["STANDING_RESTORES"] == path.as_str());
    assert!(settings.is_some(), "{path}");
}

/// Whether a rule of a NetworkPolicy contains this port.
fn opens(rule: &Value, port: u64, protocol: &str) -> bool {
    list(&rule["ports"])
        .iter()
        .any(|p| p["port"] == port && p["protocol"].as_str().unwrap_or("TCP") == protocol)
}

/// The port of the OTLP collector that the documentation names.
fn otlp_port() -> u64 {
    let page = text_of("docs/logging.md");
    let (_, rest) = page
        .split_once("OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:")
        .unwrap();
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap()
}

/// The ports that a worker with these settings connects to, at any address.
fn outgoing(settings: &Value) -> Vec<(u64, &'static str, &'static str)> {
    let database = settings["DB_PORT"].as_str().unwrap_or("5432");
    vec![
        (53, "UDP", "DNS"),
        (53, "TCP", "DNS"),
        (443, "TCP", "Google's APIs"),
        (database.parse().unwrap(), "TCP", "PostgreSQL"),
        (3307, "TCP", "Cloud SQL, for its Auth Proxy"),
        (otlp_port(), "TCP", "OTLP"),
    ]
}

fn every_port_in_use_is_open(all: &[Rendered]) {
    for (name, documents) in all {
        let policy = &of_kind(documents, "NetworkPolicy")["spec"];
        let (settings, egress) = (settings(documents), list(&policy["egress"]));
        for (port, protocol, what) in outgoing(settings) {
            let is_open = egress
                .iter()
                .any(|rule| rule["to"].is_null() && opens(rule, port, protocol));
            assert!(is_open, "{name}: {port}/{protocol} is closed: {what}");
        }
        for (port, address) in [(80, "169.254.169.254/32"), (988, "169.254.169.252/32")] {
            let to_it = |rule: &Value| {
                let mut to = list(&rule["to"]).iter();
                to.any(|to| to["ipBlock"]["cidr"] == address)
            };
            let is_open = egress
                .iter()
                .any(|rule| opens(rule, port, "TCP") && to_it(rule));
            assert!(is_open, "{name}: the metadata server: {port} {address}");
        }
        check_ingress(name, documents);
    }
}

/// Asserts that Prometheus may reach the admin port, wherever it runs.
fn check_ingress(name: &str, documents: &[Value]) {
    let (_, admin) = text(&settings(documents)["ADMIN_ADDR"])
        .rsplit_once(':')
        .unwrap();
    let admin: u64 = admin.parse().unwrap();
    let port = &worker_pod(documents)["containers"][0]["ports"][0];
    assert_eq!(port["containerPort"], admin, "{name}");
    let ingress = list(&of_kind(documents, "NetworkPolicy")["spec"]["ingress"]);
    let from: Vec<&Value> = ingress
        .iter()
        .filter(|rule| opens(rule, admin, "TCP"))
        .flat_map(|rule| list(&rule["from"]))
        .flat_map(|from| list(&from["namespaceSelector"]["matchExpressions"]))
        .flat_map(|expression| list(&expression["values"]))
        .collect();
    for namespace in ["monitoring", "gmp-system", "gke-gmp-system"] {
        assert!(
            from.iter().any(|n| **n == namespace),
            "{name}: {namespace}: {from:?}"
        );
    }
}

/// Cloud SQL is reached through its Auth Proxy in the same pod, or its certificate is checked against a CA that the pod has.
fn the_server_is_verified(on_gke: &[Rendered]) {
    for (name, documents) in on_gke {
        let (settings, pod) = (settings(documents), worker_pod(documents));
        let host = text(&settings["DB_HOST"]);
        let is_proxy = |c: &&Value| text(&c["image"]).contains("/cloud-sql-proxy:");
        let proxy = containers(pod).into_iter().find(is_proxy);
        if host == "127.0.0.1" {
            let proxy = proxy.unwrap_or_else(|| panic!("{name}: nothing listens on {host}"));
            // A native sidecar outlives the worker, which needs the server while it drains.
            assert_eq!(proxy["restartPolicy"], "Always", "{name}");
            let args: Vec<&str> = list(&proxy["args"]).iter().map(text).collect();
            let port = settings["DB_PORT"].as_str().unwrap_or("5432");
            assert!(
                args.contains(&format!("--port={port}").as_str()),
                "{args:?}"
            );
            assert!(args.contains(&"--private-ip"), "{args:?}");
            let instances = args.iter().filter(|a| a.matches(':').count() == 2).count();
            assert_eq!(instances, 1, "{name}: {args:?}");
            continue;
        }
        // An address is in no certificate of Cloud SQL.
        assert_eq!(settings["DB_SSLMODE"], "verify-ca", "{name}");
        let file = text(&settings["DB_SSLROOTCERT"]);
        let is_mounted = list(&pod["containers"][0]["volumeMounts"])
            .iter()
            .any(|m| file.starts_with(&format!("{}/", text(&m["mountPath"]))));
        assert!(is_mounted, "{name}: {file}");
    }
}

/// Every address that the local overlay uses is a service in it, or a container of the same pod.
#[test]
fn the_local_overlay_is_complete() {
    let Some(documents) = overlay("overlays/local") else {
        return;
    };
    let (settings, pod) = (settings(&documents), worker_pod(&documents));
    let args: Vec<&str> = containers(pod)
        .into_iter()
        .flat_map(|c| list(&c["args"]))
        .map(text)
        .collect();
    let is_given = |flag: &str, value: &Value| {
        let value = text(value);
        let value = value.strip_prefix("gs://").unwrap_or(value);
        args.contains(&format!("--{flag}={value}").as_str())
    };
    for (flag, name) in [
        ("listen", "PUBSUB_EMULATOR_HOST"),
        ("listen", "STORAGE_EMULATOR_HOST"),
        ("emulated-project", "GOOGLE_CLOUD_PROJECT"),
        ("emulated-bucket", "BACKUP_BUCKET"),
    ] {
        assert!(is_given(flag, &settings[name]), "{name}: {args:?}");
    }
    let mut services = documents.iter().filter(|d| d["kind"] == "Service");
    let server = services.find(|d| d["metadata"]["name"] == settings["DB_HOST"]);
    let ports = &server.expect("DB_HOST is not a service")["spec"]["ports"];
    let port = settings["DB_PORT"].as_str().unwrap_or("5432");
    assert_eq!(ports[0]["port"], port.parse::<u64>().unwrap());
    let secret = &of_kind(&documents, "Secret")["metadata"]["name"];
    let mut volumes = list(&pod["volumes"]).iter();
    assert!(volumes.any(|v| v["secret"]["secretName"] == *secret));
}

/// On a node that is taken away with some 15 s of notice, a worker has to hand over in time, and each time costs a delivery.
#[test]
fn workers_on_spot_nodes_hand_over_in_time() {
    let Some(documents) = with_component("spot") else {
        return;
    };
    let pod = worker_pod(&documents);
    assert_eq!(pod["nodeSelector"]["cloud.google.com/gke-spot"], "true");
    assert_eq!(pod["tolerations"][0]["key"], "cloud.google.com/gke-spot");
    assert_eq!(pod["terminationGracePeriodSeconds"], 25);
    let settings = settings(&documents);
    let number = |name: &str| {
        text(&settings[name])
            .trim_end_matches('s')
            .parse::<u64>()
            .unwrap()
    };
    assert!(number("DRAIN_TIMEOUT") + 2 < 15);
    assert!(number("RESTORE_MAX_ATTEMPTS") < number("RESTORE_QUARANTINE_AFTER"));
    // Default of max_delivery_attempts in deploy/terraform/variables.tf.
    assert!(number("RESTORE_QUARANTINE_AFTER") < 20);
}
