//! What the module may ask of a stream and do to it.

use std::ffi::c_void;

use super::{
    super::{
        super::raw::{Buffer, Pair},
        copied, in_a_hook,
    },
    Stream, Value,
};

/// The stream behind a handle.
///
/// # Safety
/// The handle is one of this file's, and its object lives.
unsafe fn stream<'a>(handle: *mut c_void) -> &'a Stream {
    in_a_hook();
    // SAFETY: by this function's contract.
    let stream = unsafe { &*handle.cast_const().cast::<Stream>() };
    // While `filter_new` runs there is none yet, and it calls nothing back.
    assert!(
        stream.lives(),
        "a callback for an object that was given back"
    );
    stream
}

/// # Safety
/// See [`stream`]; so for all below, and pointers are as `raw.rs` has them.
pub unsafe fn envoy_dynamic_module_callback_get_most_specific_route_config(
    f: *mut c_void,
) -> *const c_void {
    // SAFETY: by this function's contract.
    let stream = unsafe { stream(f) };
    // The route may be another one now.
    stream.move_texts();
    stream.route.get()
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_get_metadata_keys_count(
    f: *mut c_void,
    source: u32,
    ns: Buffer,
) -> usize {
    // SAFETY: by this function's contract.
    let (stream, ns) = unsafe { (stream(f), copied(ns)) };
    let metadata = stream.metadata.borrow();
    let keys = metadata.keys();
    keys.filter(|(s, n, _)| *s == source && n.as_bytes() == ns)
        .count()
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_get_metadata_string(
    f: *mut c_void,
    source: u32,
    ns: Buffer,
    key: Buffer,
    out: *mut Buffer,
) -> bool {
    // SAFETY: by this function's contract.
    let (stream, ns, key) = unsafe { (stream(f), copied(ns), copied(key)) };
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let place = (source, text(ns), text(key));
    match stream.metadata.borrow().get(&place) {
        Some(Value::Text(text)) => {
            // SAFETY: `out` is to be filled.
            unsafe { out.write(Buffer::lend(text)) };
            true
        }
        _ => false,
    }
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_get_metadata_number(
    f: *mut c_void,
    source: u32,
    ns: Buffer,
    key: Buffer,
    out: *mut f64,
) -> bool {
    // SAFETY: by this function's contract.
    match unsafe { stream(f) }.value(source, ns, key) {
        Some(Value::Number(number)) => {
            // SAFETY: `out` is to be filled.
            unsafe { out.write(number) };
            true
        }
        _ => false,
    }
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_get_metadata_bool(
    f: *mut c_void,
    source: u32,
    ns: Buffer,
    key: Buffer,
    out: *mut bool,
) -> bool {
    // SAFETY: by this function's contract.
    match unsafe { stream(f) }.value(source, ns, key) {
        Some(Value::Bool(value)) => {
            // SAFETY: `out` is to be filled.
            unsafe { out.write(value) };
            true
        }
        _ => false,
    }
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_set_dynamic_metadata_string_batch(
    f: *mut c_void,
    ns: Buffer,
    entries: *const Pair,
    n: usize,
) {
    // SAFETY: by this function's contract.
    let (stream, ns) = unsafe { (stream(f), copied(ns)) };
    assert_eq!(ns, b"adit");
    for i in 0..n {
        // SAFETY: there are `n` of them, valid for the call.
        let (key, value) = unsafe { texts(&*entries.add(i)) };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        stream.dynamic.borrow_mut().insert(text(key), text(value));
    }
    stream.move_texts();
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_get_header(
    f: *mut c_void,
    kind: u32,
    key: Buffer,
    out: *mut Buffer,
    index: usize,
    total: *mut usize,
) -> bool {
    // SAFETY: by this function's contract.
    let (stream, key) = unsafe { (stream(f), copied(key)) };
    let map = stream.maps[kind as usize].borrow();
    let values: Vec<_> = map.iter().filter(|(name, _)| **name == *key).collect();
    if !total.is_null() {
        // SAFETY: not null, so it is to be filled.
        unsafe { total.write(values.len()) };
    }
    let Some((_, value)) = values.get(index) else {
        return false;
    };
    // SAFETY: `out` is to be filled.
    unsafe { out.write(Buffer::lend(value)) };
    true
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_set_header(
    f: *mut c_void,
    kind: u32,
    key: Buffer,
    value: Buffer,
) -> bool {
    // SAFETY: by this function's contract. What is lent may be one of the very
    // texts that move now, so it is copied first; the module must not rely on
    // that for anything else it still holds.
    let (stream, key, remove, value) =
        unsafe { (stream(f), copied(key), value.ptr.is_null(), copied(value)) };
    {
        let mut map = stream.maps[kind as usize].borrow_mut();
        map.retain(|(name, _)| **name != *key);
        if !remove {
            map.push((key.into(), value.into()));
        }
    }
    stream.move_texts();
    true
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_get_headers_size(
    f: *mut c_void,
    kind: u32,
) -> usize {
    // SAFETY: by this function's contract.
    let stream = unsafe { stream(f) };
    stream.maps[kind as usize].borrow().len()
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_get_headers(
    f: *mut c_void,
    kind: u32,
    out: *mut Pair,
) -> bool {
    // SAFETY: by this function's contract.
    let stream = unsafe { stream(f) };
    for (i, (key, value)) in stream.maps[kind as usize].borrow().iter().enumerate() {
        let (key, value) = (Buffer::lend(key), Buffer::lend(value));
        let pair = Pair {
            key: key.ptr,
            key_len: key.len,
            value: value.ptr,
            value_len: value.len,
        };
        // SAFETY: there is room for as many as were counted.
        unsafe { out.add(i).write(pair) };
    }
    true
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_append_body(
    f: *mut c_void,
    kind: u32,
    data: Buffer,
) -> bool {
    assert_eq!(kind, 2, "the response's body, as received");
    // SAFETY: by this function's contract.
    let (stream, data) = unsafe { (stream(f), copied(data)) };
    stream.body.borrow_mut().extend(data);
    true
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_drain_body(
    f: *mut c_void,
    kind: u32,
    n: usize,
) -> bool {
    assert_eq!(kind, 2, "the response's body, as received");
    // SAFETY: by this function's contract.
    let stream = unsafe { stream(f) };
    let mut body = stream.body.borrow_mut();
    let n = n.min(body.len());
    body.drain(..n);
    true
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_send_response(
    f: *mut c_void,
    status: u32,
    headers: *mut Pair,
    n: usize,
    body: Buffer,
    details: Buffer,
) {
    // SAFETY: by this function's contract.
    let (stream, body, details) = unsafe { (stream(f), copied(body), copied(details)) };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let mut response = vec![(
        Box::from(&b":status"[..]),
        Box::from(status.to_string().as_bytes()),
    )];
    for i in 0..n {
        // SAFETY: there are `n` of them, valid for the call.
        let (key, value) = unsafe { texts(&*headers.add(i)) };
        response.push((key.into(), value.into()));
    }
    *stream.maps[2].borrow_mut() = response;
    let details = text(details);
    stream.local_reply(&details);
    let reply = (status, details, text(body));
    stream.replies.borrow_mut().push(reply);
    // The reply ends the stream.
    if stream.destroy_inside.get() {
        stream.end();
    }
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_filter_reset_stream(
    f: *mut c_void,
    reason: u32,
    details: Buffer,
) {
    assert_eq!(reason, 0, "a local reset");
    // SAFETY: by this function's contract.
    let (stream, details) = unsafe { (stream(f), copied(details)) };
    let details = String::from_utf8(details).expect("text");
    stream.resets.borrow_mut().push(details);
    if stream.destroy_inside.get() {
        stream.end();
    }
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_filter_config_define_counter(
    _c: *mut c_void,
    name: Buffer,
    labels: *mut Buffer,
    n: usize,
    id: *mut usize,
) -> u32 {
    in_a_hook();
    assert_eq!(n, 1);
    // SAFETY: by this function's contract.
    let (name, label) = unsafe { (copied(name), copied(labels.read())) };
    assert_eq!(
        (name.as_slice(), label.as_slice()),
        (&b"requests_total"[..], &b"outcome"[..])
    );
    // SAFETY: `id` is to be filled.
    unsafe { id.write(1) };
    0
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_filter_config_define_histogram(
    _c: *mut c_void,
    name: Buffer,
    _labels: *mut Buffer,
    n: usize,
    id: *mut usize,
) -> u32 {
    in_a_hook();
    assert_eq!(n, 0);
    // SAFETY: by this function's contract.
    assert_eq!(unsafe { copied(name) }, b"response_wait_ms");
    // SAFETY: `id` is to be filled.
    unsafe { id.write(1) };
    0
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_filter_increment_counter(
    f: *mut c_void,
    id: usize,
    labels: *mut Buffer,
    n: usize,
    value: u64,
) -> u32 {
    assert_eq!((id, n), (1, 1));
    // SAFETY: by this function's contract.
    let (stream, label) = unsafe { (stream(f), copied(labels.read())) };
    let label = String::from_utf8(label).expect("text");
    *stream.counted.borrow_mut().entry(label).or_default() += value;
    0
}

/// # Safety
/// As above.
pub unsafe fn envoy_dynamic_module_callback_http_filter_record_histogram_value(
    f: *mut c_void,
    id: usize,
    _labels: *mut Buffer,
    n: usize,
    _value: u64,
) -> u32 {
    assert_eq!((id, n), (1, 0));
    // SAFETY: by this function's contract.
    unsafe { stream(f) };
    0
}

/// A pair's texts, copied.
///
/// # Safety
/// The pair is valid.
unsafe fn texts(pair: &Pair) -> (Vec<u8>, Vec<u8>) {
    let buffer = |ptr, len| Buffer { ptr, len };
    // SAFETY: by this function's contract.
    unsafe {
        (
            copied(buffer(pair.key, pair.key_len)),
            copied(buffer(pair.value, pair.value_len)),
        )
    }
}
