{{/* What is refused before anything is made. Each message names the field and says what to do. */}}

{{- define "kubesae.checks" -}}
{{- include "kubesae.checkName" . -}}
{{- include "kubesae.checkCluster" . -}}
{{- include "kubesae.checkExperiment" . -}}
{{- include "kubesae.checkSaes" . -}}
{{- include "kubesae.checkModel" . -}}
{{- include "kubesae.checkCounts" . -}}
{{- include "kubesae.checkLive" . -}}
{{- end }}

{{/* Jobs are called <name>-interpret-<hash>, and Pods and their host names after these: 63 characters in all. */}}
{{- define "kubesae.checkName" -}}
{{- $name := include "kubesae.fullname" . -}}
{{- $field := ternary "fullnameOverride" "the release's name" (ne .Values.fullnameOverride "") -}}
{{- $ways := ternary "Choose another one" "Choose another one, or set fullnameOverride" (ne .Values.fullnameOverride "") -}}
{{- if gt (len $name) 33 -}}
{{- fail (printf "%s: %q has %d characters; with what Jobs and Pods add to it there is room for 33. %s." $field $name (len $name) $ways) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "%s: %q must begin with a letter and hold lower-case letters, digits and dashes, for the names of Services and jobs. %s." $field $name $ways) -}}
{{- end -}}
{{- end }}

{{/*
What the cluster lacks. Every API server lists apiregistration.k8s.io, and `helm template` by itself does not: where it is
missing, Helm has not asked a cluster, and nothing is known.
*/}}
{{- define "kubesae.checkCluster" -}}
{{- $versions := .Capabilities.APIVersions -}}
{{- if $versions.Has "apiregistration.k8s.io/v1/APIService" -}}
{{- if not ($versions.Has "kubesae.dev/v1alpha1/SAEExperiment") -}}
{{- fail "this cluster does not know SAEExperiment (kubesae.dev/v1alpha1). Install the operator once: helm install kubesae-operator helm/operator -n kubesae-system --create-namespace" -}}
{{- end -}}
{{- $train := .Values.phases.train -}}
{{- if and $train.enabled (eq $train.backend "pytorchjob") (not ($versions.Has "kubeflow.org/v1/PyTorchJob")) -}}
{{- fail "phases.train.backend: this cluster does not know PyTorchJob (kubeflow.org/v1). Install Kubeflow's training operator, or set phases.train.backend=job, which needs nothing." -}}
{{- end -}}
{{- if and .Values.metrics.podMonitor.enabled (not ($versions.Has "monitoring.coreos.com/v1/PodMonitor")) -}}
{{- fail "metrics.podMonitor.enabled: this cluster does not know PodMonitor (monitoring.coreos.com/v1). Install the Prometheus operator, or leave this false." -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.podMonitor.enabled (not .Values.metrics.port) -}}
{{- fail "metrics.port: metrics.podMonitor is enabled, and there are no metrics. Set a port, such as 9090." -}}
{{- end -}}
{{- end }}

{{/* What the program refuses too, where two fields contradict each other: said here it costs no Pod. */}}
{{- define "kubesae.checkExperiment" -}}
{{- $e := .Values.experiment -}}
{{- $defaults := (.Files.Get "files/experiment.json" | fromJson).defaults.experiment -}}
{{- $full := merge (dict) (deepCopy $e) $defaults -}}
{{- range $field := list "data" "output" -}}
{{- $url := get $e $field -}}
{{- if and $url (not (regexMatch "^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/|$)" $url)) -}}
{{- fail (printf "experiment.%s: %q is no s3://bucket/prefix. Pods of different nodes share nothing else: give one." $field $url) -}}
{{- end -}}
{{- end -}}
{{- $layers := list -}}
{{- range $e.layers }}{{ $layers = append $layers (int .) }}{{ end -}}
{{- $last := -1 -}}
{{- range $layers -}}
{{- if le . $last }}{{ fail (printf "experiment.layers: %s must ascend and name each layer once." (toJson $layers)) }}{{ end -}}
{{- $last = . -}}
{{- end -}}
{{- $corpora := dict -}}
{{- range $e.corpora -}}
{{- $name := .name | default .preset -}}
{{- if hasKey $corpora $name }}{{ fail (printf "experiment.corpora: two corpora have the name %q. Give each its own." $name) }}{{ end -}}
{{- $_ := set $corpora $name true -}}
{{- end -}}
{{- if gt (int64 $full.contexts_per_block) (int64 $full.contexts_per_part) -}}
{{- fail (printf "experiment.contexts_per_block: %d is more than contexts_per_part (%d). Lower it." (int64 $full.contexts_per_block) (int64 $full.contexts_per_part)) -}}
{{- end -}}
{{- if lt (int64 $full.tokens) (int64 $full.num_shards) -}}
{{- fail (printf "experiment.num_shards: %d tokens cannot fill %d shards. Lower it." (int64 $full.tokens) (int64 $full.num_shards)) -}}
{{- end -}}
{{- range $i, $sae := $e.sae -}}
{{- if kindIs "invalid" $sae.layer -}}
{{- if gt (len $layers) 1 }}{{ fail (printf "experiment.sae.%d.layer: several layers are captured, %s. Say which one this SAE is for." $i (toJson $layers)) }}{{ end -}}
{{- else if not (has (int $sae.layer) $layers) -}}
{{- fail (printf "experiment.sae.%d.layer: layer %d is not in experiment.layers, %s. Choose one of these." $i (int $sae.layer) (toJson $layers)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* An SAE's settings are fixed by its name, so no two may have the same; one without a name gets it from its shape. */}}
{{- define "kubesae.checkSaes" -}}
{{- $names := dict -}}
{{- $shapes := dict -}}
{{- range $i, $sae := .Values.experiment.sae -}}
{{- if $sae.name -}}
{{- if hasKey $names $sae.name -}}
{{- fail (printf "experiment.sae.%d.name: %q is the name of another SAE of this release. Give each its own." $i $sae.name) -}}
{{- end -}}
{{- $_ := set $names $sae.name true -}}
{{- else -}}
{{- if eq $.Values.phases.train.jobs "each" -}}
{{- fail (printf "experiment.sae.%d.name: with phases.train.jobs=each every SAE needs a name, which its job bears. Give it one, or set phases.train.jobs=one." $i) -}}
{{- end -}}
{{- $shape := list $sae.layer ($sae.architecture | default "relu") (int64 $sae.d_sae) (ternary 0 (int64 ($sae.expansion | default 8)) (ne (int64 $sae.d_sae) 0)) | toJson -}}
{{- if hasKey $shapes $shape -}}
{{- fail (printf "experiment.sae.%d.name: another SAE without a name has the same layer, architecture and width, which make its name. Name them." $i) -}}
{{- end -}}
{{- $_ := set $shapes $shape true -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.phases.train.jobs "each") (not .Values.experiment.sae) -}}
{{- fail "experiment.sae: with phases.train.jobs=each the SAEs have to be listed, each with a name. List them, or set phases.train.jobs=one." -}}
{{- end -}}
{{- end }}

{{- define "kubesae.checkModel" -}}
{{- $cache := .Values.modelCache -}}
{{- $fetch := .Values.phases.fetch -}}
{{- $model := .Values.experiment.model -}}
{{- if and (eq $cache.type "persistentVolumeClaim") (not $cache.claimName) -}}
{{- fail "modelCache.claimName: modelCache.type is persistentVolumeClaim, and no claim is named. Name one of this namespace." -}}
{{- end -}}
{{- if and (eq $cache.type "hostPath") (not $cache.hostPath) -}}
{{- fail "modelCache.hostPath: modelCache.type is hostPath, and no folder of the node is named. Name one that user 10001 can write." -}}
{{- end -}}
{{- if $fetch.source -}}
{{- if not (regexMatch "^/models/[^/]+/?$" $model) -}}
{{- fail (printf "experiment.model: with phases.fetch.source the model is fetched to a folder below /models, and %q is none. Set it to /models/NAME." $model) -}}
{{- end -}}
{{- if and $fetch.mirror (eq $cache.type "persistentVolumeClaim") -}}
{{- fail "phases.fetch.mirror: with a claim (modelCache.type) the model is fetched to it, once, and needs no mirror. Leave it empty." -}}
{{- end -}}
{{- end -}}
{{- $phases := .Values.phases -}}
{{- $interprets := and $phases.interpret.enabled $phases.interpret.model -}}
{{- $loaded := or $phases.prepare.enabled $phases.pilot.enabled $phases.collect.enabled $interprets -}}
{{- if and $loaded (hasPrefix "/models/" $model) (eq $cache.type "emptyDir") -}}
{{- if not $fetch.source -}}
{{- fail (printf "phases.fetch.source: experiment.model is %q, and nothing puts a model there. Say where it comes from: a hub id, or s3://bucket/prefix." $model) -}}
{{- end -}}
{{- if not $fetch.enabled -}}
{{- fail (printf "phases.fetch.enabled: experiment.model is %q, and without fetching nothing puts it into the emptyDir. Enable it, or use a claim that has the model." $model) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "kubesae.checkCounts" -}}
{{- $train := .Values.phases.train -}}
{{- if gt (int $train.minWorkers) (int $train.workers) -}}
{{- fail (printf "phases.train.minWorkers: %d is more than phases.train.workers (%d). Lower it." (int $train.minWorkers) (int $train.workers)) -}}
{{- end -}}
{{- $shards := int $train.featureShards -}}
{{- $processes := max 1 (int $train.gpus) -}}
{{- $elastic := and (gt (int $train.minWorkers) 0) (lt (int $train.minWorkers) (int $train.workers)) -}}
{{- if or (mod (mul $processes (int $train.workers)) $shards) (and $elastic (mod $processes $shards)) -}}
{{- fail (printf "phases.train.featureShards: %d does not divide the processes (%d in each of %d Pods%s). Lower it, or change phases.train.gpus." $shards $processes (int $train.workers) (ternary ", of which some may be lost" "" $elastic)) -}}
{{- end -}}
{{- $queue := .Values.queue -}}
{{- if and $queue.minParallelism (not $queue.name) -}}
{{- fail "queue.minParallelism: there is no queue. Set queue.name to a LocalQueue, or leave this 0." -}}
{{- end -}}
{{- if gt (int $queue.minParallelism) (include "kubesae.shards" . | int) -}}
{{- fail (printf "queue.minParallelism: %d is more than the shards (%s). Lower it." (int $queue.minParallelism) (include "kubesae.shards" .)) -}}
{{- end -}}
{{- end }}

{{/* What an upgrade must not change: what decides the data, and the settings of an SAE that is there. */}}
{{- define "kubesae.checkLive" -}}
{{- with include "kubesae.live" . | fromJson -}}
{{- $there := include "kubesae.dataFields" (dict "root" $ "experiment" .experiment) | fromJson -}}
{{- $here := include "kubesae.dataFields" (dict "root" $ "experiment" $.Values.experiment) | fromJson -}}
{{- with include "kubesae.differences" (dict "there" $there "here" $here) -}}
{{- fail (printf "experiment: what decides the data cannot be changed in a release that is there.%s\nSet it back, or install another release with another experiment.data." .) -}}
{{- end -}}
{{- $saes := include "kubesae.saes" (dict "root" $ "experiment" $.Values.experiment) | fromJson -}}
{{- range $name, $old := include "kubesae.saes" (dict "root" $ "experiment" .experiment) | fromJson -}}
{{- if hasKey $saes $name -}}
{{- with include "kubesae.differences" (dict "there" $old "here" (get $saes $name)) -}}
{{- fail (printf "experiment.sae: the settings of the SAE %q cannot be changed in a release that is there.%s\nSet them back, or give the changed SAE another name." $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A line for each field in which two sections differ; nothing where they agree. Give there and here. */}}
{{- define "kubesae.differences" -}}
{{- range $field := concat (keys .there) (keys .here) | uniq | sortAlpha -}}
{{- $old := ternary (get $.there $field | toJson) "its default" (hasKey $.there $field) -}}
{{- $new := ternary (get $.here $field | toJson) "its default" (hasKey $.here $field) -}}
{{- if ne $old $new }}{{ printf "\n  %s: %s there, %s in the values" $field $old $new }}{{ end -}}
{{- end -}}
{{- end }}
