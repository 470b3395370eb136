# KEDA scales by a query to Cloud Monitoring. Its operator runs as this account: the Helm value
# podIdentity.gcp.gcpIAMServiceAccount (docs/guides/gke.md). The role is the project's, because metrics belong to no
# smaller resource.
resource "google_service_account" "keda" {
  count        = local.gke ? 1 : 0
  project      = var.project
  account_id   = "pgrestored-keda"
  display_name = "KEDA operator, reads metrics"
  depends_on   = [google_project_service.this]
}

resource "google_project_iam_member" "keda_reads_metrics" {
  count   = local.gke ? 1 : 0
  project = var.project
  role    = "roles/monitoring.viewer"
  member  = "serviceAccount:${google_service_account.keda[0].email}"
}

resource "google_service_account_iam_member" "keda_workload_identity" {
  count              = local.gke ? 1 : 0
  service_account_id = google_service_account.keda[0].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.keda_service_account}]"
}
