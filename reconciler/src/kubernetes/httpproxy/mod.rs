//! HTTPProxies become routes in Envoy Gateway.
//!
//! ```text
//! HTTPProxy ─► validate ─► compile ─► its Gateway ─► bundles ─► rollout ─► status
//! ```
//!
//! One look does all that can be done now. What it waits for (a status of
//! Envoy Gateway's, a connector) brings it back by itself.

mod report;
mod rollout;
pub mod triggers;
pub mod view;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use adit_api::{
    Problem, ResourceExt as _, Severity,
    networking::HttpProxy,
    validate::{self, Scope},
};
use k8s_openapi::api::core::v1::Namespace;

use self::report::{Report, Said};
use super::{
    conditions::State,
    context::Context,
    gateways::Gateways,
    ground::{self, Ground, Missing, Wanted},
    kept::Key,
    queue::Outcome,
    writer::WriteError,
    written::is_as_written,
};
use crate::{
    Kind,
    compile::{self, Compiled},
    emit::gateway::{self, Bundle, Setting, overrides, verdict},
    model::{Model, Transport},
};
use adit_control::Class;

/// A look at what waits, should news of it have been lost.
const SAFETY: Duration = Duration::from_secs(300);

/// Looks at one HTTPProxy.
pub async fn reconcile(ctx: &Context, gateways: &Gateways, key: Key) -> Outcome {
    let began = Instant::now();
    let result = look(ctx, gateways, &key).await;
    let failed = result.as_ref().err().map(WriteError::class);
    ctx.metrics
        .reconciled(Kind::HttpProxy.as_str(), began.elapsed(), failed);
    match result {
        Ok(outcome) => outcome,
        Err(error) => {
            match error.class() {
                Class::Conflict => tracing::debug!(object = %key, %error, "looked at again soon"),
                class => tracing::warn!(object = %key, %error, %class, "HTTPProxy not reconciled"),
            }
            Outcome::Failed(error.class())
        }
    }
}

async fn look(ctx: &Context, gateways: &Gateways, key: &Key) -> Result<Outcome, WriteError> {
    let Some(proxy) = ctx.stores.proxies.get(key) else {
        gateways.forget(key);
        if let Some(object) = ctx.stores.proxies.malformed(key) {
            if let Err(error) = report::malformed(ctx, key, &object).await {
                // Its own form stands in the way; somebody has to correct it.
                tracing::warn!(object = %key, %error, "a malformed HTTPProxy cannot be told so");
            }
            let uid = object.metadata.uid.unwrap_or_default();
            rollout::revoke(ctx, &key.namespace, &uid).await?;
        }
        return Ok(Outcome::Done);
    };
    let ending = |n: &Namespace| n.metadata.deletion_timestamp.is_some();
    let namespace = ctx.stores.namespaces.get(&Key::new("", &key.namespace));
    if proxy.metadata.deletion_timestamp.is_some() || namespace.is_some_and(|n| ending(&n)) {
        gateways.forget(key);
        return Ok(Outcome::Done);
    }
    let (report, result) = program(ctx, gateways, key, &proxy).await;
    let waiting = report.programmed.reason == verdict::Reason::Pending.as_str();
    let safety = waiting.then_some(SAFETY);
    let again = report.again.into_iter().chain(safety).min();
    // What went wrong is said even so; what is said is no reason to forget it.
    let published = report.publish(ctx, &proxy).await;
    result?;
    published?;
    Ok(again.map_or(Outcome::Done, Outcome::After))
}

/// Does what can be done, and says what came of it.
async fn program(
    ctx: &Context,
    gateways: &Gateways,
    key: &Key,
    proxy: &Arc<HttpProxy>,
) -> (Report, Result<(), WriteError>) {
    let mut problems = validate::http_proxy(proxy, Scope::Shared);
    let wanted = ground::wanted(proxy, &ctx.config);
    let mut report = Report {
        accepted: report::accepted(&[]),
        programmed: Said::no("Pending", "not looked at yet"),
        connectors: report::connectors(&ctx.stores, proxy),
        addresses: Vec::new(),
        hostnames: Vec::new(),
        again: None,
    };
    let wanted = match wanted {
        Ok(wanted) if !has_error(&problems) => wanted,
        wanted => {
            problems.extend(wanted.err());
            let revoked = revoke(ctx, proxy).await;
            return (unaccepted(report, proxy, &problems), revoked);
        }
    };
    let snapshot = view::snapshot(&ctx.stores, &ctx.config, proxy, &wanted);
    let compiled = compile::compile(&snapshot, &ctx.config.compile());
    let own = Kind::HttpProxy.key(proxy.as_ref());
    let mine = compiled
        .problems
        .iter()
        .filter(|(object, _)| *object == own);
    problems.extend(mine.map(|(_, problem)| problem.clone()));
    report.accepted = report::accepted(&problems);

    let mut result = place(ctx, gateways, key, proxy, &wanted, &compiled, &mut report).await;
    if !matches!(result, Ok(Placed::Here)) {
        // What stands in the way of the new must not keep the forbidden.
        let revoked = revoke(ctx, proxy).await;
        result = result.and_then(|placed| revoked.map(|()| placed));
    }
    if let Err(error) = &result
        && let Some(said) = refusal(error)
    {
        report.programmed = said;
    }
    // Who waits for Programmed waits for all that was asked for.
    if report.programmed.state == State::True && report.accepted.state == State::False {
        report.programmed = Said::no(
            &report.accepted.reason,
            "what can be programmed serves; rules that cannot answer 500: see the condition Accepted",
        );
    }
    (report, result.map(drop))
}

async fn revoke(ctx: &Context, proxy: &HttpProxy) -> Result<(), WriteError> {
    let uid = proxy.uid().unwrap_or_default();
    rollout::revoke(ctx, &proxy.namespace().unwrap_or_default(), &uid).await
}

/// How far [`place`] came.
enum Placed {
    /// All steps were taken that can be taken now.
    Here,
    /// Something has to be there first; what there was stays.
    NotYet,
}

/// Finds the ground and brings what was compiled there.
async fn place(
    ctx: &Context,
    gateways: &Gateways,
    key: &Key,
    proxy: &Arc<HttpProxy>,
    wanted: &Wanted,
    compiled: &Compiled,
    report: &mut Report,
) -> Result<Placed, WriteError> {
    if wanted.made {
        make_gateway(ctx, proxy).await?;
    }
    let ground = match ground::find(&ctx.stores, &ctx.config, &key.namespace, wanted) {
        Ok(ground) => ground,
        Err(missing) => {
            if missing.withdraw {
                rollout::withdraw(ctx, proxy).await?;
                gateways.forget(key);
            }
            report.programmed = absent(missing);
            return Ok(Placed::NotYet);
        }
    };
    report.addresses = report::addresses(&ground.gateway);
    let tunnels = has_tunnels(&compiled.model, key);
    let module = match (&ground.module, tunnels) {
        (Ok(module), _) => module.clone(),
        // Without a tunnel nothing needs it.
        (Err(_), false) => Default::default(),
        (Err(why), true) => {
            let reason = verdict::Reason::ModuleNotInstalled.as_str();
            report.programmed = Said::no(reason, why.as_str());
            return Ok(Placed::NotYet);
        }
    };
    let (bundles, problems) = bundles(ctx, proxy, &compiled.model, &ground, wanted, module);
    report.hostnames = hostnames(proxy, &bundles);
    let tunnels = bundles.iter().any(|b| b.patch.is_some());
    match tunnels {
        true => gateways.want(ctx, &wanted.place, key).await?,
        false => gateways.forget(key),
    }
    let progress = rollout::advance(ctx, proxy, &bundles).await?;
    report.again = progress.again;
    report.programmed = match progress.refused.first() {
        Some(foreign) => Said::no(
            verdict::Reason::Conflict.as_str(),
            format!(
                "{} {}/{} exists and was not made for this HTTPProxy; rename or remove it: it is left alone",
                foreign.kind, foreign.place.namespace, foreign.place.name
            ),
        ),
        None => judge(ctx, proxy, &bundles, &ground, wanted, &problems),
    };
    if report.programmed.state == State::True {
        match progress.waiting {
            None => leave_gateways(ctx, proxy, wanted).await?,
            // Requests may still take an old route.
            Some(what) => {
                let message = format!("the new routes serve; the old ones are going: {what}");
                report.programmed = Said::no(verdict::Reason::Pending.as_str(), message);
            }
        }
    }
    Ok(Placed::Here)
}

/// The objects, and the policies of users that get in their way.
fn bundles(
    ctx: &Context,
    proxy: &HttpProxy,
    model: &Model,
    ground: &Ground,
    wanted: &Wanted,
    module: std::path::PathBuf,
) -> (Vec<Bundle>, Vec<overrides::Override>) {
    let mut setting = Setting {
        gateway: ground::place(&wanted.place),
        patch_target: ground.patch_target.clone(),
        module,
        dialer_socket: ctx.config.dialer_socket.clone(),
        users: gateway::Users::default(),
    };
    let places = [
        &proxy.namespace().unwrap_or_default(),
        &wanted.place.namespace,
    ];
    let near = |namespace: Option<&String>| namespace.is_some_and(|n| places.contains(&n));
    let stores = &ctx.stores;
    let traffic = stores
        .traffic
        .filter(|p| near(p.metadata.namespace.as_ref()));
    let extension = stores
        .extensions
        .filter(|p| near(p.metadata.namespace.as_ref()));
    let tls = stores
        .tls_policies
        .filter(|p| near(p.metadata.namespace.as_ref()));
    let policies = overrides::Policies {
        traffic: &traffic,
        extension: &extension,
        tls: &tls,
    };
    let plain = gateway::bundles(proxy, model, &setting);
    setting.users = overrides::users(&plain, &setting.gateway, &policies);
    let bundles = match setting.users == gateway::Users::default() {
        true => plain,
        false => gateway::bundles(proxy, model, &setting),
    };
    let backends = rollout::observed(stores, proxy).backends;
    let problems = overrides::problems(&bundles, &setting.gateway, &backends, &policies);
    (bundles, problems)
}

/// What Envoy Gateway says of all of it.
fn judge(
    ctx: &Context,
    proxy: &HttpProxy,
    bundles: &[Bundle],
    ground: &Ground,
    wanted: &Wanted,
    problems: &[overrides::Override],
) -> Said {
    let observed = rollout::observed(&ctx.stores, proxy);
    let extension = Gateways::extension(ctx, &wanted.place);
    let gateway = Some(ground.gateway.as_ref());
    let verdict = verdict::programmed(bundles, &observed, gateway, extension.as_deref());
    if let Some(first) = problems.iter().find(|p| p.displaces) {
        return Said::no(verdict::Reason::PolicyOverridden.as_str(), &first.message);
    }
    match verdict {
        Err(not_yet) => Said::no(not_yet.reason.as_str(), not_yet.message),
        Ok(()) if bundles.is_empty() => Said::no(
            "NoRoutes",
            "no rule has any effect: see the condition Accepted",
        ),
        Ok(()) => {
            let mut message = verdict::PROGRAMMED.to_owned();
            for problem in problems.iter().take(3) {
                message.push_str("; warning: ");
                message.push_str(&problem.message);
            }
            Said::yes("Programmed", message)
        }
    }
}

/// The Gateway of an HTTPProxy that names none.
async fn make_gateway(ctx: &Context, proxy: &HttpProxy) -> Result<(), WriteError> {
    // Without the kind there is nobody to make it for.
    if !ctx.stores.gateways.is_synced() {
        return Ok(());
    }
    let wish = gateway::made_gateway(proxy, &ctx.config.gateway_class);
    let there = ctx.stores.gateways.get(&Key::of(&wish));
    if there.is_some_and(|there| is_as_written(&wish, &there)) {
        return Ok(());
    }
    ctx.writer.apply(&ctx.stores.gateways, &wish).await?;
    Ok(())
}

/// Removes the Gateway that was made for an HTTPProxy which now uses another.
async fn leave_gateways(
    ctx: &Context,
    proxy: &HttpProxy,
    wanted: &Wanted,
) -> Result<(), WriteError> {
    let uid = proxy.uid().unwrap_or_default();
    let namespace = proxy.namespace().unwrap_or_default();
    let left = ctx.stores.gateways.filter_in(&namespace, |g| {
        gateway::is_ours(g, &uid)
            && Key::of(g) != wanted.place
            && g.metadata.deletion_timestamp.is_none()
    });
    for gateway in left {
        ctx.writer.delete(&ctx.stores.gateways, &*gateway).await?;
    }
    Ok(())
}

/// An HTTPProxy that makes no sense: what was programmed for it stays, as far
/// as it is still permitted.
fn unaccepted(mut report: Report, proxy: &HttpProxy, problems: &[Problem]) -> Report {
    let old = proxy.status.as_ref();
    report.accepted = report::accepted(problems);
    report.addresses = old.map(|s| s.addresses.clone()).unwrap_or_default();
    report.hostnames = old.map(|s| s.hostnames.clone()).unwrap_or_default();
    report.programmed = Said::no(
        "Invalid",
        "this version cannot be programmed: see the condition Accepted; the last one that could is left as it is",
    );
    report
}

fn absent(missing: Missing) -> Said {
    Said::no(missing.reason, missing.message)
}

/// What an error means for the person who wrote the HTTPProxy; `None` when it
/// passes by itself.
fn refusal(error: &WriteError) -> Option<Said> {
    let message = format!("{error}");
    match error.class() {
        _ if matches!(error, WriteError::Foreign { .. }) => {
            Some(Said::no(verdict::Reason::Conflict.as_str(), message))
        }
        Class::Invalid => Some(Said::no(verdict::Reason::Invalid.as_str(), message)),
        Class::Forbidden => Some(Said::no("Forbidden", message)),
        _ => None,
    }
}

fn has_error(problems: &[Problem]) -> bool {
    problems.iter().any(|p| p.severity == Severity::Error)
}

fn has_tunnels(model: &Model, key: &Key) -> bool {
    let owner = key.to_string();
    let mut clusters = model.clusters.values();
    clusters.any(|c| c.owner == owner && matches!(c.transport, Transport::Adit(_)))
}

/// The host names that any route has, in the user's order.
fn hostnames(proxy: &HttpProxy, bundles: &[Bundle]) -> Vec<String> {
    let used = |host: &&String| {
        let mut routes = bundles.iter().map(|b| &b.route.spec.hostnames);
        routes.any(|names| names.iter().flatten().any(|n| n == *host))
    };
    proxy.spec.hostnames.iter().filter(used).cloned().collect()
}
