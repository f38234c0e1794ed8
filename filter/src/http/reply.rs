//! An error in the form its client understands: a page, a problem document
//! (RFC 9457), a line of text, or a gRPC status.

use super::{accept::Form, fault::Fault, page::Page};

/// What is sent in place of the service's answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// Header fields; `:status` and `content-length` are not among them.
    pub headers: Vec<(&'static str, String)>,
    /// The body; of a gRPC reply, its message.
    pub body: Vec<u8>,
}

impl Reply {
    /// For an HTTP client.
    pub fn http(fault: Fault, form: Form, page: &Page) -> Self {
        let body = match form {
            Form::Html => page.render(fault),
            Form::Text => format!(
                "{} {}: {} ({})\n",
                fault.status(),
                fault.title(),
                fault.message(),
                fault.word()
            ),
            // `type` is left out: "about:blank", so the title is the status's
            // name.
            Form::Json => serde_json::json!({
                "title": fault.title(),
                "status": fault.status(),
                "detail": fault.message(),
                "error": fault.word(),
            })
            .to_string(),
        };
        let mut headers = vec![
            ("content-type", form.content_type().into()),
            // The answer is in the form asked for, and true only for now.
            ("vary", "accept".into()),
            ("cache-control", "no-store".into()),
        ];
        if let Some(seconds) = fault.retry_after() {
            headers.push(("retry-after", seconds.to_string()));
        }
        Self {
            headers,
            body: body.into_bytes(),
        }
    }

    /// For a gRPC client: Envoy makes a trailers-only reply of it.
    pub fn grpc(fault: Fault) -> Self {
        Self {
            headers: vec![
                ("grpc-status", fault.grpc_status().to_string()),
                ("grpc-message", fault.message().into()),
            ],
            body: fault.message().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_wire::ErrorClass;

    use super::*;

    fn reply(class: ErrorClass, form: Form) -> (Reply, String) {
        let reply = Reply::http(Fault::Class(class), form, &Page::default());
        let text = String::from_utf8(reply.body.clone()).unwrap();
        (reply, text)
    }

    #[test]
    fn a_problem_document_has_the_members_of_rfc_9457() {
        let (_, text) = reply(ErrorClass::Offline, Form::Json);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["status"], 503);
        assert_eq!(json["title"], "Service Unavailable");
        assert_eq!(json["error"], "offline");
        assert!(json["detail"].is_string());
    }

    #[test]
    fn text_is_one_line() {
        let (_, line) = reply(ErrorClass::Refused, Form::Text);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.starts_with("502 Bad Gateway: "), "{line}");
    }

    #[test]
    fn only_where_waiting_may_help_is_there_a_retry_after() {
        for class in ErrorClass::ALL {
            let (reply, _) = reply(class, Form::Html);
            let given = reply.headers.iter().any(|(name, _)| *name == "retry-after");
            let helps = matches!(class, ErrorClass::Offline | ErrorClass::Overloaded);
            assert_eq!(given, helps, "{class}");
        }
    }

    #[test]
    fn a_grpc_reply_carries_its_status_beside_http_200() {
        let reply = Reply::grpc(Fault::Class(ErrorClass::Timeout));
        assert!(reply.headers.contains(&("grpc-status", "4".into())));
    }
}
