//! Which form of an error a client asked for: content negotiation by `Accept`
//! (RFC 9110, section 12.5.1).

/// A form an error can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    Json,
    Html,
}

impl Form {
    /// In the order of our preference, where the client has none: text for
    /// command-line tools, which send `*/*`.
    const ALL: [Self; 3] = [Self::Text, Self::Json, Self::Html];

    /// The value of `content-type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Json => "application/problem+json",
            Self::Html => "text/html; charset=utf-8",
        }
    }

    /// How closely a media range names this form, if at all: 1 for `*/*`, 2 for
    /// `text/*`, 3 for the type itself.
    fn matched_by(self, range: &str) -> Option<u8> {
        let is = |name: &str| range.eq_ignore_ascii_case(name);
        let (group, exact) = match self {
            Self::Text => ("text/*", is("text/plain")),
            // Clients that know JSON but not RFC 9457 ask for the former.
            Self::Json => (
                "application/*",
                is("application/problem+json") || is("application/json"),
            ),
            Self::Html => ("text/*", is("text/html")),
        };
        match range {
            _ if exact => Some(3),
            _ if is(group) => Some(2),
            "*/*" => Some(1),
            _ => None,
        }
    }
}

/// How much a client wants a form: quality first, then how closely it was
/// named, then how early.
type Rank = (u16, u8, std::cmp::Reverse<usize>);

/// The form to answer in. What cannot be read in the header is passed over;
/// when nothing acceptable is left the answer is text, since an error in the
/// wrong form helps more than none (RFC 9110, section 12.1 permits it).
pub fn negotiate<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Form {
    let mut best: [Option<Rank>; 3] = [None; 3];
    let mut ranges = 0;
    for range in values
        .into_iter()
        .filter_map(|value| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(','))
    {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let Some(quality) = quality(parts) else {
            continue;
        };
        for (form, best) in Form::ALL.into_iter().zip(&mut best) {
            let Some(closeness) = form.matched_by(name) else {
                continue;
            };
            // The closest range decides: `text/html;q=0, */*` means no HTML.
            if best.is_none_or(|(_, so_far, _)| closeness > so_far) {
                *best = Some((quality, closeness, std::cmp::Reverse(ranges)));
            }
        }
        ranges += 1;
    }
    let mut chosen = (None, Form::Text);
    for (form, rank) in Form::ALL.into_iter().zip(best) {
        let wanted = rank.filter(|(quality, ..)| *quality > 0);
        if wanted > chosen.0 {
            chosen = (wanted, form);
        }
    }
    chosen.1
}

/// The `q` among a range's parameters, in thousandths; `None` when malformed.
fn quality<'a>(mut parameters: impl Iterator<Item = &'a str>) -> Option<u16> {
    let Some(q) = parameters.find_map(|p| p.strip_prefix("q=").or(p.strip_prefix("Q="))) else {
        return Some(1000);
    };
    let (whole, fraction) = q.split_once('.').unwrap_or((q, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    let thousandths = format!("{fraction:0<3}").parse::<u16>().ok()?;
    match whole {
        "0" if digits => Some(thousandths),
        "1" if digits && thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: &str) -> Form {
        negotiate([accept.as_bytes()])
    }

    #[test]
    fn each_kind_of_client_gets_its_form() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8";
        assert_eq!(form(firefox), Form::Html);
        assert_eq!(form("*/*"), Form::Text, "curl");
        assert_eq!(form("application/json, text/plain, */*"), Form::Json);
        assert_eq!(form("application/problem+json"), Form::Json);
        assert_eq!(form("application/*"), Form::Json);
        assert_eq!(form("text/*"), Form::Text);
        assert_eq!(negotiate([]), Form::Text, "no header");
    }

    #[test]
    fn quality_decides_before_order_and_closeness() {
        assert_eq!(form("text/html;q=0.5, application/json"), Form::Json);
        assert_eq!(form("text/plain;q=0.5, */*;q=0.9"), Form::Json);
        assert_eq!(form("text/html;q=0, */*"), Form::Text);
        assert_eq!(
            form("*/*, text/plain;q=0, application/json;q=0"),
            Form::Html
        );
        assert_eq!(
            form("text/html;level=1;q=0.7, text/plain;q=0.699"),
            Form::Html
        );
    }

    #[test]
    fn several_headers_are_one_list() {
        let values: [&[u8]; 2] = [b"text/plain;q=0.1", b"text/html"];
        assert_eq!(negotiate(values), Form::Html);
    }

    #[test]
    fn nonsense_is_passed_over_and_nothing_acceptable_is_text() {
        assert_eq!(form("text/html;q=7, application/json;q=0.1"), Form::Json);
        assert_eq!(form("text/html;q=0.1234, text/html;q=x"), Form::Text);
        assert_eq!(form("image/png"), Form::Text);
        assert_eq!(form(",;,;q=,/,*"), Form::Text);
        assert_eq!(negotiate([&b"\xff\xfe"[..]]), Form::Text);
    }

    #[test]
    fn anything_at_all_gets_a_form() {
        // xorshift: the same texts in every run.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let alphabet = b"text/htmlplain*,;q=01.application/json \t\xff";
        for _ in 0..20_000 {
            let mut text = Vec::new();
            for _ in 0..state % 40 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                text.push(alphabet[(state % alphabet.len() as u64) as usize]);
            }
            state = state.wrapping_add(1);
            let form = negotiate([&text[..]]);
            assert!(Form::ALL.contains(&form));
        }
    }
}
