variable "project" {
  type        = string
  description = "The project of the topics, the subscriptions and the worker's account."
}

variable "region" {
  type        = string
  description = "The region of the image repository, such as europe-west1."
}

variable "bucket" {
  type        = string
  description = "The bucket with the backups. It must already exist."
}

variable "bucket_project" {
  type        = string
  default     = ""
  description = "The bucket's project, if it is another one."
}

variable "user_project" {
  type        = string
  default     = ""
  description = "The project that requests to the bucket are billed to, if it has Requester Pays (BACKUP_USER_PROJECT)."
}

variable "prefix" {
  type        = string
  default     = ""
  description = "Objects under this prefix are backups."
}

variable "max_delivery_attempts" {
  type        = number
  default     = 20
  description = "Deliveries of a request before it is dead-lettered: above RESTORE_MAX_ATTEMPTS (4) and RESTORE_QUARANTINE_AFTER (10), since the worker publishes a failure at those limits. Shutdowns and lost workers count too: with components/spot, 16 is the limit to exceed; for longer restores there, up to 100."
}

variable "kubernetes_service_account" {
  type        = string
  default     = ""
  description = "NAMESPACE/NAME of the worker's Kubernetes account for Workload Identity; empty: none. The project must already have a cluster with Workload Identity."
}

variable "keda_service_account" {
  type        = string
  default     = "keda/keda-operator"
  description = "NAMESPACE/NAME of the KEDA operator's Kubernetes account; used with kubernetes_service_account."
}

variable "cloud_run" {
  type        = bool
  default     = false
  description = "Whether to enable the APIs that a Cloud Run worker pool needs."
}

variable "cloud_sql_instance" {
  type        = string
  default     = ""
  description = "Name of the Cloud SQL instance that an Auth Proxy connects to, or that the worker logs in to (cloud_sql_iam); empty: none."
}

variable "cloud_sql_iam" {
  type        = bool
  default     = false
  description = "Whether the worker logs in to cloud_sql_instance as its Google account, without a password (DB_AUTH=gcp-iam)."
}

variable "image_pullers" {
  type        = list(string)
  default     = []
  description = "Who may pull images: the account of the cluster's nodes, such as serviceAccount:NUMBER-compute@developer.gserviceaccount.com. Cloud Run needs no entry."
}

variable "verify" {
  type        = bool
  default     = true
  description = "Whether the bucket announces new objects and the worker may write evidence beside them. Set it to false if no worker has BACKUP_NOTIFICATION_SUBSCRIPTION: nobody would read the announcements."
}

variable "publishers" {
  type        = list(string)
  default     = []
  description = "Who may request restores and read the results, such as group:dba@example.com."
}

variable "result_readers" {
  type        = list(string)
  default     = []
  description = "Who else may read results."
}

variable "operators" {
  type        = list(string)
  default     = []
  description = "Who may read and remove dead-lettered messages."
}

variable "pruners" {
  type        = list(string)
  default     = []
  description = "Who may delete backups, with `prune --apply`."
}

variable "records" {
  type        = bool
  default     = false
  description = "Whether the worker may write to the bucket although it verifies nothing (RESTORE_RECORDS)."
}

variable "finish_bucket" {
  type        = string
  default     = ""
  description = "The bucket of RESTORE_FINISH_FROM, which the worker may then list and read. Anyone who can write there can run SQL as DB_USER."
}
