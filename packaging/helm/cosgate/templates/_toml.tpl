{{/*
YAML as TOML. Helm's own toToml writes 200 as 200.0, because YAML's numbers are floats there.
*/}}

{{- define "cosgate.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toRawJson . }}{{ end -}}
{{- end -}}

{{- define "cosgate.toml.value" -}}
{{- if kindIs "slice" . -}}
[{{ range $i, $element := . }}{{ if $i }}, {{ end }}{{ include "cosgate.toml.value" $element }}{{ end }}]
{{- else if kindIs "map" . -}}
{ {{- range $i, $key := keys . | sortAlpha }}{{ if $i }},{{ end }} {{ include "cosgate.toml.key" $key }} = {{ include "cosgate.toml.value" (get $ $key) }}{{ end }} }
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ int64 . }}
{{- else -}}
{{ toRawJson . }}
{{- end -}}
{{- end -}}

{{/* A table: its values, then the tables in it. `path` is empty for the document. A key that is null is left out. */}}
{{- define "cosgate.toml.table" -}}
{{- $path := .path -}}
{{- $table := .table -}}
{{- range $key := keys $table | sortAlpha -}}
{{- $value := get $table $key -}}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value) (eq (include "cosgate.toml.isTables" $value) "yes")) }}
{{ include "cosgate.toml.key" $key }} = {{ include "cosgate.toml.value" $value }}
{{- end -}}
{{- end -}}
{{- range $key := keys $table | sortAlpha -}}
{{- $value := get $table $key -}}
{{- $name := include "cosgate.toml.key" $key -}}
{{- if $path }}{{ $name = printf "%s.%s" $path $name }}{{ end -}}
{{- if kindIs "map" $value }}

[{{ $name }}]
{{- include "cosgate.toml.table" (dict "path" $name "table" $value) -}}
{{- else if eq (include "cosgate.toml.isTables" $value) "yes" -}}
{{- range $value }}

[[{{ $name }}]]
{{- include "cosgate.toml.table" (dict "path" $name "table" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "cosgate.toml.isTables" -}}
{{- if kindIs "slice" . }}{{ if . }}{{ if kindIs "map" (first .) }}yes{{ end }}{{ end }}{{ end -}}
{{- end -}}
