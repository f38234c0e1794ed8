//! `adit dialer` at a real API server, with exactly the rights of
//! `envoy/kubernetes/rbac-dialer.yaml`. The agent's and the reconciler's parts
//! are played by the tests.
//!
//! | what happens | what must follow |
//! |---|---|
//! | a Connector appears, moves, makes no sense | tunnels follow; nonsense costs nothing |
//! | a policy with a target comes and goes | its streams are served, then closed |
//! | it starts, runs, ends | its Lease is made, renewed, deleted |
//! | no API server, or none any more | it serves with what it has |
//! | another namespace's Connectors | are not read when only some are watched |

#[path = "kube_dialer/lease.rs"]
mod lease;
#[path = "kube_dialer/outage.rs"]
mod outage;
#[path = "kube_dialer/rights.rs"]
mod rights;
#[path = "kube_dialer/stage.rs"]
mod stage;
#[path = "kube_dialer/tunnels.rs"]
mod tunnels;

use adit_tests::on_an_api_server;

use self::{lease::*, outage::*, rights::*, tunnels::*};

on_an_api_server!(
    connectors_are_found_by_their_objects_and_followed_when_they_move,
    streams_of_a_target_end_when_its_policy_goes,
    a_dialer_says_its_key_by_a_lease,
    only_the_watched_namespaces_are_read,
    the_roles_allow_what_is_needed_and_nothing_else,
    without_an_api_server_a_dialer_serves_with_what_it_has,
    when_the_api_server_goes_a_dialer_goes_on_with_what_it_knows,
);
