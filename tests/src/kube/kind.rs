//! The kinds of objects that the tests handle without types.

use kube::core::ApiResource;

/// A kind, and whether its objects live in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// As in `v1`.
    pub version: &'static str,
    /// As in `Gateway`.
    pub kind: &'static str,
    /// As in `gateways`.
    pub plural: &'static str,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
}

macro_rules! kinds {
    ($($name:ident = $group:literal $version:literal $kind:literal $plural:literal $namespaced:literal;)*) => {
        impl Kind {
            $(
                #[doc = concat!("`", $group, "/", $version, "` ", $kind, ".")]
                pub const $name: Self = Self {
                    group: $group,
                    version: $version,
                    kind: $kind,
                    plural: $plural,
                    namespaced: $namespaced,
                };
            )*
            const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

kinds! {
    NAMESPACE = "" "v1" "Namespace" "namespaces" false;
    SECRET = "" "v1" "Secret" "secrets" true;
    CONFIG_MAP = "" "v1" "ConfigMap" "configmaps" true;
    SERVICE = "" "v1" "Service" "services" true;
    SERVICE_ACCOUNT = "" "v1" "ServiceAccount" "serviceaccounts" true;
    EVENT = "events.k8s.io" "v1" "Event" "events" true;
    POD = "" "v1" "Pod" "pods" true;
    JOB = "batch" "v1" "Job" "jobs" true;
    DEPLOYMENT = "apps" "v1" "Deployment" "deployments" true;
    LEASE = "coordination.k8s.io" "v1" "Lease" "leases" true;
    ENDPOINT_SLICE = "discovery.k8s.io" "v1" "EndpointSlice" "endpointslices" true;
    ROLE = "rbac.authorization.k8s.io" "v1" "Role" "roles" true;
    ROLE_BINDING = "rbac.authorization.k8s.io" "v1" "RoleBinding" "rolebindings" true;
    CLUSTER_ROLE = "rbac.authorization.k8s.io" "v1" "ClusterRole" "clusterroles" false;
    CLUSTER_ROLE_BINDING = "rbac.authorization.k8s.io" "v1" "ClusterRoleBinding" "clusterrolebindings" false;
    CRD = "apiextensions.k8s.io" "v1" "CustomResourceDefinition" "customresourcedefinitions" false;
    ADMISSION_POLICY = "admissionregistration.k8s.io" "v1" "ValidatingAdmissionPolicy" "validatingadmissionpolicies" false;
    ADMISSION_BINDING = "admissionregistration.k8s.io" "v1" "ValidatingAdmissionPolicyBinding" "validatingadmissionpolicybindings" false;
    GATEWAY_CLASS = "gateway.networking.k8s.io" "v1" "GatewayClass" "gatewayclasses" false;
    GATEWAY = "gateway.networking.k8s.io" "v1" "Gateway" "gateways" true;
    HTTP_ROUTE = "gateway.networking.k8s.io" "v1" "HTTPRoute" "httproutes" true;
    REFERENCE_GRANT = "gateway.networking.k8s.io" "v1beta1" "ReferenceGrant" "referencegrants" true;
    BACKEND_TLS_POLICY = "gateway.networking.k8s.io" "v1" "BackendTLSPolicy" "backendtlspolicies" true;
    ENVOY_PROXY = "gateway.envoyproxy.io" "v1alpha1" "EnvoyProxy" "envoyproxies" true;
    BACKEND = "gateway.envoyproxy.io" "v1alpha1" "Backend" "backends" true;
    ENVOY_PATCH_POLICY = "gateway.envoyproxy.io" "v1alpha1" "EnvoyPatchPolicy" "envoypatchpolicies" true;
    ENVOY_EXTENSION_POLICY = "gateway.envoyproxy.io" "v1alpha1" "EnvoyExtensionPolicy" "envoyextensionpolicies" true;
    BACKEND_TRAFFIC_POLICY = "gateway.envoyproxy.io" "v1alpha1" "BackendTrafficPolicy" "backendtrafficpolicies" true;
    CLIENT_TRAFFIC_POLICY = "gateway.envoyproxy.io" "v1alpha1" "ClientTrafficPolicy" "clienttrafficpolicies" true;
    SECURITY_POLICY = "gateway.envoyproxy.io" "v1alpha1" "SecurityPolicy" "securitypolicies" true;
    HTTP_PROXY = "networking.datumapis.com" "v1alpha" "HTTPProxy" "httpproxies" true;
    CONNECTOR = "networking.datumapis.com" "v1alpha1" "Connector" "connectors" true;
    CONNECTOR_CLASS = "networking.datumapis.com" "v1alpha1" "ConnectorClass" "connectorclasses" false;
    CONNECTOR_ADVERTISEMENT = "networking.datumapis.com" "v1alpha1" "ConnectorAdvertisement" "connectoradvertisements" true;
    DNS_ENDPOINT = "externaldns.k8s.io" "v1alpha1" "DNSEndpoint" "dnsendpoints" true;
}

impl Kind {
    /// The kind of a manifest, by its `apiVersion` and `kind`.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let all = Self::ALL.iter();
        all.copied()
            .find(|k| k.kind == kind && k.api_version() == api_version)
    }

    /// As in `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            return self.version.to_owned();
        }
        format!("{}/{}", self.group, self.version)
    }

    /// For kube's dynamic API.
    pub fn resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version: self.api_version(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}
