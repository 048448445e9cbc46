{{/*
A Job of a phase. Give root, phase, sae, spec (the part of its spec that cannot be changed), parallelism, annotations.
Its name carries a hash of that part: a changed image or changed resources make a new Job, and Helm removes the old one.
*/}}
{{- define "kubesae.job" -}}
{{- $name := include "kubesae.jobName" . -}}
{{- $gate := include "kubesae.gate" (dict "root" .root "phase" .phase "sae" .sae "name" $name) | fromJson -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "kubesae.labels" (dict "root" .root "phase" .phase "sae" .sae) | nindent 4 }}
    {{- if and $gate.queued .root.Values.queue.name }}
    kueue.x-k8s.io/queue-name: {{ .root.Values.queue.name | quote }}
    {{- end }}
  {{- include "kubesae.jobAnnotations" . | nindent 2 }}
spec:
  {{- if $gate.suspend }}
  suspend: true
  {{- end }}
  parallelism: {{ int (.parallelism | default 1) }}
  {{- .spec | nindent 2 }}
{{- end }}

{{/* A phase that the values hold back is not released by the operator either. */}}
{{- define "kubesae.jobAnnotations" -}}
{{- $annotations := merge (dict) (.annotations | default dict) -}}
{{- $suspend := (index .root.Values.phases .phase).suspend -}}
{{- if and (kindIs "bool" $suspend) $suspend }}{{ $_ := set $annotations "kubesae.dev/hold" "true" }}{{ end -}}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What every Job does about Pods that fail: 2 is a mistake of the user's, 75 and a disruption are no failure. */}}
{{- define "kubesae.failures" -}}
podReplacementPolicy: Failed
podFailurePolicy:
  rules:
    - action: FailJob
      onExitCodes: {operator: In, values: [2]}
    - action: Ignore
      onExitCodes: {operator: In, values: [75]}
    - action: Ignore
      onPodConditions: [{type: DisruptionTarget, status: "True"}]
{{- end }}

{{/* The spec of a Job that one Pod does, or with `workers` several that share the work by --index and --of. */}}
{{- define "kubesae.simpleSpec" -}}
{{- $workers := int (.workers | default 1) -}}
{{- $limit := int (index .root.Values.phases .phase).backoffLimit -}}
{{- $args := .args -}}
completions: {{ $workers }}
{{- if gt $workers 1 }}
completionMode: Indexed
backoffLimitPerIndex: {{ $limit }}
{{- $args = concat $args (list "--index" "$(JOB_COMPLETION_INDEX)" "--of" ($workers | toString)) }}
{{- else }}
backoffLimit: {{ $limit }}
{{- end }}
{{ include "kubesae.failures" . }}
template:
  {{- include "kubesae.pod" (dict "root" .root "phase" .phase "container" "kubesae" "restartPolicy" "Never"
        "args" $args "model" .model "writesModel" .writesModel) | nindent 2 }}
{{- end }}
