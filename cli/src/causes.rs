//! An error as one line.

/// What happened and why, each said once: libraries differ in whether a message
/// repeats its cause's.
pub fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.contains(&cause) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&cause);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let error = anyhow::anyhow!("no such file")
            .context("open x: no such file")
            .context("read the options");
        assert_eq!(line(&error), "read the options: open x: no such file");
        assert_eq!(line(&anyhow::anyhow!("alone")), "alone");
    }
}
