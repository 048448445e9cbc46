{{/* The Pod of a phase. Give root, phase, sae, container, args, env (further variables), model (needs the model), ports. */}}
{{- define "kubesae.pod" -}}
{{- $root := .root -}}
{{- $settings := include "kubesae.phase" (dict "root" .root "phase" .phase) | fromJson -}}
{{- $podFetch := ternary (include "kubesae.podFetch" .root) "" (default false .model) -}}
metadata:
  labels:
    {{- include "kubesae.podLabels" (dict "root" .root "phase" .phase "sae" .sae) | nindent 4 }}
  annotations:
    kubesae.dev/experiment-hash: {{ include "kubesae.phaseHash" (dict "root" .root "phase" .phase "sae" .sae) | quote }}
    {{- range $name, $value := $settings.podAnnotations }}
    {{ $name }}: {{ $value | quote }}
    {{- end }}
spec:
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  {{- include "kubesae.podSettings" (dict "root" .root "settings" $settings) | nindent 2 }}
  {{- with .subdomain }}
  subdomain: {{ . }}
  {{- end }}
  {{- with $podFetch }}
  initContainers:
    - name: fetch
      {{- include "kubesae.container" (dict "root" $root "settings" $settings "phase" "fetch" "resources" $root.Values.phases.fetch.resources "model" true
            "args" (include "kubesae.fetchArgs" (dict "root" $root "from" . "to" $root.Values.experiment.model) | fromJsonArray)) | nindent 6 }}
  {{- end }}
  containers:
    - name: {{ .container }}
      {{- include "kubesae.container" (dict "root" .root "settings" $settings "phase" .phase "resources" $settings.resources "gpus" $settings.gpus
            "args" .args "env" .env "model" (or .model false) "writesModel" .writesModel) | nindent 6 }}
      {{- $ports := .ports | default list }}
      {{- if include "kubesae.metered" . }}{{ $ports = append $ports (dict "name" "metrics" "containerPort" (int .root.Values.metrics.port)) }}{{ end }}
      {{- with $ports }}
      ports:
        {{- toYaml . | nindent 8 }}
      {{- end }}
  volumes:
    {{- include "kubesae.volumes" (dict "root" .root "settings" $settings "model" (or .model false)) | nindent 4 }}
{{- end }}

{{/* Whether the Pods of a phase give metrics. Give root and phase. */}}
{{- define "kubesae.metered" -}}
{{- if and .root.Values.metrics.port (has .phase (list "pilot" "collect" "train")) }}true{{ end -}}
{{- end }}

{{/* What a Pod has besides its containers. Give root and settings. */}}
{{- define "kubesae.podSettings" -}}
serviceAccountName: {{ include "kubesae.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ int .settings.terminationGracePeriodSeconds }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with get $.settings $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{/* A container, without its name. Give root, settings, phase, resources, gpus, args, env, model, writesModel, plain. */}}
{{- define "kubesae.container" -}}
{{- $args := .args -}}
{{- if ne .root.Values.logFormat "text" }}{{ $args = concat (list "--log-format" .root.Values.logFormat) $args }}{{ end -}}
image: {{ include "kubesae.image" .root | quote }}
imagePullPolicy: {{ include "kubesae.pullPolicy" .root }}
command: [kubesae]
args:
  {{- range $args }}
  - {{ . | quote }}
  {{- end }}
env:
  {{- include "kubesae.env" . | nindent 2 }}
resources:
  {{- include "kubesae.resources" . | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
volumeMounts:
  - {name: experiment, mountPath: /etc/kubesae, readOnly: true}
  - {name: scratch, mountPath: /scratch}
  - {name: scratch, mountPath: /tmp, subPath: tmp}
  {{- if .model }}
  - {name: models, mountPath: /models{{ if and (not .writesModel) (eq .root.Values.modelCache.type "persistentVolumeClaim") .root.Values.phases.fetch.source }}, readOnly: true{{ end }}}
  {{- end }}
  {{- if .root.Values.store.caBundle.configMap }}
  - {name: ca, mountPath: /etc/kubesae-ca, readOnly: true}
  {{- end }}
  {{- if .settings.sharedMemory }}
  - {name: shm, mountPath: /dev/shm}
  {{- end }}
  {{- with .settings.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "kubesae.resources" -}}
{{- $gpus := int (default 0 .gpus) -}}
{{- $resources := .resources -}}
{{- range $kind := list "requests" "limits" }}
{{- $of := get $resources $kind | default dict }}
{{- if or $of $gpus }}
{{ $kind }}:
  {{- range $name, $value := $of }}
  {{ $name }}: {{ $value | toString | quote }}
  {{- end }}
  {{- if $gpus }}
  nvidia.com/gpu: {{ $gpus | toString | quote }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The environment, as a list. A name of extraEnv replaces ours: applied lists must not name a variable twice. */}}
{{- define "kubesae.env" -}}
{{- $values := .root.Values -}}
{{- $env := list (dict "name" "HOME" "value" "/scratch") (dict "name" "XDG_CACHE_HOME" "value" "/scratch/cache") -}}
{{- if not .plain }}{{ $env = append $env (dict "name" "KUBESAE_EXPERIMENT" "value" "/etc/kubesae/experiment.yaml") }}{{ end -}}
{{- $shared := and (or .model false) (ne $values.modelCache.type "emptyDir") (not $values.phases.fetch.source) -}}
{{- $env = append $env (dict "name" "HF_HOME" "value" (ternary "/models" "/scratch/hf" $shared)) -}}
{{- with $values.store.existingSecret -}}
{{- range $key := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "AWS_SESSION_TOKEN" -}}
{{- $ref := dict "name" $values.store.existingSecret "key" $key -}}
{{- if eq $key "AWS_SESSION_TOKEN" }}{{ $_ := set $ref "optional" true }}{{ end -}}
{{- $env = append $env (dict "name" $key "valueFrom" (dict "secretKeyRef" $ref)) -}}
{{- end -}}
{{- end -}}
{{- with $values.store.endpoint }}{{ $env = append $env (dict "name" "AWS_ENDPOINT_URL_S3" "value" .) }}{{ end -}}
{{- with $values.store.region }}{{ $env = append $env (dict "name" "AWS_REGION" "value" .) }}{{ end -}}
{{- if $values.store.caBundle.configMap -}}
{{- $env = append $env (dict "name" "AWS_CA_BUNDLE" "value" (printf "/etc/kubesae-ca/%s" $values.store.caBundle.key)) -}}
{{- end -}}
{{- with $values.hub.existingSecret -}}
{{- $env = append $env (dict "name" "HF_TOKEN" "valueFrom" (dict "secretKeyRef" (dict "name" . "key" $values.hub.key))) -}}
{{- end -}}
{{- if $values.hub.offline }}{{ $env = append $env (dict "name" "HF_HUB_OFFLINE" "value" "1") }}{{ end -}}
{{- if include "kubesae.metered" . -}}
{{- $env = append $env (dict "name" "KUBESAE_METRICS_PORT" "value" (int $values.metrics.port | toString)) -}}
{{- end -}}
{{- $env = concat $env (.env | default list) -}}
{{- $theirs := dict -}}
{{- range .settings.extraEnv }}{{ $_ := set $theirs .name true }}{{ end -}}
{{- range $env -}}
{{- if not (hasKey $theirs .name) }}
- {{ toYaml . | indent 2 | trim }}
{{- end }}
{{- end }}
{{- with .settings.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kubesae.volumes" -}}
{{- $values := .root.Values -}}
- name: experiment
  configMap: {name: {{ include "kubesae.fullname" .root }}}
- name: scratch
  emptyDir: {sizeLimit: {{ .settings.scratch | quote }}}
{{- if .model }}
- name: models
  {{- if eq $values.modelCache.type "persistentVolumeClaim" }}
  persistentVolumeClaim: {claimName: {{ $values.modelCache.claimName }}}
  {{- else if eq $values.modelCache.type "hostPath" }}
  hostPath: {path: {{ $values.modelCache.hostPath | quote }}, type: DirectoryOrCreate}
  {{- else }}
  emptyDir: {sizeLimit: {{ $values.modelCache.sizeLimit | quote }}}
  {{- end }}
{{- end }}
{{- with $values.store.caBundle.configMap }}
- name: ca
  configMap: {name: {{ . }}}
{{- end }}
{{- with .settings.sharedMemory }}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ . | quote }}}
{{- end }}
{{- with .settings.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
