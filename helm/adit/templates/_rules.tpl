{{/*
What each part may do. envoy/kubernetes/rbac-*.yaml say the same for those who
install without Helm; a test compares them, and another one compares the
reconciler's with what it asks the API server for.
*/}}

{{/* The reconciler, where users' objects are. */}}
{{- define "adit.rules.users" -}}
# What users and agents write. Never written here, but for their statuses and
# the owner of an advertisement.
- apiGroups: [networking.datumapis.com]
  resources: [httpproxies, connectors]
  verbs: [get, list, watch]
- apiGroups: [networking.datumapis.com]
  resources: [httpproxies/status, connectors/status, connectoradvertisements/status]
  verbs: [patch]
- apiGroups: [networking.datumapis.com]
  resources: [connectoradvertisements]
  verbs: [list, watch, patch]
# A Lease for each Connector.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, patch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes, referencegrants]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [backendtlspolicies]
  verbs: [list, watch]
- apiGroups: [gateway.envoyproxy.io]
  resources: [backends, backendtrafficpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if eq .Values.reconciler.dns.publish "endpoint" }}
- apiGroups: [externaldns.k8s.io]
  resources: [dnsendpoints]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
# The Gateways that it makes itself{{ if include "adit.gateway" . }}, or made before it was told of one{{ end }}.
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [{{ if not (include "adit.gateway" .) }}get, create, patch, {{ end }}delete]
{{- end -}}

{{/* The reconciler, where Gateways are. */}}
{{- define "adit.rules.gateways" -}}
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [list, watch]
# An EnvoyPatchPolicy can change anything in the data plane: whoever may write
# one is root there.
- apiGroups: [gateway.envoyproxy.io]
  resources: [envoyextensionpolicies, envoypatchpolicies]
  verbs: [get, list, watch, create, patch, delete]
{{- end -}}

{{/* The reconciler, in the Gateway's namespace only. */}}
{{- define "adit.rules.gatewayOnly" -}}
# Policies of users that displace what is programmed.
- apiGroups: [gateway.envoyproxy.io]
  resources: [backendtrafficpolicies]
  verbs: [list, watch]
{{- end -}}

{{/* The reconciler, where dialers' Leases are. */}}
{{- define "adit.rules.dialers" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [list, watch]
{{- end -}}

{{/* The reconciler, in the whole cluster. */}}
{{- define "adit.rules.cluster" -}}
- apiGroups: [networking.datumapis.com]
  resources: [connectorclasses]
  verbs: [list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses]
  verbs: [list, watch]
# A GatewayClass may name an EnvoyProxy in any namespace.
- apiGroups: [gateway.envoyproxy.io]
  resources: [envoyproxies]
  verbs: [list, watch]
# Their labels decide which Gateways may be used.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [{{ if eq .Values.reconciler.dns.publish "rfc2136" }}get, {{ end }}list, watch]
{{- end -}}

{{/* The reconciler, in its own namespace: leader election replaces its Lease. */}}
{{- define "adit.rules.own" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end -}}

{{/* The dialer, where Connectors are. */}}
{{- define "adit.rules.dialer.connectors" -}}
- apiGroups: [networking.datumapis.com]
  resources: [connectors]
  verbs: [list, watch]
{{- end -}}

{{/* The dialer, in the dialers' namespace: its own Lease, whose name follows
from its key. */}}
{{- define "adit.rules.dialer.own" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create, patch, delete]
{{- end -}}

{{/* The dialer, in the Gateway's namespace: which targets are live. */}}
{{- define "adit.rules.dialer.gateways" -}}
- apiGroups: [gateway.envoyproxy.io]
  resources: [envoypatchpolicies]
  verbs: [list, watch]
{{- end -}}

{{/* The agent of `helm test`; its Connector's name is given. */}}
{{- define "adit.rules.agent" -}}
- apiGroups: [networking.datumapis.com]
  resources: [connectors, connectoradvertisements]
  resourceNames: [{{ . }}]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.datumapis.com]
  resources: [connectors/status]
  resourceNames: [{{ . }}]
  verbs: [patch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ . }}]
  verbs: [get, patch]
{{- end -}}

{{/* The clean-up, where the reconciler writes. */}}
{{- define "adit.rules.cleanup" -}}
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes, referencegrants, gateways]
  verbs: [list, delete]
- apiGroups: [gateway.envoyproxy.io]
  resources: [envoypatchpolicies, envoyextensionpolicies, backendtrafficpolicies, backends]
  verbs: [list, delete]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [list, delete]
# Also of a release that published by them before.
- apiGroups: [externaldns.k8s.io]
  resources: [dnsendpoints]
  verbs: [list, delete]
{{- end -}}
