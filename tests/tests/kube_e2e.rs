//! Everything a user of a cluster does, and what must hold meanwhile; through
//! Envoy Gateway's Envoy, on both supported versions where Envoy takes part.
//!
//! | what happens | what must hold |
//! |---|---|
//! | requests of every kind | each reaches the agent's service |
//! | a SecurityPolicy chosen by label | refuses all of them, CONNECT too |
//! | the agent is killed | fast 503 with the page, `ConnectorsReady=False`, no write to Envoy Gateway's objects |
//! | the agent ends in an orderly way | `Ready=False` at once |
//! | the agent starts elsewhere with the same key | traffic again, no such write either |
//! | the endpoint changes under load | traffic moves, no request fails |
//! | a rule is inserted on top under load | no request fails, none reaches the wrong service |
//! | two more Envoys with dialers of their own | the agent lets them in |
//! | the HTTPProxy is deleted | nothing is left behind |

#[path = "kube_e2e/absence.rs"]
mod absence;
#[path = "kube_e2e/changes.rs"]
mod changes;
#[path = "kube_e2e/clients.rs"]
mod clients;
#[path = "kube_e2e/end.rs"]
mod end;
#[path = "kube_e2e/fleet.rs"]
mod fleet;
#[path = "kube_e2e/scene.rs"]
mod scene;

use adit_tests::on_the_stack;

use self::{absence::*, changes::*, clients::*, end::*, fleet::*};

on_the_stack!(
    every_client_reaches_the_agents_service_on_1_39,
    every_client_reaches_the_agents_service_on_1_40,
    a_policy_by_label_refuses_everything_connect_too,
    an_agent_that_goes_and_comes_elsewhere_writes_nothing,
    an_agent_that_ends_is_missed_at_once,
    a_changed_endpoint_moves_traffic_and_loses_none,
    a_rule_on_top_misleads_no_request,
    more_envoys_with_dialers_of_their_own_are_let_in,
    a_deleted_proxy_leaves_nothing_behind,
);
