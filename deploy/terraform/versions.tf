# Formatted and checked against the provider's arguments by our tests, never planned against a real project.
terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0"
    }
  }
}
