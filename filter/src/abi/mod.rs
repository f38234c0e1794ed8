//! The edge to Envoy, and the only folder with `unsafe`.
//!
//! * [`raw`]: the C declarations.
//! * [`http`], [`transport`]: the exported hooks, and one safe wrapper for each
//!   callback, on a handle that lives as long as the hook it was made in.
//!   Getters borrow it, setters borrow it mutably: Envoy's rule that a pointer
//!   is good "until the end of the hook or until a setter is called" is the
//!   borrow checker's here.
//! * `guard`: what keeps a panic from killing Envoy.
//! * [`log`]: Envoy's log.
//! * `host`: in unit tests and benches, what stands in Envoy's place.
#![allow(unsafe_code)]

mod guard;
#[cfg(any(test, feature = "stub-host"))]
pub mod host;
pub mod http;
pub mod log;
mod raw;
mod stubs;
pub mod transport;

use std::{
    ffi::{CStr, c_char},
    sync::Once,
};

/// The version of the ABI this module is written to: the oldest supported
/// Envoy's (1.39). Envoy 1.40 speaks "v0.2.0", promises to serve "v0.1" too,
/// and says so in one warning at start. It compares nothing else: a module that
/// needs a missing callback is refused by the dynamic linker, and `cargo xtask
/// abi` sees to it that ours needs none.
const ABI_VERSION: &CStr = c"v0.1.0";

/// Called when Envoy loads the library.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    static ONCE: Once = Once::new();
    guard::guarded("program_init", std::ptr::null, || {
        ONCE.call_once(|| {
            guard::install_panic_hook();
            crate::log::install();
        });
        ABI_VERSION.as_ptr()
    })
}
