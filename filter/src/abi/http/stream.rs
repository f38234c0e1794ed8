//! Envoy's side of one HTTP stream: a safe wrapper for each callback.

use std::{
    ffi::{c_char, c_void},
    marker::PhantomData,
    ptr::NonNull,
    sync::Arc,
};

use super::{
    super::raw::{
        Buffer, Pair, envoy_dynamic_module_callback_get_most_specific_route_config,
        envoy_dynamic_module_callback_http_append_body,
        envoy_dynamic_module_callback_http_drain_body,
        envoy_dynamic_module_callback_http_filter_increment_counter,
        envoy_dynamic_module_callback_http_filter_record_histogram_value,
        envoy_dynamic_module_callback_http_filter_reset_stream,
        envoy_dynamic_module_callback_http_get_header,
        envoy_dynamic_module_callback_http_get_headers,
        envoy_dynamic_module_callback_http_get_headers_size,
        envoy_dynamic_module_callback_http_get_metadata_bool,
        envoy_dynamic_module_callback_http_get_metadata_keys_count,
        envoy_dynamic_module_callback_http_get_metadata_number,
        envoy_dynamic_module_callback_http_get_metadata_string,
        envoy_dynamic_module_callback_http_send_response,
        envoy_dynamic_module_callback_http_set_dynamic_metadata_string_batch,
        envoy_dynamic_module_callback_http_set_header,
    },
    metrics::Metric,
};
use crate::http::{filter::RouteConfig, reply::Reply};

/// `type_http_body_type_ReceivedResponseBody`.
const RECEIVED_RESPONSE_BODY: u32 = 2;

/// Where metadata is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Source {
    Route = 1,
    Cluster = 2,
}

/// One of a stream's header maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Map {
    Request = 0,
    RequestTrailers = 1,
    Response = 2,
}

/// What becomes of the filter chain after a headers hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    Continue = 0,
    Stop = 1,
}

/// Envoy's side of a stream, within one hook.
pub struct Stream<'hook> {
    filter: NonNull<c_void>,
    hook: PhantomData<&'hook mut ()>,
}

impl Stream<'_> {
    /// # Safety
    /// `filter` is what Envoy passed to the hook that is running.
    pub(super) unsafe fn new(filter: *mut c_void) -> Option<Self> {
        Some(Self {
            filter: NonNull::new(filter)?,
            hook: PhantomData,
        })
    }

    fn raw(&self) -> *mut c_void {
        self.filter.as_ptr()
    }

    /// Looks the route up again and returns its configuration of this filter.
    pub fn refresh_route(&mut self) -> Option<Arc<RouteConfig>> {
        // SAFETY: the handle is Envoy's own, inside its hook.
        let config =
            unsafe { envoy_dynamic_module_callback_get_most_specific_route_config(self.raw()) };
        let config = config.cast::<RouteConfig>();
        if config.is_null() {
            return None;
        }
        // SAFETY: from `per_route_config_new`; the stream's route holds it. The
        // count is raised first, so that Envoy's reference stays Envoy's.
        Some(unsafe {
            Arc::increment_strong_count(config);
            Arc::from_raw(config)
        })
    }

    /// Whether the namespace is there and not empty.
    pub fn has_metadata(&self, source: Source, namespace: &str) -> bool {
        // SAFETY: the texts are valid for the call.
        unsafe {
            envoy_dynamic_module_callback_http_get_metadata_keys_count(
                self.raw(),
                source as u32,
                Buffer::lend(namespace.as_bytes()),
            ) > 0
        }
    }

    /// A text in metadata.
    pub fn metadata_text(&self, source: Source, namespace: &str, key: &str) -> Option<&str> {
        let mut out = Buffer::EMPTY;
        // SAFETY: the texts are valid for the call; the answer stays until a
        // setter runs, which needs `&mut self`, or the hook ends.
        let bytes = unsafe {
            envoy_dynamic_module_callback_http_get_metadata_string(
                self.raw(),
                source as u32,
                Buffer::lend(namespace.as_bytes()),
                Buffer::lend(key.as_bytes()),
                &raw mut out,
            )
            .then(|| out.bytes())?
        };
        std::str::from_utf8(bytes).ok()
    }

    /// A number in metadata.
    pub fn metadata_number(&self, source: Source, namespace: &str, key: &str) -> Option<f64> {
        let mut out = 0.0;
        // SAFETY: the texts are valid for the call.
        unsafe {
            envoy_dynamic_module_callback_http_get_metadata_number(
                self.raw(),
                source as u32,
                Buffer::lend(namespace.as_bytes()),
                Buffer::lend(key.as_bytes()),
                &raw mut out,
            )
        }
        .then_some(out)
    }

    /// A truth value in metadata.
    pub fn metadata_bool(&self, source: Source, namespace: &str, key: &str) -> Option<bool> {
        let mut out = false;
        // SAFETY: the texts are valid for the call.
        unsafe {
            envoy_dynamic_module_callback_http_get_metadata_bool(
                self.raw(),
                source as u32,
                Buffer::lend(namespace.as_bytes()),
                Buffer::lend(key.as_bytes()),
                &raw mut out,
            )
        }
        .then_some(out)
    }

    /// Sets texts in the stream's own metadata.
    pub fn set_dynamic_metadata(&mut self, namespace: &str, entries: &[(&str, &str)]) {
        let entries: Vec<_> = entries.iter().map(|(k, v)| pair(k, v)).collect();
        // SAFETY: everything lent is valid for the call.
        unsafe {
            envoy_dynamic_module_callback_http_set_dynamic_metadata_string_batch(
                self.raw(),
                Buffer::lend(namespace.as_bytes()),
                entries.as_ptr(),
                entries.len(),
            );
        }
    }

    /// The header's value number `index`.
    pub fn header(&self, map: Map, name: &str, index: usize) -> Option<&[u8]> {
        let mut out = Buffer::EMPTY;
        // SAFETY: the name is valid for the call; the answer stays until a
        // setter runs, which needs `&mut self`, or the hook ends.
        unsafe {
            envoy_dynamic_module_callback_http_get_header(
                self.raw(),
                map as u32,
                Buffer::lend(name.as_bytes()),
                &raw mut out,
                index,
                std::ptr::null_mut(),
            )
            .then(|| out.bytes())
        }
    }

    /// Shows every header's name.
    pub fn header_names(&self, map: Map, mut show: impl FnMut(&[u8])) {
        // SAFETY: the handle is Envoy's own, inside its hook.
        let count =
            unsafe { envoy_dynamic_module_callback_http_get_headers_size(self.raw(), map as u32) };
        let mut headers = Vec::<Pair>::with_capacity(count);
        // SAFETY: Envoy fills exactly as many as it has just counted, and
        // nothing ran in between. The names stay until a setter runs.
        unsafe {
            if !envoy_dynamic_module_callback_http_get_headers(
                self.raw(),
                map as u32,
                headers.as_mut_ptr(),
            ) {
                return;
            }
            headers.set_len(count);
            for header in &headers {
                let name = Buffer {
                    ptr: header.key,
                    len: header.key_len,
                };
                show(name.bytes());
            }
        }
    }

    /// Sets a header to one value.
    pub fn set_header(&mut self, map: Map, name: &str, value: &str) {
        self.put_header(map, name.as_bytes(), Buffer::lend(value.as_bytes()));
    }

    /// Removes a header, every value of it.
    pub fn remove_header(&mut self, map: Map, name: &[u8]) {
        self.put_header(map, name, Buffer::EMPTY);
    }

    fn put_header(&mut self, map: Map, name: &[u8], value: Buffer) {
        // SAFETY: both are valid for the call. `false` means that there is no
        // such map now, and then there is nothing to set.
        unsafe {
            envoy_dynamic_module_callback_http_set_header(
                self.raw(),
                map as u32,
                Buffer::lend(name),
                value,
            );
        }
    }

    /// Puts `body` in the place of the piece that this hook was called with.
    pub fn replace_response_body(&mut self, body: &[u8]) {
        // SAFETY: the body is valid for the call; draining more than there is
        // drains all.
        unsafe {
            envoy_dynamic_module_callback_http_drain_body(
                self.raw(),
                RECEIVED_RESPONSE_BODY,
                usize::MAX,
            );
            if !body.is_empty() {
                envoy_dynamic_module_callback_http_append_body(
                    self.raw(),
                    RECEIVED_RESPONSE_BODY,
                    Buffer::lend(body),
                );
            }
        }
    }

    /// Answers the request. Envoy adds `content-length`, and turns the whole
    /// into a trailers-only reply for gRPC. **May re-enter** the filter's
    /// `local_reply`; the response hooks are not called for it.
    pub fn send_response(&mut self, reply: &Reply, status: u16, details: &str) {
        let mut headers: Vec<_> = reply.headers.iter().map(|(k, v)| pair(k, v)).collect();
        // SAFETY: everything lent is valid for the call.
        unsafe {
            envoy_dynamic_module_callback_http_send_response(
                self.raw(),
                status.into(),
                headers.as_mut_ptr(),
                headers.len(),
                Buffer::lend(&reply.body),
                Buffer::lend(details.as_bytes()),
            );
        }
    }

    /// Adds one to a counter that has one label.
    pub fn increment(&self, metric: Metric, label: &str) {
        let mut label = [Buffer::lend(label.as_bytes())];
        // The stream's callback, not the configuration's: only of this one is
        // it known that it may run on a worker.
        // SAFETY: the label is valid for the call.
        unsafe {
            envoy_dynamic_module_callback_http_filter_increment_counter(
                self.raw(),
                metric.0,
                label.as_mut_ptr(),
                label.len(),
                1,
            );
        }
    }

    /// Records a value in a histogram without labels.
    pub fn record(&self, metric: Metric, value: u64) {
        // SAFETY: no labels, so no pointer is read.
        unsafe {
            envoy_dynamic_module_callback_http_filter_record_histogram_value(
                self.raw(),
                metric.0,
                std::ptr::null_mut(),
                0,
                value,
            );
        }
    }

    /// Ends the stream without an answer.
    pub fn reset(&mut self, details: &str) {
        const LOCAL_RESET: u32 = 0;
        // SAFETY: the handle is Envoy's own, inside its hook.
        unsafe {
            envoy_dynamic_module_callback_http_filter_reset_stream(
                self.raw(),
                LOCAL_RESET,
                Buffer::lend(details.as_bytes()),
            );
        }
    }
}

fn pair(key: &str, value: &str) -> Pair {
    Pair {
        key: key.as_ptr().cast::<c_char>(),
        key_len: key.len(),
        value: value.as_ptr().cast::<c_char>(),
        value_len: value.len(),
    }
}
