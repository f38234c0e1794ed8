//! Options and commands, as `adit … --help` tells them.

use std::{collections::BTreeMap, fmt::Write as _, process::Command};

use anyhow::{Context, Result, ensure};

use super::{MADE, cell};
use crate::binaries;

/// The commands that run long and have a page of their own, with the option that
/// names their file of options.
const ROLES: [(&str, &str); 4] = [
    ("run", "--options-file FILE"),
    ("dialer", "-c FILE"),
    ("connector", "-c FILE"),
    ("reconciler", "-c FILE"),
];

/// The help of a command.
struct Help {
    about: String,
    usage: String,
    commands: Vec<Entry>,
    arguments: Vec<Entry>,
    options: Vec<Entry>,
}

/// A line of it, or several.
struct Entry {
    /// `-c, --config <FILE>`, `<DIR>`, `status`
    name: String,
    text: String,
    default: Option<String>,
    env: Option<String>,
    values: Option<String>,
}

/// A page for each role, and one for all other commands.
pub fn pages() -> Result<BTreeMap<String, String>> {
    let mut pages = BTreeMap::new();
    for (role, file) in ROLES {
        pages.insert(format!("adit-{role}.md"), role_page(role, file)?);
    }
    pages.insert("commands.md".to_owned(), others()?);
    Ok(pages)
}

fn role_page(role: &str, file: &str) -> Result<String> {
    let help = help(&[role])?;
    let mut page = format!(
        "# Which options has `adit {role}`?\n\n{MADE}\n{}.\n\n",
        cell(&help.about)
    );
    writeln!(page, "```text\n{}\n```\n", help.usage)?;
    writeln!(
        page,
        "Each option is a flag, an environment variable and a key of the file (`{file}`, YAML or JSON): \
         `--log-level debug`\nis `ADIT_LOG_LEVEL=debug` is `log-level: debug`. A flag outranks the \
         environment, and that the file. Unknown keys are errors.\n\
         An option that may be repeated is a list in the file; in the environment its items are \
         separated by commas.\n"
    )?;
    writeln!(page, "| option | | default |\n|---|---|---|")?;
    let mut exceptions = Vec::new();
    for option in help.options.iter().filter(|o| !o.name.contains("--help")) {
        writeln!(page, "{}", row(option))?;
        let long = option.name.split("--").nth(1).unwrap_or_default();
        let long = long.split([' ', '[']).next().unwrap_or_default();
        let usual = format!("ADIT_{}", long.to_ascii_uppercase().replace('-', "_"));
        match &option.env {
            Some(env) if *env == usual => {}
            Some(env) => exceptions.push(format!("`--{long}` is `{env}`")),
            None => exceptions.push(format!("`--{long}` has none")),
        }
    }
    if !exceptions.is_empty() {
        writeln!(
            page,
            "\nOther environment variables than by the rule: {}.",
            exceptions.join(", ")
        )?;
    }
    Ok(page)
}

fn others() -> Result<String> {
    let top = help(&[])?;
    let mut page = format!("# Which commands are there?\n\n{MADE}\n| command | |\n|---|---|\n");
    let mut sections = String::new();
    for command in top.commands.iter().filter(|c| c.name != "help") {
        let name = &command.name;
        let place = match ROLES.iter().any(|(role, _)| role == name) {
            true => format!("adit-{name}.md"),
            false => {
                section(&mut sections, &[name])?;
                format!("#adit-{name}")
            }
        };
        writeln!(
            page,
            "| [`adit {name}`]({place}) | {} |",
            cell(&command.text)
        )?;
    }
    Ok(page + &sections)
}

fn section(to: &mut String, command: &[&str]) -> Result<()> {
    let help = help(command)?;
    let depth = "#".repeat(command.len() + 1);
    writeln!(
        to,
        "\n{depth} `adit {}`\n\n{}.\n",
        command.join(" "),
        cell(&help.about)
    )?;
    writeln!(to, "```text\n{}\n```", help.usage)?;
    let options = help.options.iter().filter(|o| !o.name.contains("--help"));
    let entries: Vec<_> = help.arguments.iter().chain(options).collect();
    if !entries.is_empty() {
        writeln!(to, "\n| option | | default |\n|---|---|---|")?;
    }
    for entry in entries {
        writeln!(to, "{}", row(entry))?;
    }
    for inner in help.commands.iter().filter(|c| c.name != "help") {
        section(to, &[command, &[&inner.name]].concat())?;
    }
    Ok(())
}

fn row(entry: &Entry) -> String {
    let values = entry.values.as_deref().map(|v| format!(" ({v})"));
    let text = cell(&(entry.text.clone() + &values.unwrap_or_default()));
    let default = cell(entry.default.as_deref().unwrap_or_default());
    format!(
        "| `{}` | {text} | {default} |",
        entry.name.replace('|', "\\|")
    )
}

fn help(command: &[&str]) -> Result<Help> {
    let output = Command::new(binaries::adit()?)
        .args(command)
        .arg("--help")
        // It shows what the environment says.
        .env_clear()
        .output()
        .context("run adit")?;
    ensure!(
        output.status.success(),
        "adit {command:?} --help: {}",
        output.status
    );
    let help = read(&String::from_utf8(output.stdout)?);
    ensure!(
        !help.usage.is_empty(),
        "adit {command:?} --help has no usage"
    );
    Ok(help)
}

/// Takes the help of clap apart.
fn read(text: &str) -> Help {
    let mut help = Help {
        about: String::new(),
        usage: String::new(),
        commands: Vec::new(),
        arguments: Vec::new(),
        options: Vec::new(),
    };
    let mut heading = "";
    for line in text.lines() {
        if let Some(usage) = line.strip_prefix("Usage: ") {
            usage.clone_into(&mut help.usage);
            heading = "Usage";
        } else if !line.starts_with(' ') && line.ends_with(':') && !help.usage.is_empty() {
            heading = line.trim_end_matches(':');
        } else if heading.is_empty() {
            add(&mut help.about, line.trim());
        } else if heading != "Usage" {
            let entries = match heading {
                "Commands" => &mut help.commands,
                "Arguments" => &mut help.arguments,
                _ => &mut help.options,
            };
            read_line(entries, heading, line);
        }
    }
    let lists = [&mut help.commands, &mut help.arguments, &mut help.options];
    lists.into_iter().flatten().for_each(Entry::sort_out);
    help
}

fn read_line(entries: &mut Vec<Entry>, heading: &str, line: &str) {
    let text = line.trim_start();
    let indent = line.len() - text.len();
    let begins = match heading {
        "Commands" | "Arguments" => indent == 2,
        _ => indent <= 6 && text.starts_with('-'),
    };
    if begins {
        // Name and text stand in one line where there is no longer help.
        let (name, text) = text.split_once("  ").unwrap_or((text, ""));
        entries.push(Entry {
            name: name.to_owned(),
            text: text.trim().to_owned(),
            default: None,
            env: None,
            values: None,
        });
    } else if let Some(entry) = entries.last_mut() {
        add(&mut entry.text, text);
    }
}

fn add(to: &mut String, line: &str) {
    if !to.is_empty() && !line.is_empty() {
        to.push(' ');
    }
    to.push_str(line.trim_end());
}

impl Entry {
    /// Moves what clap adds in brackets to where it belongs.
    fn sort_out(&mut self) {
        let env = self.take("[env: ");
        self.env = env.map(|env| env.trim_end_matches('=').to_owned());
        self.default = self.take("[default: ");
        self.values = self.take("[possible values: ");
        if let Some((text, values)) = self.text.split_once(" Possible values: - ") {
            self.values = Some(values.replace(" - ", "; "));
            self.text = text.to_owned();
        }
    }

    fn take(&mut self, opening: &str) -> Option<String> {
        let (before, rest) = self.text.split_once(opening)?;
        let (inner, after) = rest.split_once(']')?;
        let inner = inner.to_owned();
        self.text = format!("{}{after}", before.trim_end()).trim().to_owned();
        Some(inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_of_help_are_read() {
        let long = "About it\nin two lines\n\nUsage: adit run [OPTIONS]\n\nOptions:\n  -c, --config <DIR>\n\
                    \x20         Directory of\n          manifests [default: here or\n          there]\n          \n\
                    \x20         [env: ADIT_CONFIG=]\n\n      --log-format <F>\n          How\n\n          \
                    Possible values:\n          - text: For a person\n          - json: One a line\n";
        let help = read(long);
        assert_eq!(help.about, "About it in two lines");
        assert_eq!(help.usage, "adit run [OPTIONS]");
        let [config, format] = &help.options[..] else {
            panic!("{} options", help.options.len());
        };
        assert_eq!(config.name, "-c, --config <DIR>");
        assert_eq!(config.text, "Directory of manifests");
        assert_eq!(config.default.as_deref(), Some("here or there"));
        assert_eq!(config.env.as_deref(), Some("ADIT_CONFIG"));
        assert_eq!(
            format.values.as_deref(),
            Some("text: For a person; json: One a line")
        );

        let short = "A\n\nUsage: adit check <DIR>\n\nArguments:\n  <DIR>  The directory\n\nOptions:\n  \
                     -H, --header <NAME: VALUE>  A header\n                              of it\n";
        let help = read(short);
        assert_eq!(help.arguments[0].text, "The directory");
        assert_eq!(help.options[0].name, "-H, --header <NAME: VALUE>");
        assert_eq!(help.options[0].text, "A header of it");
    }
}
