//! The CustomResourceDefinitions, as `adit crds` prints them and as
//! `api/crds/` holds them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSON, ValidationRule};
use kube::CustomResourceExt;
use serde_json::json;

use crate::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    networking,
};

/// Every CRD of this API, in the order in which they are read best.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut http_proxy = networking::HttpProxy::crd();
    if let Some(root) = schema(&mut http_proxy) {
        root.x_kubernetes_validations = Some(vec![label_name()]);
    }
    let mut crds = vec![
        networking::ConnectorClass::crd(),
        networking::Connector::crd(),
        networking::ConnectorAdvertisement::crd(),
        http_proxy,
    ];
    crds.iter_mut().for_each(finish);
    crds
}

/// The name is part of label values and of other objects' names. It is not
/// asked of an object that exists: nobody can rename one.
fn label_name() -> ValidationRule {
    ValidationRule {
        rule: "oldSelf.hasValue() || (size(self.metadata.name) <= 63 && !self.metadata.name.contains('.'))".into(),
        message: Some(
            "an HTTPProxy's name is a DNS label: 1 to 63 lowercase letters, digits and hyphens"
                .into(),
        ),
        optional_old_self: Some(true),
        ..ValidationRule::default()
    }
}

fn finish(crd: &mut CustomResourceDefinition) {
    let Some(root) = schema(crd) else { return };
    no_nulls(root);
    root.title = None;
    let properties = root.properties.iter_mut().flatten();
    for (name, property) in properties {
        // What the spec's type says of itself is what the kind is.
        if name == "spec" {
            root.description.clone_from(&property.description);
            property.description = Some("What is wanted.".into());
        }
        // So that the conditions' default is served before anyone has written.
        if name == "status" && property.properties.is_some() {
            property.default = Some(JSON(json!({})));
        }
    }
}

fn schema(crd: &mut CustomResourceDefinition) -> Option<&mut JSONSchemaProps> {
    let version = crd.spec.versions.first_mut()?;
    version.schema.as_mut()?.open_api_v3_schema.as_mut()
}

/// As in the CRDs that these fields come from: `null` stands for the default
/// where there is one and is refused elsewhere, so rules need not tell it from
/// a field that is left out.
fn no_nulls(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for property in schema.properties.iter_mut().flatten() {
        no_nulls(property.1);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        no_nulls(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        no_nulls(values);
    }
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
