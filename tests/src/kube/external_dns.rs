//! The one kind of external-dns that Adit writes. Its controller does not run
//! here: what it would publish is in the object.

use anyhow::Result;
use serde_json::json;

use super::Objects;

/// Installs the CRD, as external-dns' chart does.
pub async fn install(objects: &Objects) -> Result<()> {
    let approved = "https://github.com/kubernetes-sigs/external-dns/pull/2007";
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "dnsendpoints.externaldns.k8s.io",
            "annotations": {"api-approved.kubernetes.io": approved},
        },
        "spec": {
            "group": "externaldns.k8s.io", "scope": "Namespaced",
            "names": {"kind": "DNSEndpoint", "plural": "dnsendpoints", "singular": "dnsendpoint"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {
                "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }}],
        },
    });
    objects.apply("", crd).await.map(drop)
}
