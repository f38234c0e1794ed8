//! Shell completions and manual pages, made from the command line's own
//! definition.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use crate::Cli;

/// Prints a shell's completions.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "adit", &mut script);
    print(&script)
}

/// Prints adit(1), or writes the pages of all commands.
pub(crate) fn pages(directory: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut command = command().disable_help_subcommand(true);
    command.build();
    let Some(directory) = directory else {
        return print(&page(command)?);
    };
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    write(command, directory)?;
    Ok(ExitCode::SUCCESS)
}

fn write(command: Command, directory: &Path) -> anyhow::Result<()> {
    for part in command.get_subcommands() {
        write(part.clone(), directory)?;
    }
    let name = command.get_display_name().unwrap_or("adit");
    let path = directory.join(format!("{name}.1"));
    fs::write(&path, page(command)?).with_context(|| format!("write {}", path.display()))
}

fn page(command: Command) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command)
        .source(concat!("adit ", env!("CARGO_PKG_VERSION")))
        .manual("Adit")
        .render(&mut page)?;
    let mut end = Roff::new();
    end.control("SH", ["EXIT STATUS"]);
    end.text([roman(
        "0 when all went well, 1 when something failed or was found wrong (standard error, or the \
         report, says what), 2 when the command line itself is wrong.",
    )]);
    page.extend(end.to_roff().into_bytes());
    Ok(page)
}

/// The command line without what is not for people.
fn command() -> Command {
    let whole = Cli::command();
    let mut command = Command::new("adit").version(env!("CARGO_PKG_VERSION"));
    if let Some(about) = whole.get_about() {
        command = command.about(about.clone());
    }
    let shown = whole.get_subcommands().filter(|c| !c.is_hide_set());
    command.subcommands(shown.cloned())
}

fn print(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // As `adit man | head` closes it.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_for_people_has_a_page_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        pages(Some(folder.path())).expect("written");
        let command = command();
        for name in command.get_subcommands().map(Command::get_name) {
            let page = folder.path().join(format!("adit-{name}.1"));
            let text = fs::read_to_string(page).expect(name);
            assert!(text.contains(".SH SYNOPSIS"), "{name}");
            assert!(text.contains(".SH \"EXIT STATUS\""), "{name}");
        }
        assert!(folder.path().join("adit-check-connector.1").is_file());
        assert!(!folder.path().join("adit-leash.1").exists());
        let main = fs::read_to_string(folder.path().join("adit.1")).expect("adit.1");
        assert!(main.contains("connector") && !main.contains("leash"));
        let connector = fs::read_to_string(folder.path().join("adit-connector.1"));
        assert!(connector.expect("a page").contains("ADIT_ALLOW"));
    }

    #[test]
    fn completions_know_every_command_and_option() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), "adit", &mut script);
            let script = String::from_utf8(script).expect("UTF-8");
            for word in ["connector", "reconciler", "key", "max-idle-timeout", "url"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
            assert!(!script.contains("leash"), "{shell}");
        }
    }
}
