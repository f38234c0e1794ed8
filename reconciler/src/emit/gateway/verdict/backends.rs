//! Whether Envoy Gateway knows Backends at all.

use gateway_api::httproutes::HttpRoute;

use super::{NotYet, Reason, current_condition, route_condition};

/// In Envoy Gateway's words for a route with a Backend while
/// `extensionApis.enableBackend` is off (its internal/gatewayapi/validate.go);
/// the reason beside it, UnsupportedValue, has other causes too.
const OFF: &str = "Backend is disabled";

/// What is said of a route that Envoy Gateway refuses because it does not.
pub(super) fn off(route: &HttpRoute) -> Option<NotYet> {
    let said = route_condition(route, "ResolvedRefs")?;
    let off = said.status == "False"
        && current_condition(said, route.metadata.generation)
        && said.message.contains(OFF);
    off.then(|| {
        NotYet::new(
            Reason::Invalid,
            "Envoy Gateway knows no Backends: set extensionApis.enableBackend to true in its configuration",
        )
    })
}
