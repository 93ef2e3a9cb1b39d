{{/* Name of all objects. */}}
{{- define "coxswain.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects the Pods: never changes during the life of a release. */}}
{{- define "coxswain.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end -}}

{{- define "coxswain.labels" -}}
{{ include "coxswain.selector" . }}
app.kubernetes.io/part-of: coxswain
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "coxswain.serviceAccount" -}}
{{- default (include "coxswain.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "coxswain.electionID" -}}
{{- default (printf "%s-leader" (include "coxswain.fullname" .)) .Values.controller.electionID -}}
{{- end -}}

{{/* image: repository, tag or digest. Argument: dict "image" … "default" … */}}
{{- define "coxswain.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .default .image.tag }}
{{- end -}}
{{- end -}}

{{/* The proxy's image: the stock one of its kind, in the version that was tested, unless values say otherwise. */}}
{{- define "coxswain.proxyImage" -}}
{{- $stock := dict "nginx" "docker.io/library/nginx" "envoy" "docker.io/envoyproxy/envoy" -}}
{{- $tested := dict "nginx" "1.30.6" "envoy" "v1.40.0" -}}
{{- $repository := default (get $stock .Values.proxy.kind) .Values.proxy.image.repository -}}
{{- $image := merge (dict "repository" $repository) .Values.proxy.image -}}
{{- include "coxswain.image" (dict "image" $image "default" (get $tested .Values.proxy.kind)) -}}
{{- end -}}

{{/* The namespaces in force, as a list in YAML; empty: all. */}}
{{- define "coxswain.namespaces" -}}
{{- if .Values.controller.scope.enabled -}}
{{- toYaml (default (list .Release.Namespace) .Values.controller.scope.namespaces) -}}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* What every container may do: nothing. */}}
{{- define "coxswain.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 101
runAsGroup: 101
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Flags from a map: an empty value makes a switch. Nothing at all for an empty map. */}}
{{- define "coxswain.extraArgs" -}}
{{- $flags := list }}
{{- range $name, $value := . }}
{{- if or (kindIs "invalid" $value) (eq (toString $value) "") }}
{{- $flags = append $flags (printf "--%s" $name) }}
{{- else }}
{{- $flags = append $flags (printf "--%s=%v" $name $value) }}
{{- end }}
{{- end }}
{{- if $flags }}{{ toYaml $flags }}{{ end }}
{{- end -}}

{{/* What is read in the namespaces that are watched, and what is told there. */}}
{{- define "coxswain.rules.watched" -}}
- apiGroups: [""]
  resources: [configmaps, secrets, services]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
