variable "project" {
  type        = string
  description = "Project of topics, subscriptions and the worker's account."
}

variable "bucket" {
  type        = string
  description = "Bucket with the backups. It exists already."
}

variable "prefix" {
  type        = string
  default     = ""
  description = "Objects below this are backups."
}

variable "max_delivery_attempts" {
  type        = number
  default     = 20
  description = "Deliveries of a request before it is dead-lettered: above RESTORE_MAX_ATTEMPTS (4) and RESTORE_QUARANTINE_AFTER (10), since the worker publishes a failure for the last of those. Shutdowns and lost workers count as well."
}

variable "kubernetes_service_account" {
  type        = string
  default     = ""
  description = "NAMESPACE/NAME of the worker's Kubernetes account for Workload Identity; empty: none."
}

variable "verify" {
  type        = bool
  default     = true
  description = "Whether the bucket's new objects are announced, and the worker may write evidence beside them."
}

variable "publishers" {
  type        = list(string)
  default     = []
  description = "Who may ask for restores, such as group:dba@example.com."
}
