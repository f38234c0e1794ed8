//! What a Gateway gets once for all HTTPProxies: itself, if nobody made it,
//! and the policy that puts the module's filter before our routes.

use std::collections::{BTreeMap, BTreeSet};

use adit_api::{
    ObjectMeta, ResourceExt as _,
    envoy_gateway::{
        DynamicModule, EnvoyExtensionPolicy, EnvoyExtensionPolicySpec, FromNamespaces, GROUP,
        SelectorNamespaces, TargetSelector, Targets,
    },
    networking::HttpProxy,
};
use gateway_api::{
    gateways::{
        Gateway, GatewayListeners, GatewayListenersAllowedRoutes,
        GatewayListenersAllowedRoutesNamespaces, GatewayListenersAllowedRoutesNamespacesFrom,
        GatewaySpec,
    },
    referencegrants::{ReferenceGrant, ReferenceGrantFrom, ReferenceGrantSpec, ReferenceGrantTo},
};

use super::{
    GATEWAY_API, MANAGED_BY, MANAGED_BY_LABEL, Place, TUNNEL_LABEL,
    owned::{self, GATEWAY_LABEL, gateway_label, seal},
};
use crate::emit::ADIT;

/// Of the policy and of the grants; a Gateway's name is added.
const NAME: &str = "adit";
/// The longest name of an object.
const MAX_NAME: usize = 253;

/// The Gateway of an HTTPProxy that names none: one listener, for routes of
/// its own namespace.
pub fn made_gateway(proxy: &HttpProxy, class: &str) -> Gateway {
    let place = Place {
        namespace: proxy.namespace().unwrap_or_default(),
        name: proxy.name_any(),
    };
    seal(Gateway {
        metadata: owned::metadata(proxy, &place),
        spec: GatewaySpec {
            gateway_class_name: class.to_owned(),
            listeners: vec![GatewayListeners {
                name: "http".into(),
                port: 80,
                protocol: "HTTP".into(),
                allowed_routes: Some(GatewayListenersAllowedRoutes {
                    kinds: None,
                    namespaces: Some(GatewayListenersAllowedRoutesNamespaces {
                        from: Some(GatewayListenersAllowedRoutesNamespacesFrom::Same),
                        selector: None,
                    }),
                }),
                ..GatewayListeners::default()
            }],
            ..GatewaySpec::default()
        },
        status: None,
    })
}

/// The policy of a Gateway, and the grants that let it select routes in the
/// given namespaces.
///
/// The policy selects by label. Of two policies for one route Envoy Gateway
/// takes the more specific alone, unless that one says how it merges.
pub fn extension(
    gateway: &Place,
    module_name: &str,
    route_namespaces: &BTreeSet<String>,
) -> (EnvoyExtensionPolicy, Vec<ReferenceGrant>) {
    let elsewhere: Vec<_> = route_namespaces
        .iter()
        .filter(|n| **n != gateway.namespace)
        .collect();
    let namespaces = (!elsewhere.is_empty()).then_some(SelectorNamespaces {
        from: FromNamespaces::All,
        selector: None,
    });
    let policy = EnvoyExtensionPolicy {
        metadata: metadata(&gateway.namespace, &joined(&gateway.name)),
        spec: EnvoyExtensionPolicySpec {
            targets: Targets {
                target_selectors: vec![TargetSelector {
                    group: Some(GATEWAY_API.into()),
                    kind: "HTTPRoute".into(),
                    namespaces,
                    match_labels: BTreeMap::from([
                        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
                        (TUNNEL_LABEL.to_owned(), "true".to_owned()),
                        (GATEWAY_LABEL.to_owned(), gateway_label(gateway)),
                    ]),
                    match_expressions: Vec::new(),
                }],
                ..Targets::default()
            },
            merge_type: Some("StrategicMerge".into()),
            dynamic_module: vec![DynamicModule {
                name: module_name.to_owned(),
                filter_name: Some(ADIT.into()),
                config: None,
            }],
            rest: BTreeMap::new(),
        },
        status: None,
    };
    let grants = elsewhere
        .into_iter()
        .map(|namespace| grant(&gateway.namespace, namespace));
    (seal(policy), grants.collect())
}

/// One for all Gateways of a namespace: they are told apart by nothing in it.
fn grant(from: &str, namespace: &str) -> ReferenceGrant {
    seal(ReferenceGrant {
        metadata: metadata(namespace, &joined(from)),
        spec: ReferenceGrantSpec {
            from: vec![ReferenceGrantFrom {
                group: GROUP.into(),
                kind: "EnvoyExtensionPolicy".into(),
                namespace: from.to_owned(),
            }],
            to: vec![ReferenceGrantTo {
                group: GATEWAY_API.into(),
                kind: "HTTPRoute".into(),
                name: None,
            }],
        },
    })
}

fn joined(name: &str) -> String {
    let mut joined = format!("{NAME}-{name}");
    joined.truncate(MAX_NAME);
    joined
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(BTreeMap::from([(
            MANAGED_BY_LABEL.to_owned(),
            MANAGED_BY.to_owned(),
        )])),
        ..ObjectMeta::default()
    }
}
