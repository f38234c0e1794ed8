//! The CustomResourceDefinitions, as `adit crds` prints them.

use kube::CustomResourceExt;

use crate::{CustomResourceDefinition, networking};

/// Every CRD of this API, in the order in which they are read best.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        networking::ConnectorClass::crd(),
        networking::Connector::crd(),
        networking::ConnectorAdvertisement::crd(),
        networking::HttpProxy::crd(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_published_name_and_scope() {
        let names: Vec<_> = crds()
            .into_iter()
            .map(|crd| {
                let version = crd.spec.versions[0].name.clone();
                (
                    crd.metadata.name.unwrap_or_default(),
                    version,
                    crd.spec.scope,
                )
            })
            .collect();
        let expect = [
            ("connectorclasses", "v1alpha1", "Cluster"),
            ("connectors", "v1alpha1", "Namespaced"),
            ("connectoradvertisements", "v1alpha1", "Namespaced"),
            ("httpproxies", "v1alpha", "Namespaced"),
        ];
        for ((name, version, scope), expect) in names.iter().zip(expect) {
            assert_eq!(*name, format!("{}.networking.datumapis.com", expect.0));
            assert_eq!((version.as_str(), scope.as_str()), (expect.1, expect.2));
        }
        assert_eq!(names.len(), expect.len());
    }

    #[test]
    fn every_schema_describes_spec_and_status() {
        for crd in crds() {
            let schema = crd.spec.versions[0]
                .schema
                .as_ref()
                .and_then(|s| s.open_api_v3_schema.as_ref())
                .and_then(|s| s.properties.as_ref())
                .expect("a schema");
            assert!(schema.contains_key("spec"), "{:?}", crd.metadata.name);
        }
    }
}
