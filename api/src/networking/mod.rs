//! The API group `networking.datumapis.com`.
//!
//! ```text
//! HttpProxy ─ rule ─ backend ─ connector (name | selector) ─► Connector ─► ConnectorClass
//!                        │                                        ▲
//!                        └ endpoint must be covered by ─► ConnectorAdvertisement
//! ```

mod advertisement;
mod class;
mod connector;
mod httpproxy;
mod route;
mod rules;
mod schema;

pub use advertisement::{
    AdvertisedPort, AdvertisedService, ConnectorAdvertisement, ConnectorAdvertisementSpec,
    ConnectorAdvertisementStatus, Layer4Advertisement,
};
pub use class::{ConnectorClass, ConnectorClassSpec, ConnectorClassStatus, DEFAULT_CONTROLLER};
pub use connector::{
    CAPABILITY_CONNECT_TCP, CapabilityStatus, ConnectTcp, ConnectionDetails, ConnectionDetailsType,
    Connector, ConnectorAddress, ConnectorCapability, ConnectorSpec, ConnectorStatus, Device,
    DiscoveryMode, MAX_ALLOWED_DIALERS, PublicKeyDetails,
};
pub use httpproxy::{
    Backend, BackendInstance, BackendTls, ConnectorReference, HostnameStatus, HttpProxy,
    HttpProxySpec, HttpProxyStatus, Rule, StatusAddress,
};
pub use route::{
    Filter, FilterType, Header, HeaderMatch, HeaderModifier, HttpMatch, MatchType, PathMatch,
    PathMatchType, PathModifier, PathModifierType, QueryParamMatch, RequestRedirect, UrlRewrite,
};

/// The group's name.
pub const GROUP: &str = "networking.datumapis.com";

/// A reference to an object of the same namespace, by name.
#[derive(
    Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct LocalReference {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
