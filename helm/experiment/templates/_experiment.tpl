{{/*
The experiment, and hashes of parts of it. Before hashing, fields that have their default are dropped, so that writing
out a default changes nothing. files/experiment.json (generated) has the defaults and which fields decide the data.
*/}}

{{- define "kubesae.experiment" -}}
{{ toJson (merge (dict) (deepCopy .Values.experiment) (dict "name" (include "kubesae.fullname" .))) }}
{{- end }}

{{/* A section without the fields that have their defaults, as JSON; sections within it likewise. Give section and defaults. */}}
{{- define "kubesae.withoutDefaults" -}}
{{- $kept := dict -}}
{{- range $field, $value := .section -}}
{{- $default := get $.defaults $field -}}
{{- if kindIs "map" $value -}}
{{- $value = include "kubesae.withoutDefaults" (dict "section" $value "defaults" ($default | default dict)) | fromJson -}}
{{- $default = dict -}}
{{- end -}}
{{- if ne (toJson $value) (toJson $default) }}{{ $_ := set $kept $field $value }}{{ end -}}
{{- end -}}
{{ toJson $kept }}
{{- end }}

{{/* An experiment without what has its default, as JSON; of a preset, what it stands for. Give root and experiment. */}}
{{- define "kubesae.changed" -}}
{{- $facts := .root.Files.Get "files/experiment.json" | fromJson -}}
{{- $defaults := $facts.defaults -}}
{{- $changed := include "kubesae.withoutDefaults" (dict "section" .experiment "defaults" $defaults.experiment) | fromJson -}}
{{- range $field := list "corpora" "sae" -}}
{{- $items := list -}}
{{- range get $changed $field | default list -}}
{{- $item := . -}}
{{- with .preset }}{{ $item = merge (dict) (omit $item "preset") (get $facts.presets .) (dict "name" .) }}{{ end -}}
{{- $items = append $items (include "kubesae.withoutDefaults" (dict "section" $item "defaults" (get $defaults $field)) | fromJson) -}}
{{- end -}}
{{- $_ := set $changed $field $items -}}
{{- end -}}
{{- if not $changed.sae }}{{ $_ := set $changed "sae" (list (dict)) }}{{ end -}}
{{ toJson $changed }}
{{- end }}

{{/* The fields of an experiment that decide its data, as JSON. Give root and experiment. */}}
{{- define "kubesae.dataFields" -}}
{{- $changed := include "kubesae.changed" . | fromJson -}}
{{- $fields := dict -}}
{{- range (.root.Files.Get "files/experiment.json" | fromJson).decidesData -}}
{{- if hasKey $changed . }}{{ $_ := set $fields . (get $changed .) }}{{ end -}}
{{- end -}}
{{ toJson $fields }}
{{- end }}

{{/* The SAEs of an experiment by their names, as JSON; those without a name by their place. Give root and experiment. */}}
{{- define "kubesae.saes" -}}
{{- $saes := dict -}}
{{- range $i, $sae := (include "kubesae.changed" . | fromJson).sae -}}
{{- $_ := set $saes ($sae.name | default (printf "default-%d" $i)) (omit $sae "name") -}}
{{- end -}}
{{ toJson $saes }}
{{- end }}

{{/* The shards of the experiment. */}}
{{- define "kubesae.shards" -}}
{{ .Values.experiment.num_shards | default (.Files.Get "files/experiment.json" | fromJson).defaults.experiment.num_shards | int }}
{{- end }}

{{/* The spec of the live SAEExperiment, as JSON; empty where there is none. */}}
{{- define "kubesae.live" -}}
{{- $live := lookup "kubesae.dev/v1alpha1" "SAEExperiment" .Release.Namespace (include "kubesae.fullname" .) -}}
{{ toJson ($live.spec | default dict) }}
{{- end }}

{{/* Hash of what a phase reads of the experiment: a Pod is replaced when this changes, and only then. */}}
{{- define "kubesae.phaseHash" -}}
{{- $given := include "kubesae.experiment" .root | fromJson -}}
{{- $experiment := include "kubesae.changed" (dict "root" .root "experiment" $given) | fromJson -}}
{{- $others := dict
      "fetch" (list "corpora" "pilot" "collect" "verify" "sae" "interpret")
      "prepare" (list "pilot" "collect" "verify" "sae" "interpret")
      "pilot" (list "verify" "sae" "interpret")
      "collect" (list "verify" "sae" "interpret")
      "verify" (list "collect" "sae" "interpret")
      "train" (list "pilot" "collect" "verify" "interpret")
      "interpret" (list "pilot" "collect" "verify") -}}
{{- range get $others .phase }}{{ $_ := unset $experiment . }}{{ end -}}
{{- if .sae -}}
{{- range $experiment.sae }}{{ if eq .name $.sae }}{{ $_ := set $experiment "sae" (list .) }}{{ end }}{{ end -}}
{{- end -}}
{{ toJson $experiment | sha256sum }}
{{- end }}
