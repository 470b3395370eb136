# Our tests check the format and what the rules of deploy_terraform.rs say; the arguments were checked against provider 6.50
# (as of 11/2026). Never planned against a real project.
terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0"
    }
    # Only for google_project_service_identity.
    google-beta = {
      source  = "hashicorp/google-beta"
      version = ">= 6.0"
    }
  }
}
