{{/* What names, labels and images have in common. */}}

{{- define "adit.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "adit.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "adit.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "adit.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "adit.reconciler" -}}
{{- include "adit.fullname" . }}-reconciler
{{- end -}}

{{- define "adit.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "adit.reconciler" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: which ServiceAccount, when none is created?" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "adit.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "adit.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "adit.selector" -}}
app.kubernetes.io/name: {{ include "adit.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: reconciler
{{- end -}}

{{/* An image: [the values of it, the chart]. */}}
{{- define "adit.image" -}}
{{- $image := index . 0 -}}
{{- $chart := index . 1 -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $chart.AppVersion $image.tag }}{{ end }}
{{- end -}}

{{/* One uid for all, Envoy's too: 65532, as distroless images have it. */}}
{{- define "adit.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "adit.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* `namespace/name` of the Gateway that HTTPProxies use by default; may be empty. */}}
{{- define "adit.gateway" -}}
{{- if .Values.reconciler.gateway -}}
{{- .Values.reconciler.gateway -}}
{{- else if and .Values.gateway.create .Values.gateway.gateway.create -}}
{{- printf "%s/%s" .Values.gateway.namespace .Values.gateway.gateway.name -}}
{{- end -}}
{{- end -}}

{{- define "adit.gatewayNamespace" -}}
{{- include "adit.gateway" . | splitList "/" | first -}}
{{- end -}}

{{/* Where the dialer's socket is in Envoy's pod, and the module. */}}
{{- define "adit.socket" -}}/run/adit/dialer.sock{{- end -}}
{{- define "adit.moduleDir" -}}/usr/lib/adit{{- end -}}

{{/* The namespace of the objects of `helm test`. */}}
{{- define "adit.testNamespace" -}}
{{- if .Values.test.namespace -}}
{{- .Values.test.namespace -}}
{{- else if .Values.watchNamespaces -}}
{{- first .Values.watchNamespaces -}}
{{- else -}}
{{- .Release.Namespace -}}
{{- end -}}
{{- end -}}

{{/* Who has a dialer beside it: subjects of role bindings, as JSON. */}}
{{- define "adit.dialerSubjects" -}}
{{- $subjects := list -}}
{{- range .Values.dialers.serviceAccounts -}}
{{- $subjects = append $subjects (dict "kind" "ServiceAccount" "namespace" .namespace "name" .name) -}}
{{- end -}}
{{- if and (not $subjects) .Values.gateway.create -}}
{{- if .Values.gateway.serviceAccountName -}}
{{- $subjects = list (dict "kind" "ServiceAccount" "namespace" .Values.gateway.namespace "name" .Values.gateway.serviceAccountName) -}}
{{- else -}}
{{- $subjects = list (dict "apiGroup" "rbac.authorization.k8s.io" "kind" "Group" "name" (printf "system:serviceaccounts:%s" .Values.gateway.namespace)) -}}
{{- end -}}
{{- end -}}
{{- $subjects | toJson -}}
{{- end -}}

{{/* What makes an object a hook: [when, weight]. It goes when it has succeeded. */}}
{{- define "adit.hook" -}}
annotations:
  helm.sh/hook: {{ first . }}
  helm.sh/hook-weight: {{ last . | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
