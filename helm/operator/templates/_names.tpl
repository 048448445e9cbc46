{{- define "operator.name" -}}
{{ .Values.nameOverride | default "kubesae-operator" }}
{{- end }}

{{- define "operator.fullname" -}}
{{- $long := ternary .Release.Name (printf "%s-kubesae-operator" .Release.Name) (contains "kubesae" .Release.Name) -}}
{{ .Values.fullnameOverride | default ($long | trunc 52 | trimSuffix "-") }}
{{- end }}

{{- define "operator.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (ternary (include "operator.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "operator.image" -}}
{{- $image := .Values.image -}}
{{- $name := $image.repository -}}
{{- if $image.registry }}{{ $name = printf "%s/%s" $image.registry $name }}{{ end -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $name $image.digest }}
{{- else -}}
{{ printf "%s:%s" $name ($image.tag | default .Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{- define "operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "operator.labels" -}}
{{ include "operator.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: kubesae
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- range $name, $value := .Values.commonLabels }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "operator.metadata" -}}
name: {{ include "operator.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "operator.labels" . | nindent 2 }}
{{- end }}
