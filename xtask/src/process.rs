//! Child processes: run, capture, and fail with a message that names the work and shows what the child said.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, anyhow, bail};

/// How much of a failed child's output is worth showing.
const LINES_SHOWN: usize = 25;

/// Runs `command` with its output captured and returns its standard output.
///
/// # Errors
/// When it cannot be started or exits with another status than zero; `what` names the work in the message.
pub fn captured(command: &mut Command, what: &str) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{what}: cannot start {}", program(command)))?;
    successful(output, what)
}

/// Runs `command` with its output captured, writing its standard input with `write`, and returns its standard output.
///
/// # Errors
/// As [`captured`]; an error of `write` is reported only when the child itself succeeded, because a child that dies
/// early breaks the pipe and its own message is the useful one.
pub fn fed(
    command: &mut Command,
    what: &str,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{what}: cannot start {}", program(command)))?;
    let stdin = child.stdin.take().ok_or_else(|| anyhow!("{what}: no standard input"))?;
    // The output is read on another thread, so that a child which writes while it reads cannot block both.
    let waiter = std::thread::spawn(move || child.wait_with_output());
    let mut buffered = std::io::BufWriter::with_capacity(1 << 16, stdin);
    let written = write(&mut buffered).and_then(|()| buffered.flush());
    drop(buffered);
    let output = waiter.join().map_err(|_| anyhow!("{what}: the reading thread panicked"))??;
    let text = successful(output, what)?;
    written.with_context(|| format!("{what}: writing its input"))?;
    Ok(text)
}

/// Runs `command` with the caller's terminal.
///
/// # Errors
/// When it cannot be started or exits with another status than zero.
pub fn streamed(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("{what}: cannot start {}", program(command)))?;
    if !status.success() {
        bail!("{what} failed ({status})");
    }
    Ok(())
}

/// The path of an executable on `PATH`.
///
/// # Errors
/// When there is none: the message is `hint`, which says what to install.
pub fn on_path(name: &str, hint: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| anyhow!("{name} is not on PATH: {hint}"))
}

fn successful(output: Output, what: &str) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = if stderr.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { stderr };
    bail!("{what} failed ({}):\n{}", output.status, tail(&said))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_child_is_quoted_in_the_error() {
        let error = captured(Command::new("sh").args(["-c", "echo broken >&2; exit 3"]), "the work").unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("the work failed") && text.contains("broken"), "{text}");
    }

    #[test]
    fn more_input_than_a_pipe_holds_does_not_deadlock() {
        let echoed =
            fed(&mut Command::new("cat"), "cat", |input| (0..200_000).try_for_each(|line| writeln!(input, "{line}")))
                .unwrap();
        assert_eq!(echoed.lines().count(), 200_000);
    }

    #[test]
    fn a_child_that_dies_early_is_reported_by_its_own_message() {
        let mut dying = Command::new("sh");
        dying.args(["-c", "echo no room >&2; exit 1"]);
        let error = fed(&mut dying, "copying", |input| (0..200_000).try_for_each(|line| writeln!(input, "{line}")));
        assert!(format!("{:#}", error.unwrap_err()).contains("no room"));
    }

    #[test]
    fn a_missing_tool_says_what_to_install() {
        let error = on_path("no-such-tool-anywhere", "install it").unwrap_err();
        assert_eq!(error.to_string(), "no-such-tool-anywhere is not on PATH: install it");
    }
}
