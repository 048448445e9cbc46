{{/*
The experiment, and hashes of parts of it. Before hashing, fields that have their default are dropped, so that writing
out a default changes nothing. files/experiment.json (generated) has the defaults and which fields decide the data.
*/}}

{{- define "kubesae.experiment" -}}
{{ toJson (merge (dict) (deepCopy .Values.experiment) (dict "name" (include "kubesae.fullname" .))) }}
{{- end }}

{{/* A section without the fields that have their defaults, as JSON. Give section and defaults. */}}
{{- define "kubesae.withoutDefaults" -}}
{{- $kept := dict -}}
{{- range $field, $value := .section -}}
{{- if not (and (hasKey $.defaults $field) (eq (toJson $value) (toJson (get $.defaults $field)))) -}}
{{- $_ := set $kept $field $value -}}
{{- end -}}
{{- end -}}
{{ toJson $kept }}
{{- end }}

{{/* The fields of an experiment that decide its data, as JSON. Give root and experiment. */}}
{{- define "kubesae.dataFields" -}}
{{- $known := .root.Files.Get "files/experiment.json" | fromJson -}}
{{- $fields := dict -}}
{{- range $known.decidesData -}}
{{- if hasKey $.experiment . }}{{ $_ := set $fields . (get $.experiment .) }}{{ end -}}
{{- end -}}
{{- $corpora := list -}}
{{- range $.experiment.corpora -}}
{{- $corpora = append $corpora (include "kubesae.withoutDefaults" (dict "section" . "defaults" $known.defaults.corpora) | fromJson) -}}
{{- end -}}
{{- $_ := set $fields "corpora" $corpora -}}
{{ include "kubesae.withoutDefaults" (dict "section" $fields "defaults" $known.defaults.experiment) }}
{{- end }}

{{/* The SAEs of an experiment by their names, as JSON; those without a name by their place. Give root and experiment. */}}
{{- define "kubesae.saes" -}}
{{- $known := .root.Files.Get "files/experiment.json" | fromJson -}}
{{- $saes := dict -}}
{{- range $i, $sae := .experiment.sae | default (list (dict)) -}}
{{- $settings := include "kubesae.withoutDefaults" (dict "section" (omit $sae "name") "defaults" $known.defaults.sae) | fromJson -}}
{{- $_ := set $saes ($sae.name | default (printf "default-%d" $i)) $settings -}}
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
{{- $experiment := include "kubesae.experiment" .root | fromJson -}}
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
