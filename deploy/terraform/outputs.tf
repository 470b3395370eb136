output "worker_account" {
  value       = google_service_account.worker.email
  description = "For the annotation iam.gke.io/gcp-service-account, or --service-account of a worker pool."
}

output "database_user" {
  value       = var.cloud_sql_iam ? google_sql_user.worker[0].name : ""
  description = "For DB_USER, with DB_AUTH=gcp-iam."
}

output "environment" {
  value = {
    GOOGLE_CLOUD_PROJECT             = var.project
    BACKUP_BUCKET                    = "gs://${var.bucket}/${var.prefix}"
    BACKUP_USER_PROJECT              = var.user_project
    RESTORE_REQUEST_SUBSCRIPTION     = google_pubsub_subscription.work["restore-requests"].name
    RESTORE_COMPLETION_TOPIC         = google_pubsub_topic.completions.name
    BACKUP_NOTIFICATION_SUBSCRIPTION = var.verify ? google_pubsub_subscription.work["backup-notifications"].name : ""
  }
  description = "The worker's variables."
}

output "images" {
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
  description = "Where to push the worker's images."
}

output "keda_account" {
  value       = local.gke ? google_service_account.keda[0].email : ""
  description = "For the KEDA operator: podIdentity.gcp.gcpIAMServiceAccount."
}
