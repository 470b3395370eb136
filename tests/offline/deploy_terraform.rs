//! Terraform: every permission that the program's calls need is granted, to the right account and on the right resource, and
//! every API is enabled.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::deploy::{root, text_of};

/// The methods of Google's clients that the program calls, and the permission that each needs; empty if none
/// (cloud.google.com/iam/docs/permissions-reference, 11/2026).
const CALLS: [(&str, &str, &str); 13] = [
    ("src/store/gcs.rs", "list_objects", "storage.objects.list"),
    ("src/store/gcs.rs", "get_object", "storage.objects.get"),
    ("src/store/gcs.rs", "read_object", "storage.objects.get"),
    ("src/store/gcs.rs", "write_object", "storage.objects.create"),
    (
        "src/store/gcs.rs",
        "delete_object",
        "storage.objects.delete",
    ),
    ("src/store/gcs.rs", "test_iam_permissions", ""),
    // `restore --restore-soft-deleted` runs as somebody with a role of his own, and only the wording depends on the bucket's.
    ("src/store/gcs.rs", "restore_object", ""),
    ("src/store/gcs.rs", "get_bucket", ""),
    (
        "src/queue/pubsub.rs",
        "subscribe",
        "pubsub.subscriptions.consume",
    ),
    ("src/queue/pubsub.rs", "publish", "pubsub.topics.publish"),
    (
        "src/queue/setup.rs",
        "get_subscription",
        "pubsub.subscriptions.get",
    ),
    ("src/queue/setup.rs", "get_topic", "pubsub.topics.get"),
    ("src/queue/setup.rs", "test_iam_permissions", ""),
];

/// The permissions of roles, as far as the program uses them (cloud.google.com/iam/docs/understanding-roles, 11/2026).
const ROLES: [(&str, &[&str]); 6] = [
    ("roles/pubsub.subscriber", &["pubsub.subscriptions.consume"]),
    ("roles/pubsub.publisher", &["pubsub.topics.publish"]),
    (
        "roles/pubsub.viewer",
        &["pubsub.subscriptions.get", "pubsub.topics.get"],
    ),
    (
        "roles/storage.objectViewer",
        &["storage.objects.get", "storage.objects.list"],
    ),
    ("roles/storage.objectCreator", &["storage.objects.create"]),
    (
        "roles/storage.objectUser",
        &[
            "storage.objects.get",
            "storage.objects.list",
            "storage.objects.create",
            "storage.objects.delete",
        ],
    ),
];

/// A `resource` of the configuration.
struct TerraformResource {
    kind: String,
    name: String,
    body: String,
}

impl TerraformResource {
    /// The text of an argument; empty if it is not given.
    fn argument(&self, name: &str) -> &str {
        let mut arguments = self.body.lines().filter_map(|l| l.split_once('='));
        let found = arguments.find(|(key, _)| key.trim() == name);
        found.map_or("", |(_, value)| value.trim())
    }

    fn role(&self) -> &str {
        self.argument("role").trim_matches('"')
    }
}

fn configuration() -> String {
    ["main", "worker", "keda", "services", "outputs", "variables"]
        .iter()
        .map(|file| format!("\n{}", text_of(&format!("deploy/terraform/{file}.tf"))))
        .collect()
}

fn resources() -> Vec<TerraformResource> {
    let text = configuration();
    let all: Vec<TerraformResource> = text
        .split("\nresource \"")
        .skip(1)
        .map(|part| {
            let quoted: Vec<&str> = part.splitn(4, '"').collect();
            TerraformResource {
                kind: quoted[0].to_owned(),
                name: quoted[2].to_owned(),
                body: part.split("\n}").next().unwrap().to_owned(),
            }
        })
        .collect();
    assert!(all.len() > 20, "{}", all.len());
    all
}

/// The methods that a file calls on the clients.
fn calls_in(file: &str) -> BTreeSet<String> {
    let text = text_of(file);
    let lines = text.lines().filter(|l| !l.trim_start().starts_with("//"));
    let code: String = lines.flat_map(str::split_whitespace).collect();
    let clients = ["self.control.", "self.data.", "self.publisher.", "client."];
    let calls = clients
        .iter()
        .flat_map(|client| code.split(client).skip(1))
        .filter_map(|rest| Some(rest.split_once('(')?.0.to_owned()));
    calls.collect()
}

#[test]
fn every_call_has_its_permission_listed() {
    for file in BTreeSet::from(CALLS.map(|(file, _, _)| file)) {
        let listed = CALLS.iter().filter(|(of, _, _)| *of == file);
        let listed: BTreeSet<String> = listed.map(|(_, call, _)| (*call).to_owned()).collect();
        assert_eq!(calls_in(file), listed, "{file}");
    }
    // Nothing else uses the clients.
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let uses = [
                "google_cloud_storage::client",
                "google_cloud_pubsub::client",
            ]
            .iter()
            .any(|client| text.contains(client));
            let listed = CALLS.iter().any(|(file, _, _)| root().join(file) == path);
            assert!(!uses || listed, "{}", path.display());
        }
    }
}

/// The kind of resource on which a permission is granted, and the argument and text that say on which one.
fn place_of(permission: &str) -> (&'static str, &'static str, &'static str) {
    match permission.rsplit_once('.').unwrap().0 {
        "storage.objects" => ("google_storage_bucket_iam_member", "bucket", "var.bucket"),
        "pubsub.topics" => (
            "google_pubsub_topic_iam_member",
            "topic",
            "google_pubsub_topic.completions.name",
        ),
        "pubsub.subscriptions" => (
            "google_pubsub_subscription_iam_member",
            "subscription",
            "google_pubsub_subscription.work[each.key].name",
        ),
        other => panic!("{other}"),
    }
}

fn permissions_of(role: &str) -> &'static [&'static str] {
    let found = ROLES.iter().find(|(of, _)| *of == role);
    found
        .map(|(_, permissions)| *permissions)
        .unwrap_or_default()
}

#[test]
fn every_permission_is_granted() {
    let resources = resources();
    for (_, call, permission) in CALLS.iter().filter(|(_, _, p)| !p.is_empty()) {
        let (kind, argument, place) = place_of(permission);
        let grants = resources.iter().filter(|r| {
            r.kind == kind
                && r.argument(argument) == place
                && permissions_of(r.role()).contains(permission)
        });
        let members: Vec<&str> = grants.map(|r| r.argument("member")).collect();
        // Workers never delete a backup; `prune --apply` runs as somebody else.
        let is_workers = members.contains(&"local.worker");
        assert_eq!(is_workers, *call != "delete_object", "{call}: {members:?}");
        assert!(!members.is_empty(), "{call}: nobody has {permission}");
    }
}

#[test]
fn people_may_request_restores_and_read_the_results() {
    let resources = resources();
    let has = |role: &str, argument: &str, place: &str, who: &str| {
        resources.iter().any(|r| {
            r.role() == role
                && r.argument(argument) == place
                && r.argument("for_each").contains(who)
                && r.argument("member").starts_with("each.value")
        })
    };
    let requests = "google_pubsub_topic.requests.name";
    assert!(has(
        "roles/pubsub.publisher",
        "topic",
        requests,
        "var.publishers"
    ));
    let results = "google_pubsub_subscription.completions.name";
    for who in ["var.publishers", "var.result_readers"] {
        assert!(
            has("roles/pubsub.subscriber", "subscription", results, who),
            "{who}"
        );
    }
    let letters = resources.iter().find(|r| r.name == "operators").unwrap();
    assert_eq!(letters.role(), "roles/pubsub.subscriber");
    assert!(
        letters
            .body
            .contains("google_pubsub_subscription.dead_letter[")
    );
}

/// Pub/Sub moves messages to dead-letter topics as its own account, which must exist before it is granted anything.
#[test]
fn dead_letters_are_moved_by_an_account_that_exists() {
    let resources = resources();
    let identity = resources
        .iter()
        .find(|r| r.kind == "google_project_service_identity")
        .expect("no service identity");
    assert_eq!(identity.argument("service"), "\"pubsub.googleapis.com\"");
    assert_eq!(identity.argument("provider"), "google-beta");
    let member = format!(
        "\"serviceAccount:${{google_project_service_identity.{}.email}}\"",
        identity.name
    );
    let grants = resources.iter().filter(|r| r.argument("member") == member);
    let roles: BTreeSet<&str> = grants.map(TerraformResource::role).collect();
    let wanted = ["roles/pubsub.publisher", "roles/pubsub.subscriber"];
    assert_eq!(roles, BTreeSet::from(wanted));
    assert!(!configuration().contains("gcp-sa-pubsub"), "a guessed name");
}

#[test]
fn keda_may_read_metrics() {
    let resources = resources();
    let of_keda = |r: &&TerraformResource| r.body.contains("google_service_account.keda[0]");
    let roles: BTreeSet<&str> = resources
        .iter()
        .filter(of_keda)
        .map(TerraformResource::role)
        .collect();
    let wanted = ["roles/iam.workloadIdentityUser", "roles/monitoring.viewer"];
    assert_eq!(roles, BTreeSet::from(wanted));
}

/// Roles on the whole project: metrics, which belong to nothing smaller, and connections and logins to one instance; and on the
/// project that pays for a bucket with Requester Pays, for everybody who calls the bucket.
#[test]
fn roles_on_the_project_are_few() {
    let resources = resources();
    let on_project = resources
        .iter()
        .filter(|r| r.kind == "google_project_iam_member");
    let roles: BTreeSet<&str> = on_project.clone().map(TerraformResource::role).collect();
    let wanted = [
        "roles/cloudsql.client",
        "roles/cloudsql.instanceUser",
        "roles/monitoring.viewer",
        "roles/serviceusage.serviceUsageConsumer",
    ];
    assert_eq!(roles, BTreeSet::from(wanted));
    let with = |start: &'static str| {
        on_project
            .clone()
            .filter(move |r| r.role().starts_with(start))
    };
    for grant in with("roles/cloudsql.") {
        assert!(grant.body.contains("instances/${var.cloud_sql_instance}'"));
    }
    let mut payers = BTreeSet::new();
    for grant in with("roles/serviceusage.serviceUsageConsumer") {
        assert_eq!(grant.argument("project"), "var.user_project");
        assert!(grant.body.contains("var.user_project == \"\" ?"));
        payers.insert(grant.argument("member"));
    }
    assert_eq!(payers, BTreeSet::from(["each.value", "local.worker"]));
}

/// The database user is called as the deployments call it, and may log in.
#[test]
fn the_worker_may_log_in_without_a_password() {
    let resources = resources();
    let user = resources.iter().find(|r| r.kind == "google_sql_user");
    let user = user.expect("no database user");
    assert_eq!(user.argument("type"), "\"CLOUD_IAM_SERVICE_ACCOUNT\"");
    let name = "trimsuffix(google_service_account.worker.email, \".gserviceaccount.com\")";
    assert_eq!(user.argument("name"), name);
    let grant = resources.iter().find(|r| r.name == "worker_logs_in");
    let grant = grant.expect("nobody may log in");
    assert_eq!(grant.role(), "roles/cloudsql.instanceUser");
    assert_eq!(grant.argument("member"), "local.worker");
    assert_eq!(grant.argument("count"), user.argument("count"));
}

/// Everything that the program, its platforms and this configuration call.
#[test]
fn every_api_is_enabled() {
    let services = text_of("deploy/terraform/services.tf");
    for api in [
        "pubsub",
        "storage",
        "iam",
        "cloudresourcemanager",
        "artifactregistry",
        "container",
        "iamcredentials",
        "monitoring",
        "run",
        "secretmanager",
        "sqladmin",
    ] {
        assert!(services.contains(&format!("\"{api}\"")), "{api}");
    }
    // Nothing is created before its API is enabled, directly or through what it refers to.
    for resource in resources() {
        let creates = ["topic", "account", "repository", "identity"]
            .iter()
            .any(|end| resource.kind.ends_with(end));
        let waits = resource.argument("depends_on") == "[google_project_service.this]";
        assert!(waits || !creates, "{}.{}", resource.kind, resource.name);
    }
}

/// The guides give every required variable, and no other than exist.
#[test]
fn the_guides_give_every_variable() {
    let text = format!("\n{}", text_of("deploy/terraform/variables.tf"));
    let mut required = BTreeSet::new();
    let mut known = BTreeSet::new();
    for part in text.split("\nvariable \"").skip(1) {
        let (name, body) = part.split_once('"').unwrap();
        known.insert(name);
        if !body.split("\n}").next().unwrap().contains("\n  default ") {
            required.insert(name);
        }
    }
    assert!(required.contains("region"), "{required:?}");
    for guide in ["docs/guides/gke.md", "docs/guides/cloud-run.md"] {
        let guide_text = text_of(guide);
        let given: BTreeSet<&str> = guide_text
            .split("-var ")
            .skip(1)
            .map(|rest| rest.trim_start_matches(['\'', '"']))
            .map(|rest| rest.split('=').next().unwrap())
            .collect();
        assert!(given.is_subset(&known), "{guide}: {given:?}");
        assert!(required.is_subset(&given), "{guide}: {given:?}");
    }
}

/// A subscription that no worker reads fills up, and RestoreRequestsWaiting fires.
#[test]
fn notifications_are_created_only_where_a_worker_reads_them() {
    let reads = |text: &str| text.contains("BACKUP_NOTIFICATION_SUBSCRIPTION");
    let workers = [
        (
            "docs/guides/gke.md",
            "deploy/kubernetes/base/kustomization.yaml",
        ),
        (
            "docs/guides/gke.md",
            "deploy/kubernetes/components/gke/kustomization.yaml",
        ),
        (
            "docs/guides/cloud-run.md",
            "deploy/cloud-run/worker-pool.yaml",
        ),
        (
            "docs/guides/cloud-run.md",
            "deploy/cloud-run/worker-pool-auth-proxy.yaml",
        ),
    ];
    for (guide, worker) in workers {
        assert!(!reads(&text_of(worker)), "{worker}");
        let guide_text = text_of(guide);
        let (_, applied) = guide_text.split_once("deploy/terraform apply").unwrap();
        let (command, _) = applied.split_once("```").unwrap();
        assert!(command.contains("-var verify=false"), "{guide}: {command}");
    }
    let verifying = "deploy/kubernetes/overlays/verification/kustomization.yaml";
    assert!(reads(&text_of(verifying)));
    // What only notifications need.
    let needed = resources()
        .into_iter()
        .filter(|r| ["notifications", "gcs_publishes", "new_backups"].contains(&r.name.as_str()));
    for resource in needed {
        assert_eq!(
            resource.argument("count"),
            "var.verify ? 1 : 0",
            "{}",
            resource.name
        );
    }
}
