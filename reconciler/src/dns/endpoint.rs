//! The object that external-dns reads: the same records, by another's hand.

use adit_api::{
    external_dns::{DNSEndpoint, DNSEndpointSpec, RecordSet as Records},
    networking::Connector,
};
use kube::{Resource as _, core::ObjectMeta};

use super::RecordSet;
use crate::emit::gateway::{MANAGED_BY, MANAGED_BY_LABEL};

/// The object of a Connector: of the same name, owned by it.
pub fn object(connector: &Connector, records: &RecordSet) -> DNSEndpoint {
    let label = (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    DNSEndpoint {
        metadata: ObjectMeta {
            name: connector.metadata.name.clone(),
            namespace: connector.metadata.namespace.clone(),
            labels: Some([label].into()),
            owner_references: connector.controller_owner_ref(&()).map(|o| vec![o]),
            ..ObjectMeta::default()
        },
        spec: DNSEndpointSpec {
            endpoints: vec![Records {
                dns_name: records.name.clone(),
                record_type: "TXT".into(),
                record_ttl: Some(records.ttl.into()),
                targets: records.texts.clone(),
                labels: [].into(),
            }],
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_object_has_the_records_and_goes_with_its_connector() {
        let connector: Connector = serde_json::from_value(json!({
            "apiVersion": "networking.datumapis.com/v1alpha1", "kind": "Connector",
            "metadata": {"name": "till", "namespace": "shop", "uid": "u"},
            "spec": {"connectorClassName": "c"},
        }))
        .expect("well formed");
        let records = RecordSet {
            name: "_iroh.a.example".into(),
            ttl: 5,
            texts: vec!["relay=https://r.example/".into(), "addr=192.0.2.1:7".into()],
        };
        let object = serde_json::to_value(object(&connector, &records)).expect("serializes");
        assert_eq!(
            object["spec"]["endpoints"],
            json!([{
                "dnsName": "_iroh.a.example", "recordType": "TXT", "recordTTL": 5,
                "targets": ["relay=https://r.example/", "addr=192.0.2.1:7"],
            }])
        );
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(object["metadata"]["name"], "till");
    }
}
