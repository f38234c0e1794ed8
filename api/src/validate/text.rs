//! Rules for single texts: names, header fields, paths, expressions.

use regex_syntax::ast;

type Checked = Result<(), String>;

/// A DNS-1123 label.
pub(super) fn label(text: &str) -> Checked {
    let ok = (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    ok.then_some(()).ok_or_else(|| {
        format!(
            "{:?} is no DNS label: 1 to 63 lowercase letters, digits and hyphens, a letter or digit first and last",
            cut(text)
        )
    })
}

/// A DNS-1123 subdomain.
pub(super) fn subdomain(text: &str) -> Checked {
    if text.is_empty() || text.len() > 253 {
        return Err(format!(
            "a name has 1 to 253 characters; this has {}",
            text.len()
        ));
    }
    text.split('.').try_for_each(label)
}

/// A host name that requests may ask for.
pub(super) fn hostname(text: &str) -> Checked {
    if text.contains('*') {
        return Err("wildcard host names are not allowed; list each name".into());
    }
    subdomain(text)?;
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Err("an IP address is no host name".into());
    }
    Ok(())
}

/// The name of a header field (RFC 9110 section 5.6.2).
pub(super) fn header_name(text: &str) -> Checked {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=256).contains(&text.len()) && text.bytes().all(token) {
        return Ok(());
    }
    Err(format!("{:?} is no header name", cut(text)))
}

/// A header that a modifier may change: Envoy refuses `host` and pseudo-headers.
pub(super) fn changeable_header(text: &str) -> Checked {
    header_name(text)?;
    if text.eq_ignore_ascii_case("host") {
        return Err("the Host header is changed with the URLRewrite filter's hostname".into());
    }
    Ok(())
}

/// The value of a header field or parameter.
pub(super) fn value(text: &str, max: usize) -> Checked {
    if text.is_empty() || text.len() > max {
        return Err(format!(
            "a value has 1 to {max} bytes; this has {}",
            text.len()
        ));
    }
    if text.chars().any(char::is_control) {
        return Err("a value holds no control characters and no line breaks".into());
    }
    Ok(())
}

/// An absolute path without dot elements, encoded slashes, query or fragment.
pub(super) fn path(text: &str) -> Checked {
    if text.len() > 1024 {
        return Err(format!(
            "a path has at most 1024 bytes; this has {}",
            text.len()
        ));
    }
    if !text.starts_with('/') {
        return Err("a path begins with a slash".into());
    }
    let lower = text.to_ascii_lowercase();
    let dots = text
        .split('/')
        .any(|element| element == "." || element == "..");
    if dots
        || ["//", "%2f", "#", "?"]
            .iter()
            .any(|bad| lower.contains(bad))
    {
        return Err("a path holds no //, /./, /../, %2f, # or ?".into());
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a path is printable ASCII without spaces; encode the rest as %XX".into());
    }
    Ok(())
}

/// A method as HTTPRoute knows them. CONNECT is opened with a `tcp://` endpoint.
pub(super) fn method(text: &str) -> Checked {
    match text {
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "TRACE" | "PATCH" => Ok(()),
        "CONNECT" => Err("CONNECT is served by a rule whose endpoint is tcp://".into()),
        _ => Err(format!(
            "unknown method {:?}; methods are written in capitals",
            cut(text)
        )),
    }
}

/// A regular expression that RE2 takes too.
///
/// It is read with Rust's syntax, which is a superset: what RE2 lacks or reads
/// otherwise (flags but `i`, class set operations, nested classes, special word
/// boundaries, more than 1000 repetitions) is refused.
pub(super) fn regex(text: &str) -> Checked {
    if text.is_empty() || text.len() > 1024 {
        return Err(format!(
            "an expression has 1 to 1024 bytes; this has {}",
            text.len()
        ));
    }
    let tree = ast::parse::ParserBuilder::new()
        .nest_limit(50)
        .build()
        .parse(text)
        .map_err(|e| format!("not a regular expression: {}", e.kind()))?;
    let found = ast::visit(&tree, Re2::default())?;
    // RE2 limits one repetition to 1000, nested ones to that product, and a
    // whole expression by its memory: a sum keeps far away from all three.
    if found.repeats > 1000 {
        return Err("repetitions that add up to more than 1000 are not allowed".into());
    }
    Ok(())
}

#[derive(Default)]
struct Re2 {
    open: Vec<u64>,
    repeats: u64,
}

impl Re2 {
    fn bound(range: &ast::RepetitionKind) -> u64 {
        match range {
            ast::RepetitionKind::Range(
                ast::RepetitionRange::Exactly(n) | ast::RepetitionRange::AtLeast(n),
            ) => u64::from(*n).max(1),
            ast::RepetitionKind::Range(ast::RepetitionRange::Bounded(_, n)) => u64::from(*n).max(1),
            _ => 1,
        }
    }
}

impl ast::Visitor for Re2 {
    type Output = Self;
    type Err = String;

    fn finish(self) -> Result<Self, String> {
        Ok(self)
    }

    fn visit_pre(&mut self, node: &ast::Ast) -> Result<(), String> {
        let unknown = |what: &str| Err(format!("{what} is not known to Envoy's expressions (RE2)"));
        match node {
            ast::Ast::Flags(set) if !only_i(&set.flags) => return unknown("a flag other than i"),
            ast::Ast::Group(group) => {
                if let ast::GroupKind::NonCapturing(flags) = &group.kind
                    && !only_i(flags)
                {
                    return unknown("a flag other than i");
                }
            }
            ast::Ast::Assertion(a) => match a.kind {
                ast::AssertionKind::StartLine
                | ast::AssertionKind::EndLine
                | ast::AssertionKind::WordBoundary
                | ast::AssertionKind::NotWordBoundary
                | ast::AssertionKind::StartText
                | ast::AssertionKind::EndText => {}
                _ => return unknown("this word boundary"),
            },
            ast::Ast::Literal(l) => literal(l)?,
            ast::Ast::ClassUnicode(_) => return unknown("a Unicode class"),
            ast::Ast::Repetition(r) => {
                let outer = self.open.last().copied().unwrap_or(1);
                let bound = Self::bound(&r.op.kind);
                let product = outer.saturating_mul(bound);
                self.open.push(product);
                if bound > 1 {
                    self.repeats = self.repeats.saturating_add(product);
                }
                if matches!(*r.ast, ast::Ast::Repetition(_)) {
                    return Err(
                        "two repetition signs in a row are not known to RE2; use a group".into(),
                    );
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_post(&mut self, node: &ast::Ast) -> Result<(), String> {
        if matches!(node, ast::Ast::Repetition(_)) {
            self.open.pop();
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ast::ClassSetItem) -> Result<(), String> {
        match item {
            ast::ClassSetItem::Bracketed(_) => {
                Err("a class inside a class is not known to RE2".into())
            }
            ast::ClassSetItem::Unicode(_) => Err("a Unicode class is not known here".into()),
            ast::ClassSetItem::Literal(l) => literal(l),
            ast::ClassSetItem::Range(r) => literal(&r.start).and_then(|()| literal(&r.end)),
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ast::ClassSetBinaryOp) -> Result<(), String> {
        Err("&&, -- and ~~ in a class are not known to RE2; escape them".into())
    }
}

fn only_i(flags: &ast::Flags) -> bool {
    flags.items.iter().all(|item| {
        matches!(
            item.kind,
            ast::FlagsItemKind::Flag(ast::Flag::CaseInsensitive)
        )
    })
}

fn literal(literal: &ast::Literal) -> Checked {
    match literal.kind {
        ast::LiteralKind::Verbatim if !literal.c.is_control() => Ok(()),
        ast::LiteralKind::Meta | ast::LiteralKind::Superfluous
            if literal.c.is_ascii_punctuation() =>
        {
            Ok(())
        }
        _ => Err("escapes in expressions are for punctuation and classes like \\d only".into()),
    }
}

/// Input in a message: its beginning only.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(80)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_that_re2_takes_pass() {
        for text in [
            "/a/.*",
            r"^/v[0-9]+/\d{1,3}$",
            "(?:a|b)+",
            "(?i)x",
            r"/\.well-known/[^/]+",
            "a{1000}",
            "[a-z&-]",
        ] {
            assert_eq!(regex(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn expressions_that_re2_refuses_or_reads_otherwise_are_refused() {
        for text in [
            "",
            "(",
            "a{1001}",
            "(a{500}){500}",
            "a{600}b{600}",
            "a**",
            "a{2}{3}",
            "[a&&b]",
            "[a[b]]",
            "(?x)a",
            r"\b{start}",
            r"(a)\1",
            "(?=a)",
            r"\p{Greek}",
            r"\u{1F600}",
            r"\x41",
            "a\n",
        ] {
            assert!(regex(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn paths_and_headers_that_envoy_would_refuse_are_refused() {
        for text in [
            "", "a", "/a//b", "/../a", "/a?b", "/a#b", "/a b", "/a%2Fb", "/\u{e4}",
        ] {
            assert!(path(text).is_err(), "{text:?}");
        }
        assert_eq!(path("/a/.well-known/%20"), Ok(()));
        for text in ["", ":path", "a b", "Host", "x\r\ny"] {
            assert!(changeable_header(text).is_err(), "{text:?}");
        }
        assert!(value("a\r\nb", 10).is_err());
        assert!(hostname("*.a.example").is_err());
        assert!(hostname("10.0.0.1").is_err());
        assert_eq!(hostname("shop.example"), Ok(()));
    }
}
