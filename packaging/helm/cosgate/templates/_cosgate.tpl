{{- define "cosgate.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end -}}

{{- define "cosgate.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cosgate.labels" -}}
{{ include "cosgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "cosgate.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "cosgate.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "cosgate.image" -}}
{{ required "set image.repository to the image that you built with packaging/container/Containerfile" .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* What the chart says of the configuration, as YAML. */}}
{{- define "cosgate.own" -}}
server:
  listen: "0.0.0.0:9000"
  admin: "0.0.0.0:9001"
  {{- if .Values.tls.secretName }}
  tls:
    cert: /etc/cosgate/tls/tls.crt
    key: /etc/cosgate/tls/tls.key
  {{- end }}
  {{- if .Values.admin.tokenSecret }}
  admin_token: "file:/etc/cosgate/admin/token"
  {{- end }}
  limits:
    drain_delay: {{ printf "%ds" (int .Values.drain.delaySeconds) }}
    drain_timeout: {{ printf "%ds" (int .Values.drain.timeoutSeconds) }}
{{- if .Values.redis.enabled }}
credentials:
  shared:
    redis: "env:COSGATE_CHART_REDIS_URL"
    key: "env:COSGATE_CHART_REDIS_KEY"
    {{- with .Values.redis.sentinels }}
    sentinels: {{ toJson . }}
    {{- end }}
    {{- if .Values.redis.caConfigMap }}
    ca_file: /etc/cosgate/redis-ca/ca.pem
    {{- end }}
    {{- if .Values.redis.sharedLimits }}
    limits: true
    limits_timeout: {{ .Values.redis.limitsTimeout }}
    {{- end }}
{{- end }}
{{- if include "cosgate.hasTenants" . }}
include:
  files: ["/etc/cosgate/tenants/*.toml"]
{{- end }}
{{- end -}}

{{- define "cosgate.hasTenants" -}}
{{- if or .Values.tenants.configMaps .Values.tenants.secrets }}yes{{ end -}}
{{- end -}}

{{/* Fails where the values say what the chart says itself: the key that is written would not be the one that counts. */}}
{{- define "cosgate.refuseOwn" -}}
{{- $given := .given -}}
{{- $path := .path -}}
{{- range $key, $own := .own -}}
{{- if hasKey $given $key -}}
{{- $name := printf "%s.%s" $path $key -}}
{{- if and (kindIs "map" $own) (kindIs "map" (get $given $key)) -}}
{{- include "cosgate.refuseOwn" (dict "own" $own "given" (get $given $key) "path" $name) -}}
{{- else -}}
{{- fail (printf "%s is set by the chart: remove it, and use the chart's own value (see values.yaml)" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "cosgate.config" -}}
{{- $own := include "cosgate.own" . | fromYaml -}}
{{- include "cosgate.refuseOwn" (dict "own" $own "given" .Values.config "path" "config") -}}
{{- $whole := mergeOverwrite (deepCopy .Values.config) $own -}}
{{- include "cosgate.toml.table" (dict "path" "" "table" $whole) | trim -}}
{{- end -}}

{{- define "cosgate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "cosgate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Each is mounted at /etc/cosgate/NAME: side by side, since nothing can be mounted into a volume that is read-only. */}}
{{- define "cosgate.volumes" -}}
- name: config
  configMap: { name: {{ include "cosgate.name" . }}, defaultMode: 0440 }
{{- if include "cosgate.hasTenants" . }}
- name: tenants
  projected:
    defaultMode: 0440
    sources:
      {{- range .Values.tenants.configMaps }}
      - configMap: { name: {{ . }} }
      {{- end }}
      {{- range .Values.tenants.secrets }}
      - secret: { name: {{ . }} }
      {{- end }}
{{- end }}
{{- with .Values.secretFiles }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range . }}
      - secret: { name: {{ . }} }
      {{- end }}
{{- end }}
{{- with .Values.tls.secretName }}
- name: tls
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- with .Values.admin.tokenSecret }}
- name: admin
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- if and .Values.redis.enabled .Values.redis.caConfigMap }}
- name: redis-ca
  configMap: { name: {{ .Values.redis.caConfigMap }}, defaultMode: 0440 }
{{- end }}
{{- end -}}
