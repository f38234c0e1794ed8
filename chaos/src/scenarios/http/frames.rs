//! HTTP/2 frames as bytes, with fields that no library would send (RFC 9113,
//! RFC 7541).

/// A field's name and value, as bytes.
pub(super) type Field<'a> = (&'a [u8], &'a [u8]);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The first stream that a client may open.
const STREAM: u32 = 1;

/// The connection's preface and empty settings.
pub(super) fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes
}

/// Fields, by literals that are not indexed and not Huffman-coded.
pub(super) fn headers(fields: &[Field<'_>], last: bool) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for part in [name, value] {
            length(&mut block, part.len());
            block.extend_from_slice(part);
        }
    }
    let end = if last { END_STREAM } else { 0 };
    frame(HEADERS, END_HEADERS | end, STREAM, &block)
}

/// A piece of the body.
pub(super) fn data(bytes: &[u8], last: bool) -> Vec<u8> {
    frame(DATA, u8::from(last) * END_STREAM, STREAM, bytes)
}

/// What became of the stream, in words: `200`, `reset 1`, `connection 1`.
pub(super) fn outcome(mut got: &[u8]) -> String {
    let mut said = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = got {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(payload) = rest.get(..len) else {
            break;
        };
        let code = |at: usize| {
            let bytes = payload.get(at..at + 4).map(<[u8; 4]>::try_from);
            bytes.and_then(Result::ok).map_or(0, u32::from_be_bytes)
        };
        match *kind {
            HEADERS => said.push(status(payload)),
            RST_STREAM => said.push(format!("reset {}", code(0))),
            GOAWAY if code(4) != 0 => said.push(format!("connection {}", code(4))),
            _ => {}
        }
        got = &rest[len..];
    }
    match said.is_empty() {
        true => "closed".to_owned(),
        false => said.join(", "),
    }
}

/// The statuses of HPACK's static table; others are a literal.
fn status(block: &[u8]) -> String {
    let known = ["200", "204", "206", "304", "400", "404", "500"];
    let mut bytes = block.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            // A change of the dynamic table's size goes before, in one byte or,
            // as an integer with a prefix of 5 bits, in more.
            0x20..=0x3e => {}
            0x3f => while bytes.next().is_some_and(|more| more & 0x80 != 0) {},
            0x88..=0x8e => return known[usize::from(byte - 0x88)].to_owned(),
            _ => break,
        }
    }
    "an answer".to_owned()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A string's length: an integer with a prefix of 7 bits (RFC 7541, 5.1).
fn length(block: &mut Vec<u8>, len: usize) {
    if len < 127 {
        block.push(len as u8);
        return;
    }
    block.push(127);
    let mut rest = len - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_written_as_in_the_rfc() {
        for (len, expected) in [
            (5, vec![5]),
            (126, vec![126]),
            (127, vec![127, 0]),
            (1337 + 96, vec![127, 0x9a, 0x0a]),
        ] {
            let mut block = Vec::new();
            length(&mut block, len);
            assert_eq!(block, expected, "{len}");
        }
    }

    #[test]
    fn an_outcome_is_read_from_frames() {
        let answer = [
            frame(SETTINGS, 0, 0, &[]),
            frame(HEADERS, END_HEADERS, STREAM, &[0x3f, 0xe1, 0x1f, 0x88]),
        ];
        assert_eq!(outcome(&answer.concat()), "200");
        assert_eq!(outcome(&frame(HEADERS, 4, 1, &[0x48, 1])), "an answer");
        assert_eq!(outcome(&frame(HEADERS, 4, 1, &[0x8c])), "400");
        assert_eq!(outcome(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 1])), "reset 1");
        assert_eq!(outcome(b""), "closed");
    }
}
