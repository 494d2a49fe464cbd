{{- define "apss.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{/* Names in a cluster, which other releases share. */}}
{{- define "apss.clusterName" -}}
{{- if eq .Release.Namespace (include "apss.name" .) }}{{ include "apss.name" . }}{{ else }}{{ printf "%s-%s" .Release.Namespace (include "apss.name" .) }}{{ end -}}
{{- end }}

{{/* (dict "root" $ "component" "relay") */}}
{{- define "apss.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "apss.labels" -}}
{{ include "apss.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: apss
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* node or sidecar. Every node of an Autopilot cluster is called gk3-...; one without nodes has the kinds of its allow lists. */}}
{{- define "apss.mode" -}}
{{- if ne .Values.mode "auto" -}}{{ .Values.mode }}
{{- else -}}
{{- $nodes := (lookup "v1" "Node" "" "").items | default list -}}
{{- $autopilot := and (empty $nodes) (.Capabilities.APIVersions.Has "auto.gke.io/v1/WorkloadAllowlist") -}}
{{- range $nodes -}}{{- if hasPrefix "gk3-" .metadata.name -}}{{- $autopilot = true -}}{{- end -}}{{- end -}}
{{- ternary "sidecar" "node" $autopilot -}}
{{- end -}}
{{- end }}

{{/* (dict "root" $ "component" "relay") */}}
{{- define "apss.image" -}}
{{- $images := .root.Values.images -}}
{{- $registry := required "images.registry is not set: where are the images? For instance --set images.registry=europe-west1-docker.pkg.dev/my-project/apss" $images.registry -}}
{{- $digest := get $images.digests .component -}}
{{- if $digest -}}
{{ $registry }}/apss-{{ .component }}@{{ $digest }}
{{- else if $images.allowTag -}}
{{ $registry }}/apss-{{ .component }}:{{ $images.tag | default .root.Chart.AppVersion }}
{{- else -}}
{{- fail (printf "images.digests.%s is not set: a packaged chart has the digests of its release; from source give them (--set images.digests.%s=sha256:...) or set images.allowTag=true" .component .component) -}}
{{- end -}}
{{- end }}

{{- define "apss.priorityClass" -}}
{{- if .Values.priorityClass.existing }}{{ .Values.priorityClass.existing }}{{ else if .Values.priorityClass.create }}{{ include "apss.clusterName" . }}{{ end -}}
{{- end }}

{{/* What every pod of ours has. (dict "root" $ "component" "relay" "values" .Values.relay) */}}
{{- define "apss.pod" -}}
serviceAccountName: {{ include "apss.name" .root }}-{{ .component }}
{{- with include "apss.priorityClass" .root }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Replicas apart: on other nodes and in other zones where there are such. */}}
{{- define "apss.spread" -}}
topologySpreadConstraints:
  {{- range $key, $skew := dict "kubernetes.io/hostname" 1 "topology.kubernetes.io/zone" 1 }}
  - maxSkew: {{ $skew }}
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "apss.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{- define "apss.container" -}}
image: {{ include "apss.image" . }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
{{- end }}

{{/* Where programs of ours publish, and as what: (list $ "EVENTS_TOPIC" "ALERTS_TOPIC"). */}}
{{- define "apss.pubsubEnv" -}}
{{- $ := first . -}}
- {name: PUBSUB_PROJECT_ID, value: {{ required "project is not set: the Google Cloud project of the topics, for instance --set project=my-project" $.Values.project | quote }}}
- {name: CLUSTER_NAME, value: {{ required "cluster is not set: the name that events and alerts give this cluster, for instance --set cluster=prod-1" $.Values.cluster | quote }}}
- {name: EVENTS_TOPIC, value: {{ $.Values.topics.events | quote }}}
{{- if has "ALERTS_TOPIC" . }}
- {name: ALERTS_TOPIC, value: {{ $.Values.topics.alerts | quote }}}
{{- end }}
{{- with $.Values.pubsubEmulator }}
- {name: PUBSUB_EMULATOR_HOST, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* Of the downward API: (list "POD_NAME" ...). */}}
{{- define "apss.podEnv" -}}
{{- $fields := dict "POD_NAME" "metadata.name" "POD_NAMESPACE" "metadata.namespace" "NODE_NAME" "spec.nodeName" -}}
{{- range $name := . }}
- {name: {{ $name }}, valueFrom: {fieldRef: {fieldPath: {{ get $fields $name }}}}}
{{- end }}
{{- end }}

{{/* Further settings of a program, without those that the chart gives itself: (dict "of" "relay" "env" {} "but" (list ...)). */}}
{{- define "apss.env" -}}
{{- $but := concat .but (list "PUBSUB_PROJECT_ID" "CLUSTER_NAME" "EVENTS_TOPIC" "ALERTS_TOPIC" "PUBSUB_EMULATOR_HOST" "POD_NAME" "POD_NAMESPACE" "NODE_NAME") -}}
{{- range $name, $value := .env }}
{{- if has $name $but }}{{ fail (printf "%s.env.%s: the chart sets it, by a value of its own (helm show values)" $.of $name) }}{{ end }}
- {name: {{ $name }}, value: {{ include "apss.text" $value | quote }}}
{{- end }}
{{- end }}

{{/* A value as a person wrote it: numbers of a values file are of floating point, 16777216 would be 1.6777216e+07. Programs take no blanks around it. */}}
{{- define "apss.text" -}}
{{- if kindIs "float64" . }}{{ if eq (floor .) . }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}{{ else }}{{ toString . | trim }}{{ end -}}
{{- end }}

{{/* NAME=value;NAME=value */}}
{{- define "apss.pairs" -}}
{{- $pairs := list -}}
{{- range $name, $value := . -}}
{{- if or (contains ";" (toString $value)) (contains "\n" (toString $value)) }}{{ fail (printf "agent.env.%s: %q has a semicolon or a line end, which settings of sidecars cannot have" $name (toString $value)) }}{{ end -}}
{{- $pairs = append $pairs (printf "%s=%s" $name (include "apss.text" $value)) -}}
{{- end -}}
{{- join ";" $pairs -}}
{{- end }}

{{- define "apss.relay" -}}
https://{{ .Values.relay.clusterIP | default (printf "%s-relay.%s.svc" (include "apss.name" .) .Release.Namespace) }}:8444
{{- end }}

{{- define "apss.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "apss.name" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "apss.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "apss.selector" . | nindent 6 }}
{{- end }}

{{- define "apss.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "apss.name" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "apss.labels" . | nindent 4 }}
  {{- with get .root.Values.googleServiceAccounts .component }}
  annotations:
    iam.gke.io/gcp-service-account: {{ . }}
  {{- end }}
{{- end }}

{{/* "true" where what auto stands for is there: (dict "root" $ "value" ... "api" "monitoring.googleapis.com/v1/PodMonitoring") */}}
{{- define "apss.enabled" -}}
{{- if eq (toString .value) "auto" }}{{ .root.Capabilities.APIVersions.Has .api }}{{ else }}{{ .value }}{{ end -}}
{{- end }}

{{/* A pod and a container without rights, as Pod Security "restricted" wants them. */}}
{{- define "apss.nobody" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "apss.nothing" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "apss.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 20
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}

{{- define "apss.clusterRoleBinding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ include "apss.clusterName" .root }}-{{ .component }}
  labels:
    {{- include "apss.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ include "apss.clusterName" .root }}-{{ .component }}
subjects:
  - kind: ServiceAccount
    name: {{ include "apss.name" .root }}-{{ .component }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}
