//! The reconciler and the objects it makes, on a real Kubernetes API with a
//! real Envoy Gateway. Requests are `kube_e2e`'s matter; here it is about what
//! is written, when, and what is left alone.

#[path = "kube_reconcile/dry_run.rs"]
mod dry_run;
#[path = "kube_reconcile/foreign.rs"]
mod foreign;
#[path = "kube_reconcile/gateways.rs"]
mod gateways;
#[path = "kube_reconcile/installs.rs"]
mod installs;
#[path = "kube_reconcile/place.rs"]
mod place;
#[path = "kube_reconcile/policies.rs"]
mod policies;
#[path = "kube_reconcile/uninstalls.rs"]
mod uninstalls;
#[path = "kube_reconcile/withdrawn.rs"]
mod withdrawn;

use adit_tests::{
    kube::{
        Class, Kind, Stack, Write,
        objects::{condition, is_true},
    },
    on_the_stack,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::{
    dry_run::*, foreign::*, gateways::*, installs::*, place::*, policies::*, uninstalls::*,
    withdrawn::*,
};

on_the_stack!(
    objects_applied_in_any_order_become_the_same_route,
    a_malformed_proxy_is_told_so_and_stops_nobody,
    what_is_as_wanted_is_not_written_and_one_change_is_one_look,
    what_others_change_is_put_right_and_what_is_theirs_is_left_alone,
    a_gateway_elsewhere_is_used_as_long_as_it_allows_it,
    a_proxy_without_a_gateway_gets_one_of_its_own,
    a_gateway_without_the_module_gets_nothing,
    gateways_of_one_envoy_serve_each_its_own,
    a_backend_without_a_connector_is_served,
    a_deleted_proxy_and_a_deleted_namespace_leave_nothing,
    the_role_in_the_manifests_is_enough,
    envoy_gateway_may_be_installed_later,
    what_is_left_of_a_reconciler_that_is_gone_can_be_deleted,
    the_crds_may_go_first,
    a_name_that_is_taken_is_left_as_it_is_and_named,
    of_two_that_make_an_object_at_once_one_has_it,
    an_older_filter_policy_of_a_user_is_named_until_it_is_gone,
    a_grant_that_somebody_removes_comes_back,
    policies_of_users_that_a_tunnel_cannot_bear_are_named,
    a_route_without_its_grant_keeps_its_target_and_loses_the_filter,
    a_withdrawn_target_goes_even_when_the_newest_version_is_invalid,
    a_dry_run_names_what_it_would_write_and_writes_nothing,
);

/// All fields of an object but its status are this reconciler's, by server-side
/// apply.
fn one_manager(object: &Value) -> Result<()> {
    let managers = object["metadata"]["managedFields"].as_array();
    let managers = managers.into_iter().flatten();
    let of_object: Vec<_> = managers.filter(|m| m["subresource"].is_null()).collect();
    ensure!(
        of_object.len() == 1
            && of_object[0]["manager"] == "adit-reconciler"
            && of_object[0]["operation"] == "Apply",
        "{object:#}"
    );
    Ok(())
}

/// Writes to what programs Envoy Gateway.
fn programming<'a>(writes: &'a [Write], namespace: &str) -> Vec<&'a Write> {
    let made = [
        "httproutes",
        "backends",
        "envoypatchpolicies",
        "envoyextensionpolicies",
    ];
    let more = ["backendtrafficpolicies", "gateways", "referencegrants"];
    let all = writes.iter().filter(|w| w.namespace == namespace);
    let all = all.filter(|w| w.subresource.is_empty());
    all.filter(|w| made.contains(&w.resource.as_str()) || more.contains(&w.resource.as_str()))
        .collect()
}

async fn objects_applied_in_any_order_become_the_same_route(stack: &Stack) -> Result<()> {
    let gateway = stack.make_gateway(Class::Envoy140, "orders-gw", "edge");
    stack
        .admin()
        .await?
        .make_namespace("orders-gw", &[])
        .await?;
    gateway.await?;
    let place = Place::start(&stack.plane, "orders", &["--gateway", "orders-gw/edge"]).await?;
    let [connector, advertisement] = connector("orders", "box");
    // Each order has its own host name, connector and proxy.
    let parts = |n: usize| {
        let rename = |mut object: Value| {
            object["metadata"]["name"] = json!(format!("box{n}"));
            object
        };
        let mut advertisement = rename(advertisement.clone());
        advertisement["spec"]["connectorRef"]["name"] = json!(format!("box{n}"));
        let mut proxy = proxy(&format!("web{n}"), &format!("web{n}.test"), 80);
        let backend = &mut proxy["spec"]["rules"][0]["backends"][0];
        backend["connector"]["name"] = json!(format!("box{n}"));
        [
            class("orders"),
            rename(connector.clone()),
            advertisement,
            proxy,
        ]
    };
    let orders = [
        [0, 1, 2, 3],
        [3, 2, 1, 0],
        [2, 3, 0, 1],
        [1, 3, 0, 2],
        [3, 1, 2, 0],
    ];
    for (n, order) in orders.iter().enumerate() {
        place
            .objects
            .delete(Kind::CONNECTOR_CLASS, "", "orders")
            .await?;
        let parts = parts(n);
        for part in order {
            let object = parts[*part].clone();
            place.apply(object).await?;
            if *part == 1 {
                place.connect(&format!("box{n}"), "192.0.2.1").await?;
            }
        }
    }
    for n in 0..orders.len() {
        let name = format!("web{n}");
        let wanted = |o: &Value| is_true(o, "Accepted") && is_true(o, "Programmed");
        let programmed = place
            .until(Kind::HTTP_PROXY, &name, "Accepted and Programmed", wanted)
            .await?;
        ensure!(
            programmed["status"]["hostnames"] == json!([format!("web{n}.test")]),
            "{programmed:#}"
        );
        let ready = condition(&programmed, "ConnectorsReady").context("ConnectorsReady")?;
        ensure!(
            ready["status"] == "False",
            "no agent renews the Lease: {ready}"
        );
    }
    // What there was on the way goes.
    for (kind, namespace) in [
        (Kind::HTTP_ROUTE, "orders"),
        (Kind::BACKEND, "orders"),
        (Kind::ENVOY_PATCH_POLICY, "orders-gw"),
    ] {
        let one_each = |all: &[Value]| all.len() == orders.len();
        place
            .objects
            .until_list(kind, namespace, OURS, "one for each", one_each)
            .await
            .with_context(|| place.reconciler.last_words())?;
    }
    for (kind, namespace) in [
        (Kind::HTTP_ROUTE, "orders"),
        (Kind::BACKEND, "orders"),
        (Kind::REFERENCE_GRANT, "orders"),
        (Kind::ENVOY_PATCH_POLICY, "orders-gw"),
        (Kind::ENVOY_EXTENSION_POLICY, "orders-gw"),
    ] {
        for object in place.objects.list(kind, namespace, OURS).await? {
            one_manager(&object)?;
        }
    }
    // One for the Gateway, and leave for it to select routes over here.
    let extensions = place
        .objects
        .list(Kind::ENVOY_EXTENSION_POLICY, "orders-gw", OURS)
        .await?;
    ensure!(
        extensions.len() == 1 && is_true(&extensions[0], "Accepted"),
        "{extensions:#?}"
    );
    ensure!(place.names(Kind::REFERENCE_GRANT).await?.len() == 1);
    let objects = place.objects.clone();
    place.end().await?;
    objects.delete_namespace("orders-gw").await
}

async fn what_is_as_wanted_is_not_written_and_one_change_is_one_look(stack: &Stack) -> Result<()> {
    let place = one_proxy(stack, "calm").await?;
    place.apply(proxy("other", "other.test", 81)).await?;
    place.programmed("other").await?;
    let before = place.looks().await?;
    let mark = stack.plane.mark();
    // The agent is elsewhere; somebody touches what nobody reads.
    place.connect("box", "192.0.2.77").await?;
    place
        .objects
        .merge(
            Kind::HTTP_PROXY,
            "calm",
            "web",
            None,
            &json!({"metadata": {"labels": {"a": "b"}}}),
        )
        .await?;
    ensure!(
        place.looks().await? == before,
        "{}",
        place.reconciler.last_words()
    );
    let writes = stack.plane.writes_since(mark)?;
    let own = |w: &&Write| w.namespace == "calm" && w.resource != "leases";
    let own: Vec<_> = writes.iter().filter(own).collect();
    // Those two, and nothing else.
    ensure!(own.len() == 2, "{own:#?}");
    // Another host name: a new wish of one of two HTTPProxies.
    let changed = stack.plane.mark();
    place.apply(proxy("other", "else.test", 81)).await?;
    place.programmed("other").await?;
    let looks = place.looks().await? - before;
    // One for the wish, and at most one for each thing that Envoy Gateway then
    // said of what was made. What this reconciler writes itself is no news to it.
    let said = stack.plane.writes_since(changed)?;
    let said = said.iter().filter(|w| {
        w.namespace == "calm" && w.subresource == "status" && w.resource != "httpproxies"
    });
    let said = said.count() as u64;
    println!("{looks} looks for a change of one of two HTTPProxies, {said} statuses");
    ensure!(
        (1..=1 + said).contains(&looks),
        "{looks} looks, {said} statuses"
    );
    let web = place
        .objects
        .get(Kind::HTTP_PROXY, "calm", "web")
        .await?
        .context("web")?;
    ensure!(is_true(&web, "Programmed"), "{web:#}");
    let writes = stack.plane.writes_since(mark)?;
    let web = writes
        .iter()
        .filter(|w| w.namespace == "calm" && w.name.starts_with("web-"));
    ensure!(web.count() == 0, "{writes:#?}");
    // Restarted, it finds all as it should be.
    let mut place = place;
    place.looks().await?;
    place.reconciler.terminate().await?;
    let mark = stack.plane.mark();
    let (again, objects) = (
        Place::start(&stack.plane, "calm", &["--gateway", "calm/edge"]).await?,
        place.objects,
    );
    ensure!(again.looks().await? >= 2);
    let writes = stack.plane.writes_since(mark)?;
    ensure!(programming(&writes, "calm").is_empty(), "{writes:#?}");
    let statuses = writes
        .iter()
        .filter(|w| w.namespace == "calm" && w.resource == "httpproxies");
    ensure!(statuses.count() == 0, "{writes:#?}");
    drop(objects);
    again.end().await
}

async fn what_others_change_is_put_right_and_what_is_theirs_is_left_alone(
    stack: &Stack,
) -> Result<()> {
    let place = one_proxy(stack, "drift").await?;
    let route = place.names(Kind::HTTP_ROUTE).await?.remove(0);
    let get = async || {
        let found = place.objects.get(Kind::HTTP_ROUTE, "drift", &route).await?;
        found.context("the route")
    };
    let before = get().await?;
    // A field of ours changes, one that is not ours comes.
    let patch = json!({"metadata": {"annotations": {"mine": "kept"}}, "spec": {"hostnames": ["evil.test"]}});
    place
        .objects
        .merge(Kind::HTTP_ROUTE, "drift", &route, None, &patch)
        .await?;
    let right =
        |r: &Value| r["spec"] == before["spec"] && r["metadata"]["annotations"]["mine"] == "kept";
    place
        .until(Kind::HTTP_ROUTE, &route, "put right", right)
        .await?;
    // Deleted, it comes back.
    place
        .objects
        .delete(Kind::HTTP_ROUTE, "drift", &route)
        .await?;
    let back = |r: &Value| r["metadata"]["uid"] != before["metadata"]["uid"];
    place
        .until(Kind::HTTP_ROUTE, &route, "made again", back)
        .await?;
    place.programmed("web").await?;

    // Somebody's own Gateway has the name that would be made.
    let theirs = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "mine"},
        "spec": {"gatewayClassName": "somebodys", "listeners": [
            {"name": "http", "port": 8888, "protocol": "HTTP"},
        ]},
    });
    // Who makes Gateways does not touch it.
    place.reconciler_ends().await?;
    let flags = ["--gateway-class", "envoy-1-40"];
    let mut second = Place::start(&stack.plane, "drift", &flags).await?;
    second.apply(theirs).await?;
    let theirs = second
        .until(Kind::GATEWAY, "mine", "there", |_| true)
        .await?;
    second.apply(proxy("mine", "mine.test", 80)).await?;
    second.refused("mine", "Programmed", "Conflict").await?;
    let now = second
        .objects
        .get(Kind::GATEWAY, "drift", "mine")
        .await?
        .context("theirs")?;
    ensure!(now["spec"] == theirs["spec"], "{now:#}");
    ensure!(now["metadata"]["labels"].is_null(), "{now:#}");
    second.reconciler.terminate().await?;
    second.objects.delete_namespace("drift").await
}

async fn a_deleted_proxy_and_a_deleted_namespace_leave_nothing(stack: &Stack) -> Result<()> {
    let objects = stack.admin().await?;
    objects.make_namespace("left-gw", &[]).await?;
    stack
        .make_gateway(Class::Envoy140, "left-gw", "edge")
        .await?;
    let flags = ["--gateway", "left-gw/edge"];
    let mut place = Place::start(&stack.plane, "left", &flags).await?;
    place.connector("box").await?;
    let gone = async |what: &str| {
        for kind in [Kind::ENVOY_PATCH_POLICY, Kind::ENVOY_EXTENSION_POLICY] {
            objects
                .until_list(kind, "left-gw", OURS, what, |all| all.is_empty())
                .await?;
        }
        for kind in [Kind::HTTP_ROUTE, Kind::BACKEND, Kind::REFERENCE_GRANT] {
            objects
                .until_list(kind, "left", OURS, what, |all| all.is_empty())
                .await?;
        }
        anyhow::Ok(())
    };
    place.apply(proxy("web", "left.test", 80)).await?;
    place.programmed("web").await?;
    objects.delete(Kind::HTTP_PROXY, "left", "web").await?;
    gone("nothing left of web")
        .await
        .with_context(|| place.reconciler.last_words())?;
    // Deleted while nobody looks: found at the next start.
    place.apply(proxy("web", "left.test", 80)).await?;
    place.programmed("web").await?;
    place.reconciler.terminate().await?;
    objects.delete(Kind::HTTP_PROXY, "left", "web").await?;
    objects
        .until_list(Kind::HTTP_ROUTE, "left", OURS, "collected", |all| {
            all.is_empty()
        })
        .await?;
    ensure!(
        objects
            .list(Kind::ENVOY_PATCH_POLICY, "left-gw", OURS)
            .await?
            .len()
            == 1
    );
    let place = Place::start(&stack.plane, "left", &flags).await?;
    gone("nothing left of web, late")
        .await
        .with_context(|| place.reconciler.last_words())?;
    // And the whole namespace at once.
    place.apply(proxy("web", "left.test", 80)).await?;
    place.programmed("web").await?;
    place.end().await?;
    objects
        .until_list(
            Kind::ENVOY_PATCH_POLICY,
            "left-gw",
            OURS,
            "nothing",
            |all| all.is_empty(),
        )
        .await?;
    objects.delete_namespace("left-gw").await
}
