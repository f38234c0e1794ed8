//! Between the EndpointId of the wire, 32 bytes, and iroh's, a checked key.

use adit_wire::EndpointId;

/// 32 bytes that are no Ed25519 public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an Ed25519 public key; copy the EndpointId again from `adit key`")]
pub struct NotAKey(EndpointId);

/// iroh's id as the wire carries it.
pub fn to_wire(id: iroh::EndpointId) -> EndpointId {
    EndpointId::from_bytes(*id.as_bytes())
}

/// The wire's id as iroh uses it.
///
/// # Errors
/// When the bytes are not a point on the curve.
pub fn to_iroh(id: EndpointId) -> Result<iroh::EndpointId, NotAKey> {
    iroh::EndpointId::from_bytes(id.as_bytes()).map_err(|_| NotAKey(id))
}
