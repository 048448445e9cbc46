{{/* Names, labels, image, and what several objects ask of the values. */}}

{{- define "kubesae.fullname" -}}
{{ .Values.fullnameOverride | default .Release.Name }}
{{- end }}

{{- define "kubesae.name" -}}
{{ .Values.nameOverride | default "kubesae" }}
{{- end }}

{{- define "kubesae.serviceAccountName" -}}
{{- $made := ternary (include "kubesae.fullname" .) "default" .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default $made }}
{{- end }}

{{- define "kubesae.image" -}}
{{- $image := .Values.image -}}
{{- $name := $image.repository -}}
{{- if $image.registry }}{{ $name = printf "%s/%s" $image.registry $name }}{{ end -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $name $image.digest }}
{{- else -}}
{{ printf "%s:%s" $name ($image.tag | default .Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{- define "kubesae.pullPolicy" -}}
{{ .Values.image.pullPolicy | default (ternary "IfNotPresent" "Always" (ne .Values.image.digest "")) }}
{{- end }}

{{/* Labels that Pods may carry too: nothing in them changes with the chart's version. Give root, and phase and sae. */}}
{{- define "kubesae.podLabels" -}}
app.kubernetes.io/name: {{ include "kubesae.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .phase | default "experiment" | quote }}
app.kubernetes.io/part-of: kubesae
kubesae.dev/experiment: {{ include "kubesae.fullname" .root | quote }}
{{- with .phase }}
kubesae.dev/phase: {{ . | quote }}
{{- end }}
{{- with .sae }}
kubesae.dev/sae: {{ . | quote }}
{{- end }}
{{- range $name, $value := .root.Values.commonLabels }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "kubesae.labels" -}}
{{ include "kubesae.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{/* Name of a phase's job: 63 characters with what the controllers append to it (-99999, -worker-999). */}}
{{- define "kubesae.jobName" -}}
{{- $parts := list (include "kubesae.fullname" .root) .phase -}}
{{- with .sae }}{{ $parts = append $parts . }}{{ end -}}
{{ printf "%s-%s" (join "-" $parts | trunc 43 | trimSuffix "-") (.spec | sha256sum | trunc 8) }}
{{- end }}

{{/* Settings of one phase over those of all, as JSON: what a phase sets replaces the common setting whole. */}}
{{- define "kubesae.phase" -}}
{{- $settings := dict "gpus" 0 -}}
{{- range $name, $value := .root.Values.phases.all }}{{ $_ := set $settings $name $value }}{{ end -}}
{{- range $name, $value := index .root.Values.phases .phase }}{{ $_ := set $settings $name $value }}{{ end -}}
{{ toJson $settings }}
{{- end }}

{{/* Whether a Job fetches the model, and for all: to a claim, or to the mirror. */}}
{{- define "kubesae.fetchJob" -}}
{{- $fetch := .Values.phases.fetch -}}
{{- if and $fetch.enabled $fetch.source (or (eq .Values.modelCache.type "persistentVolumeClaim") $fetch.mirror) }}true{{ end -}}
{{- end }}

{{/* The arguments that bring the model from .from to .to, as JSON; only what the layers need, where that is wanted. */}}
{{- define "kubesae.fetchArgs" -}}
{{- $fetch := .root.Values.phases.fetch -}}
{{- $args := list "fetch" "--from" .from "--to" .to -}}
{{- if and $fetch.truncate (eq .from $fetch.source) -}}
{{- $args = list "truncate" "--from" .from "--to" .to "--layers" (last .root.Values.experiment.layers | int | toString) -}}
{{- if $fetch.withHead }}{{ $args = append $args "--with-head" }}{{ end -}}
{{- end -}}
{{ toJson $args }}
{{- end }}

{{/* Where each Pod fetches the model from before it starts; empty: it does not. */}}
{{- define "kubesae.podFetch" -}}
{{- $fetch := .Values.phases.fetch -}}
{{- if and $fetch.enabled $fetch.source (ne .Values.modelCache.type "persistentVolumeClaim") -}}
{{ $fetch.mirror | default $fetch.source }}
{{- end -}}
{{- end }}

{{/* The phases that run, in their order, as a JSON list. */}}
{{- define "kubesae.phases" -}}
{{- $phases := list -}}
{{- range list "fetch" "prepare" "pilot" "collect" "verify" "train" "interpret" -}}
{{- $on := ternary (ne (include "kubesae.fetchJob" $) "") (index $.Values.phases .).enabled (eq . "fetch") -}}
{{- if $on }}{{ $phases = append $phases . }}{{ end -}}
{{- end -}}
{{ toJson $phases }}
{{- end }}
