//! The HTTP filter's hooks and callbacks.

use std::{
    ffi::{c_char, c_void},
    marker::PhantomData,
    ptr::NonNull,
    sync::Arc,
};

use super::{
    guard::guarded,
    raw::{
        Buffer, Pair, envoy_dynamic_module_callback_get_most_specific_route_config,
        envoy_dynamic_module_callback_http_append_body,
        envoy_dynamic_module_callback_http_drain_body,
        envoy_dynamic_module_callback_http_filter_config_define_counter,
        envoy_dynamic_module_callback_http_filter_config_define_histogram,
        envoy_dynamic_module_callback_http_filter_config_increment_counter,
        envoy_dynamic_module_callback_http_filter_config_record_histogram_value,
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
};
use crate::http::{
    filter::{Config, Filter, RouteConfig},
    reply::Reply,
};

/// `type_http_body_type_ReceivedResponseBody`.
const RECEIVED_RESPONSE_BODY: u32 = 2;
/// Envoy's answer to a local reply hook: go on with it.
const REPLY_CONTINUE: u32 = 0;
/// Body status: drop this piece and call no further filter.
const BODY_STOP: u32 = 3;

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

/// Envoy's side of a filter configuration: good for metrics, from any worker,
/// for as long as the module's side of it lives.
#[derive(Debug, Clone, Copy)]
pub struct MetricsHandle(NonNull<c_void>);

/// A metric that Envoy has defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric(usize);

// SAFETY: Envoy's metric callbacks on a configuration take atomics and a lock
// of their own; they are made to be called from the workers.
unsafe impl Send for MetricsHandle {}
// SAFETY: as above.
unsafe impl Sync for MetricsHandle {}

impl MetricsHandle {
    fn define(
        self,
        name: &str,
        labels: &[&str],
        callback: unsafe extern "C" fn(*mut c_void, Buffer, *mut Buffer, usize, *mut usize) -> u32,
    ) -> Option<Metric> {
        let mut labels: Vec<_> = labels.iter().map(|l| Buffer::lend(l.as_bytes())).collect();
        let mut id = 0;
        // SAFETY: the names are valid for the call; Envoy copies them.
        let result = unsafe {
            callback(
                self.0.as_ptr(),
                Buffer::lend(name.as_bytes()),
                labels.as_mut_ptr(),
                labels.len(),
                &raw mut id,
            )
        };
        (result == 0).then_some(Metric(id))
    }

    /// Defines a counter.
    pub fn counter(self, name: &str, labels: &[&str]) -> Option<Metric> {
        self.define(
            name,
            labels,
            envoy_dynamic_module_callback_http_filter_config_define_counter,
        )
    }

    /// Defines a histogram without labels.
    pub fn histogram(self, name: &str) -> Option<Metric> {
        self.define(
            name,
            &[],
            envoy_dynamic_module_callback_http_filter_config_define_histogram,
        )
    }

    /// Adds one to a counter with one label.
    pub fn increment(self, metric: Metric, label: &[&str; 1]) {
        let mut label = label.map(|l| Buffer::lend(l.as_bytes()));
        // SAFETY: the label is valid for the call.
        unsafe {
            envoy_dynamic_module_callback_http_filter_config_increment_counter(
                self.0.as_ptr(),
                metric.0,
                label.as_mut_ptr(),
                label.len(),
                1,
            );
        }
    }

    /// Records a value in a histogram.
    pub fn record(self, metric: Metric, value: u64) {
        // SAFETY: no labels, so no pointer is read.
        unsafe {
            envoy_dynamic_module_callback_http_filter_config_record_histogram_value(
                self.0.as_ptr(),
                metric.0,
                std::ptr::null_mut(),
                0,
                value,
            );
        }
    }
}

impl Stream<'_> {
    /// # Safety
    /// `filter` is what Envoy passed to the hook that is running.
    unsafe fn new(filter: *mut c_void) -> Option<Self> {
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

/// What is done for a stream after a panic in one of its hooks.
type Recover = fn(&Filter, Stream<'_>);

/// Before there was an answer: 500 to the client. Stopping the filter chain
/// alone would let it wait for ever.
const ANSWER_500: Recover = |filter, mut envoy| {
    filter.poison();
    let reply = Reply {
        headers: Vec::new(),
        body: b"The gateway failed.\n".to_vec(),
    };
    envoy.send_response(&reply, 500, "adit_panic");
};

/// On the way back: an answer that was not looked at must not go on, and an
/// error that was not rewritten may name a path.
const CLOSE: Recover = |filter, mut envoy| {
    filter.poison();
    envoy.reset("adit_panic");
};

/// Where nothing depends on the hook.
const NOTHING: Recover = |_, _| ();

/// Runs a hook of an existing stream.
///
/// # Safety
/// `envoy` and `module` are what Envoy passed to the hook that is running.
unsafe fn on_stream<T: Copy>(
    hook: &str,
    envoy: *mut c_void,
    module: *const c_void,
    after_panic: (Recover, T),
    body: impl FnOnce(&Filter, Stream<'_>) -> T,
) -> T {
    let (recover, fallback) = after_panic;
    // SAFETY: `module` came from `filter_new` below and is not yet destroyed;
    // only shared references to it are ever made, on the one thread it lives
    // on. Each `Stream` is a copy of Envoy's handle.
    let (filter, stream, again) = unsafe {
        (
            module.cast::<Filter>().as_ref(),
            Stream::new(envoy),
            Stream::new(envoy),
        )
    };
    let (Some(filter), Some(stream), Some(again)) = (filter, stream, again) else {
        return fallback;
    };
    guarded(
        hook,
        move || {
            recover(filter, again);
            fallback
        },
        move || body(filter, stream),
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    envoy: *mut c_void,
    name: Buffer,
    config: Buffer,
) -> *const c_void {
    guarded("http_config_new", std::ptr::null, || {
        let Some(envoy) = NonNull::new(envoy) else {
            return std::ptr::null();
        };
        // SAFETY: Envoy's buffers are valid for this call.
        let (name, config) = unsafe { (name.bytes(), config.bytes()) };
        match Config::new(name, config, MetricsHandle(envoy)) {
            Ok(config) => Arc::into_raw(Arc::new(config)).cast(),
            Err(e) => {
                tracing::error!("the filter's configuration is refused: {e}");
                std::ptr::null()
            }
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: *const c_void) {
    guarded(
        "http_config_destroy",
        || (),
        // SAFETY: from `config_new`, and Envoy gives it back once.
        || drop(unsafe { Arc::from_raw(config.cast::<Config>()) }),
    );
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(
    name: Buffer,
    config: Buffer,
) -> *const c_void {
    guarded("http_per_route_config_new", std::ptr::null, || {
        // SAFETY: Envoy's buffers are valid for this call.
        let (name, config) = unsafe { (name.bytes(), config.bytes()) };
        match RouteConfig::new(name, config) {
            Ok(config) => Arc::into_raw(Arc::new(config)).cast(),
            Err(e) => {
                tracing::error!("a route's configuration of the filter is refused: {e}");
                std::ptr::null()
            }
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(
    config: *const c_void,
) {
    guarded(
        "http_per_route_config_destroy",
        || (),
        // SAFETY: from `per_route_config_new`, and Envoy gives it back once.
        || drop(unsafe { Arc::from_raw(config.cast::<RouteConfig>()) }),
    );
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_new(
    config: *const c_void,
    _envoy: *mut c_void,
) -> *const c_void {
    let config = config.cast::<Config>();
    // SAFETY: from `config_new`, not yet destroyed; the count is raised first,
    // so that the reference Envoy holds stays Envoy's.
    let config = || unsafe {
        Arc::increment_strong_count(config);
        Arc::from_raw(config)
    };
    // Never null: Envoy 1.39 then lets the client wait for ever. A filter that
    // is broken from the start answers 500.
    let filter = guarded(
        "http_new",
        || {
            let filter = Filter::new(config());
            filter.poison();
            filter
        },
        || Filter::new(config()),
    );
    Box::into_raw(Box::new(filter)).cast_const().cast()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_destroy(filter: *const c_void) {
    guarded(
        "http_destroy",
        || (),
        || {
            // SAFETY: from `filter_new`, and Envoy gives it back once.
            let filter = unsafe { Box::from_raw(filter.cast::<Filter>().cast_mut()) };
            // Here and not in `stream_complete`, which an upstream filter never
            // gets.
            filter.end();
        },
    );
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    envoy: *mut c_void,
    filter: *const c_void,
    _end: bool,
) -> u32 {
    let after_panic = (ANSWER_500, Status::Stop as u32);
    // SAFETY: both are Envoy's arguments.
    unsafe {
        on_stream(
            "http_request_headers",
            envoy,
            filter,
            after_panic,
            |f, s| {
                if f.is_poisoned() {
                    ANSWER_500(f, s);
                    return Status::Stop as u32;
                }
                f.request_headers(s) as u32
            },
        )
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    envoy: *mut c_void,
    filter: *const c_void,
    _end: bool,
) -> u32 {
    let after_panic = (ANSWER_500, BODY_STOP);
    // SAFETY: both are Envoy's arguments.
    unsafe {
        on_stream("http_request_body", envoy, filter, after_panic, |_, _| {
            Status::Continue as u32
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
    envoy: *mut c_void,
    filter: *const c_void,
) -> u32 {
    let after_panic = (ANSWER_500, Status::Stop as u32);
    // SAFETY: both are Envoy's arguments.
    unsafe {
        on_stream(
            "http_request_trailers",
            envoy,
            filter,
            after_panic,
            |f, s| {
                f.request_trailers(s);
                Status::Continue as u32
            },
        )
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    envoy: *mut c_void,
    filter: *const c_void,
    end: bool,
) -> u32 {
    // SAFETY: both are Envoy's arguments.
    unsafe {
        on_stream(
            "http_response_headers",
            envoy,
            filter,
            (CLOSE, Status::Stop as u32),
            |f, s| {
                f.response_headers(s, end);
                Status::Continue as u32
            },
        )
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_body(
    envoy: *mut c_void,
    filter: *const c_void,
    end: bool,
) -> u32 {
    let after_panic = (CLOSE, BODY_STOP);
    // SAFETY: both are Envoy's arguments.
    unsafe {
        on_stream(
            "http_response_body",
            envoy,
            filter,
            after_panic,
            |f, s| match f.response_body(s, end) {
                Status::Continue => Status::Continue as u32,
                Status::Stop => BODY_STOP,
            },
        )
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(
    envoy: *mut c_void,
    filter: *const c_void,
) -> u32 {
    // SAFETY: both are Envoy's arguments.
    unsafe {
        on_stream(
            "http_response_trailers",
            envoy,
            filter,
            (CLOSE, Status::Stop as u32),
            |_, _| Status::Continue as u32,
        )
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_local_reply(
    envoy: *mut c_void,
    filter: *const c_void,
    _code: u32,
    details: Buffer,
    _reset_imminent: bool,
) -> u32 {
    // After a panic the class is unknown, and Envoy's own text must not go out.
    let after_panic: (Recover, u32) = (|f, _| f.local_reply_unread(), REPLY_CONTINUE);
    // SAFETY: both are Envoy's arguments, and `details` is valid for this call.
    unsafe {
        on_stream("http_local_reply", envoy, filter, after_panic, |f, _| {
            f.local_reply(details.bytes());
            REPLY_CONTINUE
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(
    envoy: *mut c_void,
    filter: *const c_void,
) {
    // SAFETY: both are Envoy's arguments.
    unsafe {
        on_stream(
            "http_stream_complete",
            envoy,
            filter,
            (NOTHING, ()),
            |_, _| (),
        )
    }
}
