//! Envoy's log, component `dynamic_modules`; safe from any thread.

use super::raw::{
    Buffer, envoy_dynamic_module_callback_log, envoy_dynamic_module_callback_log_enabled,
};

/// Envoy's log levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    Trace = 0,
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
}

/// Whether Envoy would write a line of this level.
pub fn enabled(level: Level) -> bool {
    // SAFETY: plain values; the callback may be used from any thread.
    unsafe { envoy_dynamic_module_callback_log_enabled(level as u32) }
}

/// Writes one line.
pub fn log(level: Level, message: &str) {
    // SAFETY: Envoy copies the message during the call; any thread may log.
    unsafe { envoy_dynamic_module_callback_log(level as u32, Buffer::lend(message.as_bytes())) }
}
