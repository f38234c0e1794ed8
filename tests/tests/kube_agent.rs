//! `adit connector` at a real API server, with exactly the rights of
//! `envoy/kubernetes/rbac-connector.yaml`. The reconciler's part (the Lease,
//! `allowedDialers`) is played by the tests.
//!
//! | what happens | what must follow |
//! |---|---|
//! | started for the first time | Connector, status and advertisement are there |
//! | nothing | nothing is written but the Lease |
//! | started with other options, elsewhere | the same objects, changed |
//! | its home relay goes and comes | its Connector says so |
//! | started with another HTTPProxy | that one, under the same name |
//! | targets change in its file | the advertisement follows |
//! | an object is deleted or edited | it is as before |
//! | status writes are refused | the Lease is renewed all the same |
//! | the API server dies and comes back | tunnels go on; the agent is back |
//! | `allowedDialers` changes | tunnels open and are cut, without a restart |
//! | a second agent, same key or same name | one of them writes, both say so |
//! | it ends | the Lease is let go |

#[path = "kube_agent/dialers.rs"]
mod dialers;
#[path = "kube_agent/objects.rs"]
mod objects;
#[path = "kube_agent/outage.rs"]
mod outage;
#[path = "kube_agent/rights.rs"]
mod rights;
#[path = "kube_agent/rivals.rs"]
mod rivals;
#[path = "kube_agent/stage.rs"]
mod stage;

use adit_tests::on_an_api_server;

use self::{dialers::*, objects::*, outage::*, rights::*, rivals::*};

on_an_api_server!(
    an_agent_creates_its_objects_and_then_writes_nothing_but_its_lease,
    an_agent_that_starts_again_elsewhere_changes_what_differs,
    objects_that_are_deleted_or_edited_are_made_as_they_were,
    a_lease_is_renewed_while_status_writes_are_refused,
    dialers_are_let_in_and_out_by_the_connectors_status,
    of_two_agents_with_one_key_the_later_one_writes,
    a_name_stays_with_the_device_that_holds_it,
    an_httpproxy_is_applied_when_asked_to,
    an_httpproxy_is_updated_when_its_manifest_is_another,
    a_home_relay_is_told_and_so_is_its_end,
    the_role_allows_its_own_objects_and_nothing_else,
    tunnels_go_on_while_the_api_server_is_away_and_the_agent_comes_back,
);
