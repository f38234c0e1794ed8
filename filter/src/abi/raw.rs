//! The C side of Envoy's dynamic-module ABI, as `abi.h` states it: only what is
//! used here, and only what every Envoy from 1.39.0 to 1.40.0 has. `cargo xtask
//! abi` compares the names with the binaries; the signatures were read in
//! `source/extensions/dynamic_modules/abi/abi.h` of envoyproxy/envoy.

use std::ffi::{c_char, c_int, c_void};

/// A stretch of bytes, by value, either side's (`type_envoy_buffer`,
/// `type_module_buffer`). A null pointer goes with length 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Buffer {
    pub ptr: *const c_char,
    pub len: usize,
}

/// A pair of texts (`type_*_http_header`, `type_module_key_value_pair`).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pair {
    pub key: *const c_char,
    pub key_len: usize,
    pub value: *const c_char,
    pub value_len: usize,
}

/// What a read or write did (`type_transport_socket_io_result`).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IoResult {
    /// 0 keeps the connection open, 1 closes it.
    pub action: u32,
    pub bytes: u64,
    pub end_stream_read: bool,
}

impl Buffer {
    pub const EMPTY: Self = Self {
        ptr: std::ptr::null(),
        len: 0,
    };

    /// Lends bytes to a callback; Envoy copies them during the call.
    pub const fn lend(bytes: &[u8]) -> Self {
        Self {
            ptr: bytes.as_ptr().cast(),
            len: bytes.len(),
        }
    }

    /// The bytes.
    ///
    /// # Safety
    /// `ptr` is null, or valid for `len` bytes for as long as `'a`.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: not null, and valid by this function's contract.
        unsafe { std::slice::from_raw_parts(self.ptr.cast(), self.len) }
    }
}

/// Declares Envoy's callbacks. A unit test runs without Envoy: there, each name
/// is the stub host's.
macro_rules! callbacks {
    ($( $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?; )*) => {
        #[cfg(not(any(test, feature = "stub-host")))]
        unsafe extern "C" {
            $( pub fn $name($($arg: $ty),*) $(-> $ret)?; )*
        }
        $(
            #[cfg(any(test, feature = "stub-host"))]
            pub unsafe extern "C" fn $name($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: what the caller promises is what the stub asks for.
                unsafe { super::host::$name($($arg),*) }
            }
        )*
    };
}

callbacks! {
    envoy_dynamic_module_callback_log(level: u32, message: Buffer);
    envoy_dynamic_module_callback_log_enabled(level: u32) -> bool;

    envoy_dynamic_module_callback_get_most_specific_route_config(f: *mut c_void) -> *const c_void;
    envoy_dynamic_module_callback_http_get_metadata_keys_count(f: *mut c_void, source: u32, ns: Buffer) -> usize;
    envoy_dynamic_module_callback_http_get_metadata_string(f: *mut c_void, source: u32, ns: Buffer, key: Buffer, out: *mut Buffer) -> bool;
    envoy_dynamic_module_callback_http_get_metadata_number(f: *mut c_void, source: u32, ns: Buffer, key: Buffer, out: *mut f64) -> bool;
    envoy_dynamic_module_callback_http_get_metadata_bool(f: *mut c_void, source: u32, ns: Buffer, key: Buffer, out: *mut bool) -> bool;
    envoy_dynamic_module_callback_http_set_dynamic_metadata_string_batch(f: *mut c_void, ns: Buffer, entries: *const Pair, n: usize);
    envoy_dynamic_module_callback_http_get_header(f: *mut c_void, kind: u32, key: Buffer, out: *mut Buffer, index: usize, total: *mut usize) -> bool;
    envoy_dynamic_module_callback_http_set_header(f: *mut c_void, kind: u32, key: Buffer, value: Buffer) -> bool;
    envoy_dynamic_module_callback_http_get_headers_size(f: *mut c_void, kind: u32) -> usize;
    envoy_dynamic_module_callback_http_get_headers(f: *mut c_void, kind: u32, out: *mut Pair) -> bool;
    envoy_dynamic_module_callback_http_append_body(f: *mut c_void, kind: u32, data: Buffer) -> bool;
    envoy_dynamic_module_callback_http_drain_body(f: *mut c_void, kind: u32, n: usize) -> bool;
    envoy_dynamic_module_callback_http_send_response(f: *mut c_void, status: u32, headers: *mut Pair, n: usize, body: Buffer, details: Buffer);
    envoy_dynamic_module_callback_http_filter_reset_stream(f: *mut c_void, reason: u32, details: Buffer);
    envoy_dynamic_module_callback_http_filter_config_define_counter(c: *mut c_void, name: Buffer, labels: *mut Buffer, n: usize, id: *mut usize) -> u32;
    envoy_dynamic_module_callback_http_filter_config_define_histogram(c: *mut c_void, name: Buffer, labels: *mut Buffer, n: usize, id: *mut usize) -> u32;
    envoy_dynamic_module_callback_http_filter_increment_counter(f: *mut c_void, id: usize, labels: *mut Buffer, n: usize, value: u64) -> u32;
    envoy_dynamic_module_callback_http_filter_record_histogram_value(f: *mut c_void, id: usize, labels: *mut Buffer, n: usize, value: u64) -> u32;

    envoy_dynamic_module_callback_transport_socket_get_fd(s: *mut c_void) -> c_int;
    envoy_dynamic_module_callback_transport_socket_io_shutdown_write(s: *mut c_void);
    envoy_dynamic_module_callback_transport_socket_read_buffer_add(s: *mut c_void, data: *const c_char, len: usize);
    envoy_dynamic_module_callback_transport_socket_write_buffer_get_slices(s: *mut c_void, out: *mut Buffer, n: *mut usize);
    envoy_dynamic_module_callback_transport_socket_write_buffer_drain(s: *mut c_void, len: usize);
    envoy_dynamic_module_callback_transport_socket_write_buffer_length(s: *mut c_void) -> usize;
    envoy_dynamic_module_callback_transport_socket_raise_event(s: *mut c_void, event: u32);
    envoy_dynamic_module_callback_transport_socket_should_drain_read_buffer(s: *mut c_void) -> bool;
    envoy_dynamic_module_callback_transport_socket_set_is_readable(s: *mut c_void);
}
