//! The HTTP filter's hooks; what they may do is in [`stream`] and [`metrics`].

mod metrics;
mod stream;

use std::{ffi::c_void, rc::Rc, sync::Arc};

use super::{guard::guarded, raw::Buffer};
use crate::http::{
    filter::{Config, Filter, RouteConfig},
    reply::Reply,
};

pub use metrics::{Definer, Metric};
pub use stream::{Map, Source, Status, Stream};

/// Envoy's answer to a local reply hook: go on with it.
const REPLY_CONTINUE: u32 = 0;
/// Body status: drop this piece and call no further filter.
const BODY_STOP: u32 = 3;

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
    let module = module.cast::<Filter>();
    if module.is_null() {
        return fallback;
    }
    // Kept until the hook is over: a reset or a reply that ends the stream makes
    // Envoy give the filter back inside the callback (`destroyFilters`).
    // SAFETY: `module` came from `filter_new` below and is not yet destroyed; it
    // never leaves the one thread it lives on. The count is raised first, so
    // that the reference Envoy holds stays Envoy's. Each `Stream` is a copy of
    // Envoy's handle.
    let (filter, stream, again) = unsafe {
        Rc::increment_strong_count(module);
        (Rc::from_raw(module), Stream::new(envoy), Stream::new(envoy))
    };
    let (filter, Some(stream), Some(again)) = (&*filter, stream, again) else {
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
        // SAFETY: all of it is Envoy's and valid for this call.
        let (envoy, name, config) = unsafe { (Definer::new(envoy), name.bytes(), config.bytes()) };
        let Some(envoy) = envoy else {
            return std::ptr::null();
        };
        match Config::new(name, config, envoy) {
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
    Rc::into_raw(Rc::new(filter)).cast()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_destroy(filter: *const c_void) {
    guarded(
        "http_destroy",
        || (),
        // SAFETY: from `filter_new`, and Envoy gives it back once.
        || drop(unsafe { Rc::from_raw(filter.cast::<Filter>()) }),
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
            Filter::end,
        )
    }
}
