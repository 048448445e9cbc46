{{/*
Whether a job is rendered suspended, and with its queue's label, as JSON. Give root, phase, sae, name (of the job).

A job is rendered with `suspend: true` until the live one has been released, by the operator or by `kubesae release`.
From then on the field is left out: rendering it again would stop the phase, and `suspend: false` would quarrel with Kueue.
A live job of another name is the predecessor of this one, with another image, say. This one goes on in its place, unless
it was complete: in that case the store decides, as for a first start. `phases.X.suspend` of the values comes first; a
job that runs is stopped by the operator, which sees the annotation kubesae.dev/hold.
*/}}
{{- define "kubesae.gate" -}}
{{- $asked := (index .root.Values.phases .phase).suspend -}}
{{- $startNow := and (kindIs "bool" $asked) (not $asked) -}}
{{- $hold := and (kindIs "bool" $asked) $asked -}}
{{- $queue := ne .root.Values.queue.name "" -}}
{{- $same := dict -}}{{- $handedOn := false -}}
{{- range include "kubesae.liveJobs" . | fromJsonArray -}}
{{- if eq .name $.name -}}
{{- $same = . -}}
{{- else if and (or (not .suspended) .queued) (not .complete) -}}
{{- $handedOn = true -}}
{{- end -}}
{{- end -}}
{{- if $same -}}
{{- $queued := or $same.queued (and $startNow $queue) -}}
{{ dict "suspend" (and $same.suspended (or $queued (not $startNow))) "queued" $queued | toJson }}
{{- else -}}
{{- $start := or $startNow (and $handedOn (not $hold)) -}}
{{ dict "suspend" (or (not $start) $queue) "queued" (and $start $queue) | toJson }}
{{- end -}}
{{- end }}

{{/* The live jobs of a phase, of either kind, as a JSON list of name, suspended, queued, complete. */}}
{{- define "kubesae.liveJobs" -}}
{{- $namespace := .root.Release.Namespace -}}
{{- $items := (lookup "batch/v1" "Job" $namespace "").items | default list -}}
{{- if and (eq .phase "train") (.root.Capabilities.APIVersions.Has "kubeflow.org/v1/PyTorchJob") -}}
{{- $items = concat $items ((lookup "kubeflow.org/v1" "PyTorchJob" $namespace "").items | default list) -}}
{{- end -}}
{{- $jobs := list -}}
{{- range $item := $items -}}
{{- $labels := $item.metadata.labels | default dict -}}
{{- $ours := and (eq (get $labels "kubesae.dev/experiment") (include "kubesae.fullname" $.root))
      (eq (get $labels "kubesae.dev/phase") $.phase) (eq (get $labels "kubesae.dev/sae") ($.sae | default "")) -}}
{{- if $ours -}}
{{- $policy := ternary ($item.spec.runPolicy | default dict) $item.spec (eq $item.kind "PyTorchJob") -}}
{{- $complete := false -}}
{{- range ($item.status | default dict).conditions -}}
{{- if and (has .type (list "Complete" "Succeeded")) (eq .status "True") }}{{ $complete = true }}{{ end -}}
{{- end -}}
{{- $jobs = append $jobs (dict "name" $item.metadata.name "suspended" (or $policy.suspend false)
      "queued" (hasKey $labels "kueue.x-k8s.io/queue-name") "complete" $complete) -}}
{{- end -}}
{{- end -}}
{{ toJson $jobs }}
{{- end }}
