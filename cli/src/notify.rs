//! What a service manager hears of us (sd_notify(3)); without one, nothing.

use sd_notify::NotifyState;

/// Where it listens.
pub(crate) const VARIABLE: &str = "NOTIFY_SOCKET";

/// Everything is bound and served.
pub(crate) fn ready() {
    tell(NotifyState::Ready);
}

/// The end has begun: open streams are given their grace period.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("cannot tell the service manager ({VARIABLE}): {error}");
    }
}
