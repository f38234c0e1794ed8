//! The CRDs on a real API server: they install, their rules let pass what is
//! right and refuse what is wrong with words that help, two writers share a
//! status, and an object from before a rule can be worked with and deleted.

#[path = "kube_crds/before.rs"]
mod before;
#[path = "kube_crds/rules.rs"]
mod rules;
#[path = "kube_crds/served.rs"]
mod served;
