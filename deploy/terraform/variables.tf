variable "project" {
  type        = string
  description = "The project of the topics, the subscriptions and the worker's account."
}

variable "bucket" {
  type        = string
  description = "The bucket with the backups. It must already exist."
}

variable "prefix" {
  type        = string
  default     = ""
  description = "Objects under this prefix are backups."
}

variable "max_delivery_attempts" {
  type        = number
  default     = 20
  description = "Deliveries of a request before it is dead-lettered: above RESTORE_MAX_ATTEMPTS (4) and RESTORE_QUARANTINE_AFTER (10), since the worker publishes a failure at those limits. Shutdowns and lost workers count too."
}

variable "kubernetes_service_account" {
  type        = string
  default     = ""
  description = "NAMESPACE/NAME of the worker's Kubernetes account for Workload Identity; empty: none."
}

variable "verify" {
  type        = bool
  default     = true
  description = "Whether the bucket announces new objects and the worker may write evidence beside them."
}

variable "publishers" {
  type        = list(string)
  default     = []
  description = "Who may request restores, such as group:dba@example.com."
}
