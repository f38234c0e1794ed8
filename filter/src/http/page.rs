//! The HTML page of an error, ours or the operator's.

use super::fault::Fault;

/// The longest page taken from the configuration, in bytes: it is sent whole
/// with every error.
pub const MAX_LEN: usize = 64 * 1024;

/// The page that ships. It loads nothing and names nothing.
const DEFAULT: &str = include_str!("page.html");

/// An HTML page with places for `{{status}}`, `{{title}}`, `{{message}}` and
/// `{{error}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page(String);

/// Why a text is no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Nothing there.
    #[error("the page is empty; leave the key out for the built-in page")]
    Empty,
    /// Over [`MAX_LEN`].
    #[error("the page is {0} bytes long, over the limit of {MAX_LEN}")]
    TooLong(usize),
    /// A place that nothing fills: a misspelling that clients would see.
    #[error(
        "the page has a place {{{{{0}}}}}; there are {{{{status}}}}, {{{{title}}}}, {{{{message}}}} and {{{{error}}}}"
    )]
    Place(String),
}

impl Default for Page {
    fn default() -> Self {
        Self(DEFAULT.into())
    }
}

impl Page {
    /// Checks a page from the configuration.
    pub fn new(text: String) -> Result<Self, PageError> {
        if text.trim().is_empty() {
            return Err(PageError::Empty);
        }
        if text.len() > MAX_LEN {
            return Err(PageError::TooLong(text.len()));
        }
        let page = Self(text);
        for (_, place) in page.pieces() {
            if let Some(name) = place
                && value(name, Fault::Udp).is_none()
            {
                return Err(PageError::Place(name.into()));
            }
        }
        Ok(page)
    }

    /// The page for a fault. What is filled in is our own ASCII text and needs
    /// no escaping.
    pub fn render(&self, fault: Fault) -> String {
        let mut out = String::with_capacity(self.0.len() + 128);
        for (text, place) in self.pieces() {
            out.push_str(text);
            if let Some(value) = place.and_then(|name| value(name, fault)) {
                out.push_str(&value);
            }
        }
        out
    }

    /// Texts, each with the name of the place that follows it. Double braces
    /// around anything but lowercase letters are text (style sheets, scripts).
    fn pieces(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let mut rest = Some(self.0.as_str());
        std::iter::from_fn(move || {
            let text = rest.take()?;
            let mut from = 0;
            while let Some(open) = text[from..].find("{{").map(|at| from + at) {
                let inner = &text[open + 2..];
                let len = inner.bytes().take_while(|b| b.is_ascii_lowercase()).count();
                if len > 0 && inner[len..].starts_with("}}") {
                    rest = Some(&inner[len + 2..]);
                    return Some((&text[..open], Some(&inner[..len])));
                }
                from = open + 1;
            }
            Some((text, None))
        })
    }
}

fn value(place: &str, fault: Fault) -> Option<String> {
    match place {
        "status" => Some(fault.status().to_string()),
        "title" => Some(fault.title().into()),
        "message" => Some(fault.message().into()),
        "error" => Some(fault.word().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use adit_wire::ErrorClass;

    use super::*;

    const OFFLINE: Fault = Fault::Class(ErrorClass::Offline);

    #[test]
    fn the_built_in_page_is_valid_and_filled() {
        let page = Page::new(DEFAULT.into()).unwrap();
        let html = page.render(OFFLINE);
        assert!(html.contains("503"), "{html}");
        assert!(html.contains(OFFLINE.message()), "{html}");
        assert!(!html.contains("{{"), "{html}");
    }

    #[test]
    fn a_page_of_ones_own_is_filled_and_its_braces_kept() {
        let page = Page::new("a{{{status}}}b {{ title }} {{title}}{{error}}.css{{}}".into());
        assert_eq!(
            page.unwrap().render(OFFLINE),
            "a{503}b {{ title }} Service Unavailableoffline.css{{}}"
        );
    }

    #[test]
    fn a_page_that_clients_would_see_broken_is_refused() {
        assert_eq!(Page::new(" \n".into()), Err(PageError::Empty));
        assert_eq!(
            Page::new("x".repeat(MAX_LEN + 1)),
            Err(PageError::TooLong(MAX_LEN + 1))
        );
        let error = Page::new("<h1>{{staus}}</h1>".into()).unwrap_err();
        assert_eq!(error, PageError::Place("staus".into()));
        assert!(error.to_string().contains("{{staus}}"), "{error}");
    }
}
