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

{{- /* Of a name, a value, and what to use: ends with a sentence. helm lint passes over fail, and stops at a template that
       there is not. */ -}}
{{- define "ferrite.refuse" -}}
{{- $sentence := printf "defaults.%s: %s cannot be: use %s" (index . 0) (index . 1) (index . 2) -}}
{{- fail $sentence -}}
{{- include $sentence . -}}
{{- end -}}

{{- /* What ferritectl webhook would not start with, as far as the schema's patterns cannot tell. */ -}}
{{- define "ferrite.judge" -}}
{{- with .Values.defaults.memory -}}
{{- $factors := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $bytes := mulf (regexFind "^[0-9.]+" .) (get $factors (regexFind "[A-Za-z]*$" .)) -}}
{{- if or (lt $bytes 50331648.0) (gt $bytes 1099511627776.0) -}}
{{- include "ferrite.refuse" (list "memory" . "a size from 48Mi to 1Ti, e.g. 128Mi") -}}
{{- end -}}
{{- end -}}
{{- with .Values.defaults.upstream -}}
{{- $port := regexFind "[0-9]+$" . | atoi -}}
{{- if or (lt $port 1) (gt $port 65535) -}}
{{- include "ferrite.refuse" (list "upstream" . "a port from 1 to 65535, e.g. redis.cache.svc:6379") -}}
{{- end -}}
{{- $address := regexFind "\\[.*\\]" . -}}
{{- $group := "[0-9A-Fa-f]{1,4}" -}}
{{- $whole := printf "(%s:){7}%s" $group $group -}}
{{- $short := printf "(%s(:%s){0,6})?::(%s(:%s){0,6})?" $group $group $group $group -}}
{{- if and $address (not (regexMatch (printf "^\\[(%s|%s)\\]$" $whole $short) $address)) -}}
{{- include "ferrite.refuse" (list "upstream" . "an IPv6 address in brackets, e.g. [fd00::1]:6379") -}}
{{- end -}}
{{- $host := regexReplaceAll "^(rediss://)?(.*):[0-9]+$" . "${2}" -}}
{{- $own := list "localhost" "localhost." "127.0.0.1" "0.0.0.0" -}}
{{- /* ::1 and ::, and what they and IPv4's are as IPv6, with zeros written out or not. */ -}}
{{- $own6 := "^\\[(0{1,4}:|:)*(:?0{0,3}[01]|:)\\]$|^\\[(0{1,4}:|:)*[fF]{4}:(7[fF]00:0{0,3}1|0{1,4}:0{1,4}|:)\\]$" -}}
{{- if and (eq $port 6379) (or (has (lower $host) $own) (regexMatch $own6 $host)) -}}
{{- include "ferrite.refuse" (list "upstream" . "the central server, not the sidecar, e.g. redis.cache.svc:6379") -}}
{{- end -}}
{{- $byte := "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])" -}}
{{- $isNumber := regexMatch "(^|\\.)([0-9]+|0[xX]\\w*)\\.?$" $host -}}
{{- if or (gt (len $host) 253) (and $isNumber (not (regexMatch (printf "^(%s\\.){3}%s$" $byte $byte) $host))) -}}
{{- include "ferrite.refuse" (list "upstream" . "a host's name or an IPv4 address, e.g. redis.cache.svc:6379") -}}
{{- end -}}
{{- end -}}
{{- with .Values.defaults.image -}}
{{- if gt (len (regexReplaceAll "(:[\\w.-]+)?(@.*)?$" . "")) 255 -}}
{{- include "ferrite.refuse" (list "image" . "a name of at most 255 characters") -}}
{{- end -}}
{{- end -}}
{{- with .Values.defaults.cpuRequest -}}
{{- if not (regexMatch "[1-9]" .) -}}
{{- include "ferrite.refuse" (list "cpuRequest" . "an amount of CPU, e.g. 100m") -}}
{{- end -}}
{{- end -}}
{{- end -}}
