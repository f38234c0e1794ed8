//! What is said of an HTTPProxy: its conditions, addresses and host names.

use std::{fmt::Write as _, time::Duration};

use adit_api::{
    Problem, ResourceExt as _, Severity,
    networking::{Connector, HttpProxy, StatusAddress},
};
use gateway_api::gateways::Gateway;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use serde_json::json;

use crate::kubernetes::{
    conditions::{self, Conditions, State},
    context::Context,
    httpproxy::view,
    kept::{Key, Malformed},
    stores::Stores,
    writer::WriteError,
};

/// The conditions that this process sets, in the order in which they are read best.
const OWNED: [&str; 3] = ["Accepted", "Programmed", "ConnectorsReady"];
/// So many problems or connectors are named in a message.
const NAMED: usize = 5;
/// The API's bounds of addresses.
const MAX_ADDRESSES: usize = 16;
const MAX_ADDRESS: usize = 253;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whether it holds.
    pub state: State,
    /// One word.
    pub reason: String,
    /// For a person.
    pub message: String,
}

/// All that is said.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Whether the object makes sense, with the objects it names.
    pub accepted: Said,
    /// Whether Envoy Gateway has it.
    pub programmed: Said,
    /// Whether its connectors are there; `None` when it names none.
    pub connectors: Option<Said>,
    /// Where the Gateway listens.
    pub addresses: Vec<StatusAddress>,
    /// The host names in use.
    pub hostnames: Vec<String>,
    /// When to look again though nothing has changed; not said to anybody.
    pub again: Option<Duration>,
}

impl Said {
    /// It holds.
    pub fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self::new(State::True, reason, message)
    }

    /// It does not.
    pub fn no(reason: &str, message: impl Into<String>) -> Self {
        Self::new(State::False, reason, message)
    }

    fn new(state: State, reason: &str, message: impl Into<String>) -> Self {
        Self {
            state,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// What the problems of an object come to: the first error's reason, and every
/// problem's text.
pub fn accepted(problems: &[Problem]) -> Said {
    let mut message = String::new();
    for problem in problems.iter().take(NAMED) {
        let separator = if message.is_empty() { "" } else { "; " };
        let path = match problem.path.as_str() {
            "" => String::new(),
            path => format!("{path}: "),
        };
        let kind = match problem.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        let _ = write!(message, "{separator}{kind}{path}{}", problem.message);
    }
    if problems.len() > NAMED {
        let _ = write!(message, "; and {} more", problems.len() - NAMED);
    }
    match problems.iter().find(|p| p.severity == Severity::Error) {
        Some(first) => Said::no(first.reason.as_str(), message),
        None if message.is_empty() => Said::yes("Accepted", "every rule can be programmed"),
        None => Said::yes("Accepted", message),
    }
}

/// Whether the connectors that an HTTPProxy names are ready.
pub fn connectors(stores: &Stores, proxy: &HttpProxy) -> Option<Said> {
    let references: Vec<_> = view::references(proxy).collect();
    if references.is_empty() {
        return None;
    }
    let all = view::connectors(stores, proxy);
    let ready = |c: &Connector| {
        let status = c.status.as_ref();
        status.is_some_and(|s| conditions::holds(&s.conditions, "Ready"))
    };
    let unserved = references
        .iter()
        .filter(|r| !all.iter().any(|c| view::refers(r, c) && ready(c)));
    let unserved = unserved.count();
    let waiting: Vec<_> = all.iter().filter(|c| !ready(c)).collect();
    if all.is_empty() {
        let message =
            "no Connector that a backend names or selects exists; start its agent, or create it";
        return Some(Said::no("ConnectorNotFound", message));
    }
    if waiting.is_empty() && unserved == 0 {
        let message = match all.len() {
            1 => format!("Connector {} is ready", all[0].name_any()),
            n => format!("all {n} connectors are ready"),
        };
        return Some(Said::yes("ConnectorsReady", message));
    }
    let mut message = format!(
        "{} of {} connectors are ready",
        all.len() - waiting.len(),
        all.len()
    );
    for connector in waiting.iter().take(NAMED) {
        let ready = connector
            .status
            .as_ref()
            .and_then(|s| conditions::find(&s.conditions, "Ready"));
        let why = match ready {
            Some(c) if !c.message.is_empty() => conditions::bounded(&c.message, 200),
            _ => "not looked at yet".into(),
        };
        let _ = write!(message, "; {}: {why}", connector.name_any());
    }
    if waiting.len() > NAMED {
        let _ = write!(message, "; and {} more", waiting.len() - NAMED);
    }
    let reason = match unserved {
        0 => {
            message.push_str("; the others serve");
            "SomeNotReady"
        }
        _ => "ConnectorNotReady",
    };
    Some(Said::no(reason, message))
}

/// Where a Gateway listens.
pub fn addresses(gateway: &Gateway) -> Vec<StatusAddress> {
    let status = gateway.status.iter();
    let all = status.flat_map(|s| s.addresses.iter().flatten());
    let all = all.map(|a| StatusAddress {
        type_: Some(conditions::bounded(
            a.r#type.as_deref().unwrap_or("IPAddress"),
            MAX_ADDRESS,
        )),
        value: conditions::bounded(&a.value, MAX_ADDRESS),
    });
    let given = |a: &StatusAddress| !a.value.is_empty() && a.type_.as_deref() != Some("");
    all.filter(given).take(MAX_ADDRESSES).collect()
}

impl Report {
    /// Writes the status if it is another, and tells people what changed.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn publish(self, ctx: &Context, proxy: &HttpProxy) -> Result<(), WriteError> {
        let old = proxy.status.clone().unwrap_or_default();
        let (new, changed) = self.conditions(&old.conditions, proxy.metadata.generation);
        let same = old.addresses == self.addresses && old.hostnames == self.hostnames;
        if !changed && same {
            return Ok(());
        }
        let mut status = json!({ "conditions": new });
        if !self.addresses.is_empty() {
            status["addresses"] = json!(self.addresses);
        }
        if !self.hostnames.is_empty() {
            status["hostnames"] = json!(self.hostnames);
        }
        let uid = proxy.uid().unwrap_or_default();
        ctx.writer
            .apply_status(&ctx.stores.proxies, &Key::of(proxy), &uid, status)
            .await?;
        for (type_, said) in [
            ("Accepted", &self.accepted),
            ("Programmed", &self.programmed),
        ] {
            self.tell(
                ctx,
                proxy,
                conditions::find(&old.conditions, type_),
                type_,
                said,
            )
            .await;
        }
        Ok(())
    }

    fn conditions(&self, old: &[Condition], generation: Option<i64>) -> (Vec<Condition>, bool) {
        let mut new = Conditions::new(&OWNED, old, generation, Timestamp::now());
        let said = [
            Some(&self.accepted),
            Some(&self.programmed),
            self.connectors.as_ref(),
        ];
        for (type_, said) in OWNED.iter().zip(said) {
            if let Some(said) = said {
                new.set(type_, said.state, &said.reason, &said.message);
            }
        }
        new.finish()
    }

    /// An event for what a person must act on, and for what works again.
    async fn tell(
        &self,
        ctx: &Context,
        proxy: &HttpProxy,
        old: Option<&Condition>,
        type_: &str,
        said: &Said,
    ) {
        let news = old.is_none_or(|c| c.status != said.state.as_str() || c.reason != said.reason);
        let patience = matches!(said.reason.as_str(), "Pending");
        match said.state {
            State::False if news && !patience => {
                ctx.tell(proxy, true, &said.reason, &said.message).await;
            }
            State::True if type_ == "Programmed" && old.is_none_or(|c| c.status != "True") => {
                ctx.tell(proxy, false, &said.reason, &said.message).await;
            }
            _ => {}
        }
    }
}

/// Says of an HTTPProxy that does not have the form of its kind that it has not.
pub async fn malformed(ctx: &Context, key: &Key, object: &Malformed) -> Result<(), WriteError> {
    let generation = object.metadata.generation;
    let mut new = Conditions::new(&OWNED, &[], generation, Timestamp::now());
    let message = format!("this object cannot be read: {}; correct it", object.error);
    new.set("Accepted", State::False, "Invalid", &message);
    let nothing = "what was programmed for it before stays";
    new.set("Programmed", State::False, "Invalid", nothing);
    let (conditions, _) = new.finish();
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let status = json!({ "conditions": conditions });
    ctx.writer
        .apply_status(&ctx.stores.proxies, key, &uid, status)
        .await
}
