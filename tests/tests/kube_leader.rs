//! One of several reconcilers works, and never two.

#[path = "kube_leader/election.rs"]
mod election;
#[path = "kube_leader/processes.rs"]
mod processes;
