# Our tests check the format; the arguments were checked once by hand against provider 6.50. Never planned against a real
# project.
terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0"
    }
  }
}
