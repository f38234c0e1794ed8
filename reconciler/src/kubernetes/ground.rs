//! Where an HTTPProxy is to be programmed: its Gateway, whether it may attach
//! there, and what the Gateway's Envoy has.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use adit_api::{
    Problem, Reason, ResourceExt as _,
    envoy_gateway::{EnvoyProxy, GROUP, TargetRef},
    labels::{self, Requirement},
    networking::HttpProxy,
};
use gateway_api::{
    gatewayclasses::GatewayClass,
    gateways::{
        Gateway, GatewayListeners, GatewayListenersAllowedRoutesNamespacesFrom as Allowed,
        GatewayListenersAllowedRoutesNamespacesSelector as Selector,
    },
};

use super::{
    kept::{Health, Key},
    options::Config,
    stores::Stores,
};
use crate::emit::gateway::{GATEWAY_ANNOTATION, GATEWAY_API, Place, verdict};

/// Which Gateway an HTTPProxy wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub place: Key,
    /// Whether it is made for this HTTPProxy.
    pub made: bool,
}

/// What the Gateway's Envoy has.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The Gateway.
    pub gateway: Arc<Gateway>,
    /// What patches are for.
    pub patch_target: TargetRef,
    /// The module's file where Envoy runs, or why there is none.
    pub module: Result<PathBuf, String>,
}

/// Why an HTTPProxy cannot be programmed at all now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// One word for the condition.
    pub reason: &'static str,
    /// What was looked for, and what to do.
    pub message: String,
    /// Whether what is there of it has to go: it may not be there any more.
    pub withdraw: bool,
}

impl Missing {
    fn new(reason: verdict::Reason, message: impl Into<String>) -> Self {
        Self {
            reason: reason.as_str(),
            message: message.into(),
            withdraw: false,
        }
    }
}

/// Which Gateway: what the annotation says, or the operator's choice, or one
/// made for this HTTPProxy.
///
/// # Errors
/// When the annotation cannot be read.
pub fn wanted(proxy: &HttpProxy, config: &Config) -> Result<Wanted, Problem> {
    let namespace = proxy.namespace().unwrap_or_default();
    let Some(text) = proxy.annotations().get(GATEWAY_ANNOTATION) else {
        return Ok(match &config.gateway {
            Some(place) => Wanted {
                place: Key::new(&place.namespace, &place.name),
                made: false,
            },
            None => Wanted {
                place: Key::new(namespace, proxy.name_any()),
                made: true,
            },
        });
    };
    let place = match text.split_once('/') {
        None => Key::new(namespace, text),
        Some((namespace, name)) => Key::new(namespace, name),
    };
    let bad = |part: &str| part.is_empty() || part.len() > 253 || part.contains('/');
    if bad(&place.namespace) || bad(&place.name) {
        let path = format!("metadata.annotations[{GATEWAY_ANNOTATION}]");
        let message = format!(
            "{:?} names no Gateway; write NAME or NAMESPACE/NAME",
            super::conditions::bounded(text, 100)
        );
        return Err(Problem::error(path, Reason::Invalid, message));
    }
    Ok(Wanted { place, made: false })
}

/// What is there for an HTTPProxy in `namespace`.
///
/// # Errors
/// When it cannot be programmed.
pub fn find(
    stores: &Stores,
    config: &Config,
    namespace: &str,
    wanted: &Wanted,
) -> Result<Ground, Missing> {
    if let Some(missing) = unknown(stores) {
        return Err(missing);
    }
    let Some(gateway) = stores.gateways.get(&wanted.place) else {
        let unwatched = !config.namespaces.is_empty()
            && !config.namespaces.contains(&wanted.place.namespace)
            && config.gateway.as_ref().map(|g| &g.namespace) != Some(&wanted.place.namespace);
        let hint = match (unwatched, wanted.made) {
            (true, _) => "this reconciler does not watch its namespace",
            (false, true) => "it is being made",
            (false, false) => {
                "make it, or name another by --gateway or the annotation networking.datumapis.com/gateway"
            }
        };
        let message = format!("Gateway {} not found: {hint}", wanted.place);
        return Err(Missing::new(verdict::Reason::GatewayNotFound, message));
    };
    if !allows(&gateway, namespace, stores) {
        return Err(Missing {
            reason: "NotAllowedByListeners",
            message: format!(
                "no listener of Gateway {} lets HTTPRoutes of namespace {namespace} attach; extend its allowedRoutes, or use another Gateway",
                wanted.place
            ),
            withdraw: true,
        });
    }
    let class = class(stores, &gateway)?;
    let (own, shared) = envoy_proxies(stores, &gateway, &class)?;
    let merged = shared
        .as_ref()
        .is_some_and(|p| p.spec.merge_gateways == Some(true));
    let patch_target = TargetRef {
        group: GATEWAY_API.into(),
        kind: if merged { "GatewayClass" } else { "Gateway" }.into(),
        name: if merged {
            class.name_any()
        } else {
            gateway.name_any()
        },
        section_name: None,
    };
    // With a mergeType the Gateway's EnvoyProxy is laid over its class's,
    // otherwise it stands instead of it.
    let merges = |p: &EnvoyProxy| p.spec.rest.contains_key("mergeType");
    let lists = match &own {
        Some(own) if !merges(own) => vec![own.clone()],
        _ => own.into_iter().chain(shared).collect(),
    };
    Ok(Ground {
        module: module(&lists, &config.module_name, &wanted.place),
        gateway,
        patch_target,
    })
}

/// Why nothing can be said of any Gateway.
fn unknown(stores: &Stores) -> Option<Missing> {
    let unknown = stores.unknown();
    let (kind, health) = unknown.first()?;
    let more = match unknown.len() {
        1 => String::new(),
        n => format!(" (and {} more kinds)", n - 1),
    };
    let message = match health {
        Health::Absent => format!(
            "the API server does not have the kind {kind}{more}: install Envoy Gateway and its CRDs; this goes on by itself then"
        ),
        other => format!("{kind}{more}: {other}"),
    };
    Some(Missing::new(verdict::Reason::GatewayNotReady, message))
}

fn class(stores: &Stores, gateway: &Gateway) -> Result<Arc<GatewayClass>, Missing> {
    let name = &gateway.spec.gateway_class_name;
    let not_ready = |message: String| Missing::new(verdict::Reason::GatewayNotReady, message);
    let Some(class) = stores.gateway_classes.get(&Key::new("", name)) else {
        return Err(not_ready(format!(
            "GatewayClass {name} of Gateway {} not found; make it",
            Key::of(gateway)
        )));
    };
    Ok(class)
}

type Proxies = (Option<Arc<EnvoyProxy>>, Option<Arc<EnvoyProxy>>);

/// The Gateway's own EnvoyProxy and its class's.
fn envoy_proxies(
    stores: &Stores,
    gateway: &Gateway,
    class: &GatewayClass,
) -> Result<Proxies, Missing> {
    let get = |namespace: String, name: &str, of: String| {
        let key = Key::new(namespace, name);
        stores.envoy_proxies.get(&key).ok_or_else(|| {
            let message = format!("EnvoyProxy {key}, which {of} names, not found; make it");
            Missing::new(verdict::Reason::GatewayNotReady, message)
        })
    };
    let is_ours = |group: &str, kind: &str| group == GROUP && kind == "EnvoyProxy";
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let own = infrastructure
        .and_then(|i| i.parameters_ref.as_ref())
        .filter(|r| is_ours(&r.group, &r.kind))
        .map(|r| {
            let of = format!("Gateway {}", Key::of(gateway));
            get(gateway.namespace().unwrap_or_default(), &r.name, of)
        })
        .transpose()?;
    let shared = class.spec.parameters_ref.as_ref();
    let shared = shared
        .filter(|r| is_ours(&r.group, &r.kind))
        .map(|r| {
            let of = format!("GatewayClass {}", class.name_any());
            get(r.namespace.clone().unwrap_or_default(), &r.name, of)
        })
        .transpose()?;
    Ok((own, shared))
}

/// The module's file, from the first list that has its name.
fn module(lists: &[Arc<EnvoyProxy>], name: &str, gateway: &Key) -> Result<PathBuf, String> {
    let entries = lists.iter().flat_map(|p| &p.spec.dynamic_modules);
    let Some(entry) = entries.into_iter().find(|m| m.name == name) else {
        let place = match lists.first() {
            Some(proxy) => format!("EnvoyProxy {}", Key::of(&**proxy)),
            None => "an EnvoyProxy named by its GatewayClass or by itself".into(),
        };
        return Err(format!(
            "Gateway {gateway} has no module {name:?}: add it to spec.dynamicModules of {place}, with source.local.path"
        ));
    };
    let local = entry.source.local.as_ref();
    match local.map(|l| PathBuf::from(&l.path)) {
        Some(path) if path.is_absolute() => Ok(path),
        _ => Err(format!(
            "the module {name:?} of Gateway {gateway} has no absolute source.local.path: patches need a file where Envoy runs"
        )),
    }
}

/// Whether any listener lets routes of a namespace attach.
fn allows(gateway: &Gateway, namespace: &str, stores: &Stores) -> bool {
    let own = gateway.namespace().unwrap_or_default();
    let labels = || {
        let found = stores.namespaces.get(&Key::new("", namespace));
        found.map(|n| n.labels().clone()).unwrap_or_default()
    };
    let allowed = |listener: &GatewayListeners| {
        let rules = listener.allowed_routes.as_ref();
        let rules = rules.and_then(|r| r.namespaces.as_ref());
        match rules
            .and_then(|r| r.from.as_ref())
            .unwrap_or(&Allowed::Same)
        {
            Allowed::All => true,
            Allowed::Same => own == namespace,
            Allowed::Selector => rules
                .and_then(|r| r.selector.as_ref())
                .is_some_and(|s| selects(s, &labels())),
        }
    };
    gateway.spec.listeners.iter().any(allowed)
}

fn selects(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    let requirements = selector.match_expressions.iter().flatten();
    let requirements = requirements.map(|e| Requirement {
        key: &e.key,
        operator: &e.operator,
        values: e.values.as_deref().unwrap_or_default(),
    });
    let equal = selector.match_labels.iter().flatten();
    labels::selected(labels, equal, requirements)
}

/// The place of a key.
pub fn place(key: &Key) -> Place {
    Place {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

#[cfg(test)]
#[path = "ground_tests.rs"]
mod tests;
