locals {
  gke = var.kubernetes_service_account != ""
  services = toset(concat(
    # What the worker calls, and what this configuration needs.
    ["pubsub", "storage", "iam", "cloudresourcemanager", "artifactregistry"],
    # iamcredentials issues the tokens of Workload Identity, monitoring answers KEDA and stores metrics.
    local.gke ? ["container", "iamcredentials", "monitoring"] : [],
    var.cloud_run ? ["run", "secretmanager"] : [],
    # The Auth Proxy asks it for the instance's address and certificate; it also creates the database user.
    var.cloud_sql_instance == "" ? [] : ["sqladmin"],
  ))
}

resource "google_project_service" "this" {
  for_each = local.services
  project  = var.project
  service  = "${each.value}.googleapis.com"
  # Others in the project may use it, too.
  disable_on_destroy = false
}

# Pub/Sub's own account, which moves messages to dead-letter topics. It does not exist in a new project until somebody asks
# for it, and a role cannot be granted to an account that does not exist.
resource "google_project_service_identity" "pubsub" {
  provider   = google-beta
  project    = var.project
  service    = "pubsub.googleapis.com"
  depends_on = [google_project_service.this]
}

# The images of the workers.
resource "google_artifact_registry_repository" "images" {
  project       = var.project
  location      = var.region
  repository_id = "images"
  format        = "DOCKER"
  description   = "Images of pgrestored"
  depends_on    = [google_project_service.this]
}

resource "google_artifact_registry_repository_iam_member" "pullers" {
  for_each   = toset(var.image_pullers)
  project    = var.project
  location   = var.region
  repository = google_artifact_registry_repository.images.repository_id
  role       = "roles/artifactregistry.reader"
  member     = each.value
}
