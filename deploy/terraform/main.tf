locals {
  # The longest retention: 7 days for a topic and a subscription, 31 for a subscription alone.
  week  = "604800s"
  month = "2678400s"
  subscriptions = merge(
    { "restore-requests" = google_pubsub_topic.requests.id },
    var.verify ? { "backup-notifications" = google_pubsub_topic.notifications[0].id } : {},
  )
  # Only new objects. The worker checks this again.
  filters = { "backup-notifications" = "attributes.eventType = \"OBJECT_FINALIZE\"" }
}

# The account that publishes the bucket's notifications: Cloud Storage's, in the bucket's project.
data "google_storage_project_service_account" "gcs" {
  count   = var.verify ? 1 : 0
  project = coalesce(var.bucket_project, var.project)
}

# Requests in, results out.
resource "google_pubsub_topic" "requests" {
  project                    = var.project
  name                       = "restore-requests"
  message_retention_duration = local.week
  depends_on                 = [google_project_service.this]
}

resource "google_pubsub_topic" "completions" {
  project                    = var.project
  name                       = "restore-completions"
  message_retention_duration = local.week
  depends_on                 = [google_project_service.this]
}

# `pgrestored request --wait` and `watch` read results here, and give back those of others. A program that needs every result
# needs a subscription of its own.
resource "google_pubsub_subscription" "completions" {
  project                    = var.project
  name                       = "restore-completions"
  topic                      = google_pubsub_topic.completions.id
  message_retention_duration = local.week
  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_subscription_iam_member" "result_readers" {
  for_each     = toset(concat(var.publishers, var.result_readers))
  project      = var.project
  subscription = google_pubsub_subscription.completions.name
  role         = "roles/pubsub.subscriber"
  member       = each.value
}

# New backups.
resource "google_pubsub_topic" "notifications" {
  count                      = var.verify ? 1 : 0
  project                    = var.project
  name                       = "backup-notifications"
  message_retention_duration = local.week
  depends_on                 = [google_project_service.this]
}

resource "google_pubsub_topic_iam_member" "gcs_publishes" {
  count   = var.verify ? 1 : 0
  project = var.project
  topic   = google_pubsub_topic.notifications[0].name
  role    = "roles/pubsub.publisher"
  member  = "serviceAccount:${data.google_storage_project_service_account.gcs[0].email_address}"
}

resource "google_storage_notification" "new_backups" {
  count              = var.verify ? 1 : 0
  bucket             = var.bucket
  topic              = google_pubsub_topic.notifications[0].id
  payload_format     = "NONE"
  event_types        = ["OBJECT_FINALIZE"]
  object_name_prefix = var.prefix == "" ? null : var.prefix
  depends_on         = [google_pubsub_topic_iam_member.gcs_publishes]
}

# The subscriptions that workers pull. A lease lasts as long as its worker extends it; a lost worker's message is redelivered
# after a minute.
resource "google_pubsub_subscription" "work" {
  for_each                     = local.subscriptions
  project                      = var.project
  name                         = each.key
  topic                        = each.value
  filter                       = lookup(local.filters, each.key, null)
  ack_deadline_seconds         = 60
  message_retention_duration   = local.week
  enable_exactly_once_delivery = true
  expiration_policy {
    ttl = ""
  }
  retry_policy {
    minimum_backoff = "30s"
    maximum_backoff = "600s"
  }
  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letter[each.key].id
    max_delivery_attempts = var.max_delivery_attempts
  }
}

# Messages that no worker could settle are kept for a month. A dead-letter topic without a subscription would lose them.
resource "google_pubsub_topic" "dead_letter" {
  for_each   = local.subscriptions
  project    = var.project
  name       = "${each.key}-dead-letter"
  depends_on = [google_project_service.this]
}

resource "google_pubsub_subscription" "dead_letter" {
  for_each                   = local.subscriptions
  project                    = var.project
  name                       = "${each.key}-dead-letter"
  topic                      = google_pubsub_topic.dead_letter[each.key].id
  message_retention_duration = local.month
  expiration_policy {
    ttl = ""
  }
}

# Pub/Sub itself publishes there, and acknowledges the message on the subscription that it came from.
resource "google_pubsub_topic_iam_member" "dead_letter" {
  for_each = local.subscriptions
  project  = var.project
  topic    = google_pubsub_topic.dead_letter[each.key].name
  role     = "roles/pubsub.publisher"
  member   = "serviceAccount:${google_project_service_identity.pubsub.email}"
}

resource "google_pubsub_subscription_iam_member" "dead_letter" {
  for_each     = local.subscriptions
  project      = var.project
  subscription = google_pubsub_subscription.work[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = "serviceAccount:${google_project_service_identity.pubsub.email}"
}

resource "google_pubsub_subscription_iam_member" "operators" {
  for_each = {
    for pair in setproduct(keys(local.subscriptions), var.operators) : "${pair[0]} ${pair[1]}" => pair
  }
  project      = var.project
  subscription = google_pubsub_subscription.dead_letter[each.value[0]].name
  role         = "roles/pubsub.subscriber"
  member       = each.value[1]
}

resource "google_pubsub_topic_iam_member" "publishers" {
  for_each = toset(var.publishers)
  project  = var.project
  topic    = google_pubsub_topic.requests.name
  role     = "roles/pubsub.publisher"
  member   = each.value
}
