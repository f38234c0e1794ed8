//! Defining metrics, while Envoy loads the filter's configuration.

use std::{ffi::c_void, marker::PhantomData, ptr::NonNull};

use super::super::raw::{
    Buffer, envoy_dynamic_module_callback_http_filter_config_define_counter,
    envoy_dynamic_module_callback_http_filter_config_define_histogram,
};

/// Envoy's side of a filter's configuration, within `config_new`: later it
/// defines nothing any more.
#[derive(Debug, Clone, Copy)]
pub struct Definer<'hook> {
    config: NonNull<c_void>,
    hook: PhantomData<&'hook ()>,
}

/// A metric that Envoy has defined; it is used on a
/// [`Stream`](super::Stream).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric(pub(super) usize);

type Define = unsafe extern "C" fn(*mut c_void, Buffer, *mut Buffer, usize, *mut usize) -> u32;

impl Definer<'_> {
    /// # Safety
    /// `config` is what Envoy passed to the `config_new` that is running.
    pub(super) unsafe fn new(config: *mut c_void) -> Option<Self> {
        Some(Self {
            config: NonNull::new(config)?,
            hook: PhantomData,
        })
    }

    /// A counter with one label.
    pub fn counter(self, name: &str, label: &str) -> Option<Metric> {
        let callback = envoy_dynamic_module_callback_http_filter_config_define_counter;
        self.define(name, &mut [Buffer::lend(label.as_bytes())], callback)
    }

    /// A histogram without labels.
    pub fn histogram(self, name: &str) -> Option<Metric> {
        let callback = envoy_dynamic_module_callback_http_filter_config_define_histogram;
        self.define(name, &mut [], callback)
    }

    fn define(self, name: &str, labels: &mut [Buffer], callback: Define) -> Option<Metric> {
        let mut id = 0;
        // SAFETY: the names are valid for the call; Envoy copies them.
        let result = unsafe {
            callback(
                self.config.as_ptr(),
                Buffer::lend(name.as_bytes()),
                labels.as_mut_ptr(),
                labels.len(),
                &raw mut id,
            )
        };
        (result == 0).then_some(Metric(id))
    }
}
