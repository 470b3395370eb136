# The worker's account: roles on the resources that it uses, and none on the project (except, with Cloud SQL, those that are
# limited to one instance; and, with Requester Pays, the one to bill the project that pays).
resource "google_service_account" "worker" {
  project      = var.project
  account_id   = "pgrestored"
  display_name = "pgrestored worker"
  depends_on   = [google_project_service.this]
}

locals {
  worker = "serviceAccount:${google_service_account.worker.email}"
}

resource "google_pubsub_subscription_iam_member" "worker_reads" {
  for_each     = local.subscriptions
  project      = var.project
  subscription = google_pubsub_subscription.work[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = local.worker
}

resource "google_pubsub_topic_iam_member" "worker_answers" {
  project = var.project
  topic   = google_pubsub_topic.completions.name
  role    = "roles/pubsub.publisher"
  member  = local.worker
}

# Every minute the worker looks whether they still exist, which /readyz shows; `doctor` also reads their settings.
resource "google_pubsub_subscription_iam_member" "worker_looks" {
  for_each     = local.subscriptions
  project      = var.project
  subscription = google_pubsub_subscription.work[each.key].name
  role         = "roles/pubsub.viewer"
  member       = local.worker
}

resource "google_pubsub_topic_iam_member" "worker_looks" {
  project = var.project
  topic   = google_pubsub_topic.completions.name
  role    = "roles/pubsub.viewer"
  member  = local.worker
}

# Lists and reads backups.
resource "google_storage_bucket_iam_member" "worker_reads" {
  bucket = var.bucket
  role   = "roles/storage.objectViewer"
  member = local.worker
}

# Lists and reads the SQL and checks that orders and requests name.
resource "google_storage_bucket_iam_member" "worker_reads_finishing" {
  count  = var.finish_bucket == "" ? 0 : 1
  bucket = var.finish_bucket
  role   = "roles/storage.objectViewer"
  member = local.worker
}

# Creates evidence and records beside the backups; may neither change nor delete an object.
resource "google_storage_bucket_iam_member" "worker_writes_evidence" {
  count  = var.verify || var.records ? 1 : 0
  bucket = var.bucket
  role   = "roles/storage.objectCreator"
  member = local.worker
}

# `prune --apply` deletes backups: an account of its own, or a person.
resource "google_storage_bucket_iam_member" "pruners" {
  for_each = toset(var.pruners)
  bucket   = var.bucket
  role     = "roles/storage.objectUser"
  member   = each.value
}

# Requester Pays: whoever calls the bucket needs serviceusage.services.use on the project that pays (BACKUP_USER_PROJECT).
resource "google_project_iam_member" "worker_bills" {
  count   = var.user_project == "" ? 0 : 1
  project = var.user_project
  role    = "roles/serviceusage.serviceUsageConsumer"
  member  = local.worker
}

resource "google_project_iam_member" "pruners_bill" {
  for_each = toset(var.user_project == "" ? [] : var.pruners)
  project  = var.user_project
  role     = "roles/serviceusage.serviceUsageConsumer"
  member   = each.value
}

# The Auth Proxy connects with the worker's account, to this instance only.
resource "google_project_iam_member" "worker_connects" {
  count   = var.cloud_sql_instance == "" ? 0 : 1
  project = var.project
  role    = "roles/cloudsql.client"
  member  = local.worker
  condition {
    title      = "pgrestored"
    expression = "resource.name == 'projects/${var.project}/instances/${var.cloud_sql_instance}' && resource.service == 'sqladmin.googleapis.com'"
  }
}

# The worker logs in to this instance with tokens of its account (DB_AUTH=gcp-iam) and not with a password. The instance needs the
# flag cloudsql.iam_authentication=on, and the user its rights in the database: docs/guides/cloud-sql-iam.md.
resource "google_project_iam_member" "worker_logs_in" {
  count   = var.cloud_sql_iam ? 1 : 0
  project = var.project
  role    = "roles/cloudsql.instanceUser"
  member  = local.worker
  condition {
    title      = "pgrestored"
    expression = "resource.name == 'projects/${var.project}/instances/${var.cloud_sql_instance}' && resource.service == 'sqladmin.googleapis.com'"
  }
}

resource "google_sql_user" "worker" {
  count    = var.cloud_sql_iam ? 1 : 0
  project  = var.project
  instance = var.cloud_sql_instance
  name     = trimsuffix(google_service_account.worker.email, ".gserviceaccount.com")
  type     = "CLOUD_IAM_SERVICE_ACCOUNT"
  # PostgreSQL drops no role that owns something.
  deletion_policy = "ABANDON"
  depends_on      = [google_project_service.this]
  lifecycle {
    precondition {
      condition     = var.cloud_sql_instance != ""
      error_message = "cloud_sql_iam needs cloud_sql_instance."
    }
  }
}

resource "google_service_account_iam_member" "workload_identity" {
  count              = local.gke ? 1 : 0
  service_account_id = google_service_account.worker.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.kubernetes_service_account}]"
}
