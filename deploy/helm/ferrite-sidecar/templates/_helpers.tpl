{{- define "ferrite.name" -}}
{{- if contains "ferrite-sidecar" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-ferrite-sidecar" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ferrite.selector" -}}
app.kubernetes.io/name: ferrite-sidecar
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ferrite.labels" -}}
{{ include "ferrite.selector" . }}
app.kubernetes.io/part-of: ferrite
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "ferrite.isSelfSigned" -}}
{{- if eq .Values.webhook.certificate "self-signed" }}true{{ end -}}
{{- end -}}
