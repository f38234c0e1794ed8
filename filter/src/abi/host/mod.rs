//! A stub of Envoy for the unit tests, and a bench: it implements the callbacks
//! that this module imports, calls the hooks that it exports, by their symbols as
//! Envoy does, and calls back at the worst moments.
//!
//! * [`connection`]: an upstream connection with a real socket.
//! * [`stream`]: an HTTP stream.
//!
//! It is stricter than Envoy. A callback outside a hook, or for an object that
//! was given back, ends the test. Each setter moves all texts that were lent
//! before and overwrites the old ones, so that a pointer kept too long shows.
//! It frees the module's objects **inside** callbacks: Envoy does that to HTTP
//! filters (`resetStream` and a reply's end run `destroyFilters`), and deletes
//! transport sockets later; here both may happen.
//!
//! Under valgrind and AddressSanitizer (`cargo xtask sanitize`) these tests look
//! for what a passing test cannot show.

mod connection;
#[cfg(test)]
mod connection_tests;
#[cfg(test)]
mod random_tests;
mod stream;
#[cfg(test)]
mod stream_tests;

use std::{
    cell::{Cell, RefCell},
    ffi::{CStr, c_char},
};

use super::raw::Buffer;

pub use connection::*;
pub use stream::*;

unsafe extern "C" {
    fn envoy_dynamic_module_on_program_init() -> *const c_char;
}

thread_local! {
    /// How many hooks of this thread are running, one inside another.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// The hook that shall panic next.
    static PANIC_IN: RefCell<Option<&'static str>> = const { RefCell::new(None) };
}

/// Loads the module, as often as there are tests.
pub fn load() {
    // SAFETY: it takes nothing, and returns a static string.
    let version = unsafe { CStr::from_ptr(envoy_dynamic_module_on_program_init()) };
    assert_eq!(version, c"v0.1.0");
}

/// Orders a panic in the next call of a hook.
pub fn panic_in(hook: &'static str) {
    PANIC_IN.set(Some(hook));
}

/// Called by the guard before each hook.
pub fn panic_if_ordered(hook: &str) {
    let ordered = PANIC_IN.with_borrow_mut(|order| order.take_if(|name| *name == hook).is_some());
    assert!(!ordered, "ordered by the test");
}

/// Runs a hook.
fn hook<T>(call: impl FnOnce() -> T) -> T {
    DEPTH.set(DEPTH.get() + 1);
    let result = call();
    DEPTH.set(DEPTH.get() - 1);
    result
}

/// Callbacks are for hooks.
fn in_a_hook() {
    assert!(DEPTH.get() > 0, "a callback outside every hook");
}

/// What the module lends, copied during the call as Envoy does.
///
/// # Safety
/// The buffer is valid.
unsafe fn copied(buffer: Buffer) -> Vec<u8> {
    // SAFETY: by this function's contract.
    unsafe { buffer.bytes() }.to_vec()
}

/// # Safety
/// The buffer is valid.
pub unsafe fn envoy_dynamic_module_callback_log(level: u32, message: Buffer) {
    // SAFETY: by this function's contract.
    let message = unsafe { copied(message) };
    println!("{level} {}", String::from_utf8_lossy(&message));
}

/// # Safety
/// None is needed.
pub unsafe fn envoy_dynamic_module_callback_log_enabled(_level: u32) -> bool {
    true
}
