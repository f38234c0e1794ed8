//! What has gone wrong in systems of this kind, and does not here: each test
//! re-enacts one failure, with a real Envoy Gateway and its Envoy.
//!
//! | failure | test |
//! |---|---|
//! | two services called `localhost` claimed one name in Envoy; it refused all changes from then on | [`names`] |
//! | a `%` in a text became a command that Envoy could not read; the same | [`names`] |
//! | one patch that could not be applied held up everybody's | [`theirs`] |
//! | a sweep deleted what others had made | [`theirs`] |
//! | one listener without a certificate, or with an expired one, held up the others | [`listeners`] |
//! | a service that was away was an empty 500, or only CONNECT got a page | [`away`] |
//! | a connector that came online was not used until something else changed | [`away`] |
//! | an object that was deleted and made again never got a status | [`changes`] |
//! | a change that was taken back met the statuses of what had had its names | [`taken_back`] |
//! | a status that turned back within milliseconds stayed wrong | [`stale`] |
//! | what TLS to the service had needed stayed when it went | [`changes`] |
//! | a burst of conflicting writes was followed by minutes of silence | [`changes`] |
//! | CONNECT for a whole Gateway turned other routes into 404 | [`changes`] |
//! | a rule refused what agents had always written | [`stored`] |
//! | a stricter rule made stored objects impossible to change | [`stored`] |

#[path = "kube_lessons/away.rs"]
mod away;
#[path = "kube_lessons/changes.rs"]
mod changes;
#[path = "kube_lessons/ground.rs"]
mod ground;
#[path = "kube_lessons/listeners.rs"]
mod listeners;
#[path = "kube_lessons/names.rs"]
mod names;
#[path = "kube_lessons/stale.rs"]
mod stale;
#[path = "kube_lessons/stored.rs"]
mod stored;
#[path = "kube_lessons/taken_back.rs"]
mod taken_back;
#[path = "kube_lessons/theirs.rs"]
mod theirs;

use adit_tests::on_the_stack;

use self::{
    away::*, changes::*, listeners::*, names::*, stale::*, stored::*, taken_back::*, theirs::*,
};

on_the_stack!(
    two_services_called_localhost_and_one_host_name_twice_stop_nobody,
    a_percent_sign_is_a_percent_sign,
    a_patch_of_somebody_else_that_cannot_be_applied_stops_nobody,
    what_others_made_is_never_swept,
    a_listener_without_a_valid_certificate_stops_no_other,
    a_service_that_is_away_is_the_same_503_to_every_client,
    an_agent_that_comes_for_the_first_time_is_served_by_itself,
    a_proxy_pointed_at_a_connector_that_is_online_serves_at_once,
    a_proxy_deleted_and_made_again_is_programmed_again,
    a_change_that_is_taken_back_loses_no_request,
    tls_to_the_service_comes_and_goes_without_a_trace,
    conflicting_writes_delay_nobody_for_long,
    beside_connect_everything_else_is_served,
    a_status_that_was_left_wrong_is_asked_for_again,
    what_agents_have_always_written_is_taken,
    a_stored_object_that_breaks_a_later_rule_can_still_be_changed_elsewhere,
);
