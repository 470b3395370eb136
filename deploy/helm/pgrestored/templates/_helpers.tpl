{{- define "pgrestored.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pgrestored.labels" -}}
{{ include "pgrestored.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "pgrestored.image" -}}
{{- $suffix := ternary "-sandbox" "" .Values.verification.enabled -}}
{{ required "image.repository is required" .Values.image.repository }}:{{ .Values.image.tag | default (print .Chart.AppVersion $suffix) }}
{{- end }}

{{/* The chart's own variables, and over them those in settings. */}}
{{- define "pgrestored.settings" -}}
{{- $own := dict
  "ADMIN_ADDR" "0.0.0.0:9464"
  "ADMIN_HOSTS" (printf "%s,%s.*.svc,%s.*.svc.cluster.local" .Release.Name .Release.Name .Release.Name)
  "RESTORE_REQUEST_SUBSCRIPTION" "restore-requests"
  "RESTORE_COMPLETION_TOPIC" "restore-completions"
  "RESTORE_MAX_CONCURRENT" "1"
  "RESTORE_TIMEOUT" "12h"
  "DRAIN_TIMEOUT" "55m"
  "DB_USER" "pgrestored"
  "DB_PASSWORD_FILE" "/run/secrets/pgrestored/db-password"
-}}
{{- if .Values.spot }}
{{- /* Why these: deploy/kubernetes/components/spot. */}}
{{- $_ := set $own "DRAIN_TIMEOUT" "10s" }}
{{- $_ := set $own "RESTORE_MAX_ATTEMPTS" "12" }}
{{- $_ := set $own "RESTORE_QUARANTINE_AFTER" "16" }}
{{- end }}
{{- if eq .Values.cloudSql.mode "proxy" }}
{{- $_ := set $own "DB_HOST" "127.0.0.1" }}
{{- else if eq .Values.cloudSql.mode "ca" }}
{{- $_ := set $own "DB_SSLMODE" "verify-ca" }}
{{- $_ := set $own "DB_SSLROOTCERT" "/run/secrets/pgrestored/server-ca.pem" }}
{{- end }}
{{- if .Values.verification.enabled }}
{{- $_ := set $own "BACKUP_NOTIFICATION_SUBSCRIPTION" "backup-notifications" }}
{{- $_ := set $own "VERIFY_SUFFIX" ".dump,.sql.gz" }}
{{- $_ := set $own "VERIFY_SCHEDULE" "24h" }}
{{- $_ := set $own "VERIFY_SELFTEST" "24h" }}
{{- $_ := set $own "SANDBOX_DIR" "/sandbox/work" }}
{{- $_ := set $own "SANDBOX_ISOLATION" "prefer" }}
{{- end }}
{{- if .Values.standing.orders }}
{{- $_ := set $own "STANDING_RESTORES" "/etc/pgrestored/standing/standing.yaml" }}
{{- end }}
{{- with .Values.standing.maskKey }}
{{- $_ := set $own "MASK_KEY_FILE" (printf "/run/secrets/pgrestored/%s" .) }}
{{- end }}
{{- if .Values.finishing.files }}
{{- $_ := set $own "RESTORE_FINISH_FROM" "file:///etc/pgrestored/finishing" }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- if kindIs "invalid" $value }}
{{- $_ := unset $own $name }}
{{- else }}
{{- /* Numbers of YAML are floats. */}}
{{- $_ := set $own $name (kindIs "float64" $value | ternary (int64 $value | toString) (toString $value)) }}
{{- end }}
{{- end }}
{{- toYaml $own }}
{{- end }}

{{/* The files of standing restores: the orders, and the masking rules that they name. */}}
{{- define "pgrestored.standing" -}}
{{- merge (dict "standing.yaml" .Values.standing.orders) .Values.standing.masks | toYaml }}
{{- end }}

{{/* Differs when a file of standing restores or finishing SQL does. */}}
{{- define "pgrestored.files" -}}
{{- printf "%s\n%s" (include "pgrestored.standing" .) (toYaml .Values.finishing.files) | sha256sum }}
{{- end }}
