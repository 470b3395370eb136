# The worker's account: no role on the project, only on the resources that it uses.
resource "google_service_account" "worker" {
  project      = var.project
  account_id   = "pgrestored"
  display_name = "pgrestored worker"
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

# Lists and reads backups.
resource "google_storage_bucket_iam_member" "worker_reads" {
  bucket = var.bucket
  role   = "roles/storage.objectViewer"
  member = local.worker
}

# Creates evidence beside the backups; may neither change nor delete an object. (`prune --apply` deletes: run it with an
# account that may.)
resource "google_storage_bucket_iam_member" "worker_writes_evidence" {
  count  = var.verify ? 1 : 0
  bucket = var.bucket
  role   = "roles/storage.objectCreator"
  member = local.worker
}

resource "google_service_account_iam_member" "workload_identity" {
  count              = var.kubernetes_service_account == "" ? 0 : 1
  service_account_id = google_service_account.worker.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.kubernetes_service_account}]"
}
