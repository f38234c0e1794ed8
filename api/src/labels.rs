//! Labels and annotations by which the processes find each other's objects, and
//! how labels are selected.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

/// On every object that we made: [`MANAGED_BY`].
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// See [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "adit";
/// `"true"` on the Lease by which a dialer says its EndpointId.
pub const DIALER_LABEL: &str = "networking.datumapis.com/dialer";
/// On an EnvoyPatchPolicy of ours: its targets, in base64 and separated by
/// commas, for dialers.
pub const TARGETS_ANNOTATION: &str = "networking.datumapis.com/targets";

/// A condition of a selector, whichever kind of Kubernetes' it stands in.
#[derive(Debug, Clone, Copy)]
pub struct Requirement<'a> {
    /// The label's key.
    pub key: &'a str,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`; anything else never holds.
    pub operator: &'a str,
    /// For `In` and `NotIn`.
    pub values: &'a [String],
}

/// Whether an object with these labels is selected: all of `equal` must be
/// there, and all requirements must hold.
pub fn selected<'a>(
    labels: &BTreeMap<String, String>,
    equal: impl IntoIterator<Item = (&'a String, &'a String)>,
    requirements: impl IntoIterator<Item = Requirement<'a>>,
) -> bool {
    equal.into_iter().all(|(k, v)| labels.get(k) == Some(v))
        && requirements.into_iter().all(|r| r.holds(labels))
}

impl Requirement<'_> {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(self.key);
        let listed = value.is_some_and(|v| self.values.contains(v));
        match self.operator {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

impl<'a> From<&'a LabelSelectorRequirement> for Requirement<'a> {
    fn from(r: &'a LabelSelectorRequirement) -> Self {
        Self {
            key: &r.key,
            operator: &r.operator,
            values: r.values.as_deref().unwrap_or_default(),
        }
    }
}
