{{- define "clerk-authz.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "clerk-authz.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" -}}
{{- else if contains (include "clerk-authz.name" .) .Release.Name -}}
{{- .Release.Name | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "clerk-authz.name" .) | trunc 54 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "clerk-authz.selector" -}}
app.kubernetes.io/name: {{ include "clerk-authz.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "clerk-authz.labels" -}}
{{ include "clerk-authz.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "clerk-authz.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "clerk-authz.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "clerk-authz.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* The most replicas that are wished at once. */}}
{{- define "clerk-authz.maxReplicas" -}}
{{- if .Values.autoscaling.enabled -}}{{ .Values.autoscaling.maxReplicas }}{{- else -}}{{ .Values.replicaCount }}{{- end -}}
{{- end -}}

{{/* A replica's part of the budget, with those counted that an update adds. */}}
{{- define "clerk-authz.apiBudget" -}}
{{- $replicas := int (include "clerk-authz.maxReplicas" .) -}}
{{- $surge := ternary 0 (int .Values.maxSurge) (eq .Values.store.kind "sqlite") -}}
{{- div (int .Values.clerk.apiBudget) (max 1 (add $replicas $surge)) -}}
{{- end -}}

{{/* Whether a route policy is mounted, and of which ConfigMap. */}}
{{- define "clerk-authz.policyConfigMap" -}}
{{- if .Values.policyConfigMap -}}
{{ .Values.policyConfigMap }}
{{- else if .Values.policy -}}
{{ include "clerk-authz.fullname" . }}
{{- end -}}
{{- end -}}

{{/* What cannot be, each with what to do. */}}
{{- define "clerk-authz.validate" -}}
{{- $keys := .Values.clerk.secretKeys -}}
{{- $named := or $keys.secretKey $keys.webhookSigningSecret $keys.jwtKey -}}
{{- if .Values.clerk.instances -}}
  {{- if or .Values.clerk.publishableKey .Values.clerk.issuer .Values.clerk.authorizedParties .Values.clerk.audiences $named -}}
    {{- fail "clerk.instances stands in place of the settings of one instance: write them into its text, and name no clerk.secretKeys" -}}
  {{- end -}}
{{- else if not (or .Values.clerk.publishableKey .Values.clerk.issuer) -}}
  {{- fail "clerk.publishableKey is not set: whose tokens are verified? Set it, or clerk.issuer, or clerk.instances" -}}
{{- end -}}
{{- if and $named (not .Values.clerk.existingSecret) -}}
  {{- fail "clerk.secretKeys names keys of a Secret, but clerk.existingSecret names no Secret" -}}
{{- end -}}
{{- if and .Values.clerk.existingSecret (not (or $named .Values.clerk.instances)) -}}
  {{- fail "clerk.existingSecret is set, but clerk.secretKeys names none of its keys: name them, such as secretKey: secret-key" -}}
{{- end -}}
{{- if and $keys.webhookSigningSecret (eq .Values.store.kind "none") -}}
  {{- fail "clerk.secretKeys.webhookSigningSecret needs a store: set store.kind to postgres or sqlite" -}}
{{- end -}}
{{- if and (eq .Values.store.kind "postgres") (not .Values.store.postgres.existingSecret) -}}
  {{- fail "store.kind is postgres: store.postgres.existingSecret must name the Secret with its address" -}}
{{- end -}}
{{- if eq .Values.store.kind "sqlite" -}}
  {{- if or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) -}}
    {{- fail "store.kind is sqlite, which serves one replica: set replicaCount to 1 and autoscaling.enabled to false, or store.kind to postgres" -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.tls.clientCAKey (not .Values.tls.secretName) -}}
  {{- fail "tls.clientCAKey names a key of a Secret, but tls.secretName names no Secret" -}}
{{- end -}}
{{- if and .Values.otlp.existingSecret (not .Values.settings.OTEL_EXPORTER_OTLP_ENDPOINT) -}}
  {{- fail "otlp.existingSecret holds a collector's credential, but settings.OTEL_EXPORTER_OTLP_ENDPOINT names no collector" -}}
{{- end -}}
{{- if and .Values.policy .Values.policyConfigMap -}}
  {{- fail "policy and policyConfigMap are both set: which one is it?" -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
  {{- fail "autoscaling.minReplicas is greater than autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and $keys.secretKey (lt (int (include "clerk-authz.apiBudget" .)) 10) -}}
  {{- fail (printf "clerk.apiBudget is %d for %s replicas: less than 10 for each. Have fewer replicas" (int .Values.clerk.apiBudget) (include "clerk-authz.maxReplicas" .)) -}}
{{- end -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add (int .Values.leavePauseSeconds) (int .Values.drainTimeoutSeconds) 12 | int) -}}
  {{- fail "terminationGracePeriodSeconds is less than leavePauseSeconds, drainTimeoutSeconds and twelve seconds: what ends behind them would be cut off" -}}
{{- end -}}
{{- $own := list "CLERK_AUTHZ_GRPC_ADDR" "CLERK_AUTHZ_HTTP_ADDR" "CLERK_PUBLISHABLE_KEY" "CLERK_AUTHZ_ISSUER" "CLERK_AUTHORIZED_PARTIES" "CLERK_AUDIENCES" "CLERK_AUTHZ_API_BUDGET" "CLERK_AUTHZ_INSTANCES" "CLERK_AUTHZ_POLICY" "CLERK_AUTHZ_CALLERS" "CLERK_AUTHZ_STATE_DIR" "CLERK_AUTHZ_TLS_CERT" "CLERK_AUTHZ_TLS_KEY" "CLERK_AUTHZ_TLS_CLIENT_CA" "CLERK_AUTHZ_DRAIN_PAUSE" "CLERK_AUTHZ_DRAIN_TIMEOUT" -}}
{{- range $name, $value := .Values.settings -}}
  {{- if has $name $own -}}
    {{- fail (printf "settings.%s is what the chart sets: use its own value for it (values.yaml)" $name) -}}
  {{- end -}}
  {{- if has (trimSuffix "_FILE" $name) (list "CLERK_SECRET_KEY" "CLERK_WEBHOOK_SIGNING_SECRET" "CLERK_JWT_KEY" "CLERK_AUTHZ_DATABASE_URL" "OTEL_EXPORTER_OTLP_HEADERS" "OTEL_EXPORTER_OTLP_TRACES_HEADERS" "OTEL_EXPORTER_OTLP_LOGS_HEADERS") -}}
    {{- fail (printf "settings.%s is a secret: put it into a Secret, and name that in clerk.secretKeys, store.postgres or otlp" $name) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
