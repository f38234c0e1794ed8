//! What `adit completions` prints works in the shells that are there.

use std::process::Command;

use adit_tests::{binaries, expect_ok};
use anyhow::{Context as _, Result, ensure};

#[test]
fn bash_completes_commands_and_options() {
    for (words, expected) in [
        ("adit conn", "connector"),
        ("adit check co", "connector"),
        ("adit connector --max-id", "--max-idle-timeout"),
        ("adit completions ba", "bash"),
    ] {
        expect_ok(completes(words, expected));
    }
}

#[test]
fn zsh_and_fish_can_read_theirs() {
    for (shell, read_only) in [("zsh", "--no-exec"), ("fish", "--no-execute")] {
        if Command::new(shell).arg("--version").output().is_err() {
            println!("LEFT OUT: there is no {shell} on PATH");
            continue;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("adit");
        std::fs::write(&file, script(shell).expect("a script")).expect("written");
        let output = Command::new(shell).arg(read_only).arg(file).output();
        let output = output.expect("run the shell");
        assert!(output.status.success(), "{shell}: {output:?}");
    }
}

/// As bash calls it: the command, the word at the cursor, the word before it.
fn completes(words: &str, expected: &str) -> Result<()> {
    let ask = format!(
        "COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
         _adit adit \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let output = Command::new("bash")
        .args(["--norc", "-c", &format!("{}\n{ask}", script("bash")?)])
        .output()
        .context("run bash")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let found: Vec<_> = said.lines().collect();
    ensure!(
        found == [expected],
        "{words}: {found:?} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn script(shell: &str) -> Result<String> {
    let output = Command::new(binaries::adit()?)
        .args(["completions", shell])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}
