//! An issuer's own key as a program prints it.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::key_document::DOCUMENT_BYTES;
use crate::config::KeyCommand;

/// How long a command may run.
const COMMAND_TIME: Duration = Duration::from_secs(10);
/// How much of what a command writes to standard error is logged.
const COMPLAINT_BYTES: usize = 4096;

/// What `command` of `issuer` prints.
pub(super) async fn output(
    command: &KeyCommand,
    issuer: &str,
) -> Result<Zeroizing<Vec<u8>>, String> {
    timeout(COMMAND_TIME, run(command, issuer))
        .await
        .unwrap_or_else(|_| Err(format!("it ran longer than {COMMAND_TIME:?}")))
}

/// Runs a program without a shell, and returns what it prints. Of cosgate's environment it gets the
/// listed variables only: others hold secrets, and its user can read them while it runs.
async fn run(command: &KeyCommand, issuer: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let (program, arguments) = command.words.split_first().ok_or("it has no words")?;
    let env = command.env.iter();
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env.filter_map(|name| Some((name, std::env::var_os(name)?))))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    let group = ProcessGroup::of(&child); // dropped before the child is, whose number is its own till then
    let out = child.stdout.take().ok_or("its output cannot be read")?;
    let complaints = child.stderr.take().ok_or("its output cannot be read")?;
    let issuer = issuer.to_owned();
    tokio::spawn(pass_on(complaints, issuer, program.clone()));
    let mut printed = Zeroizing::new(Vec::new());
    let read = out
        .take(DOCUMENT_BYTES as u64 + 1)
        .read_to_end(&mut printed)
        .await;
    if read.map_err(|error| error.to_string())? > DOCUMENT_BYTES {
        return Err(format!("{program} printed more than 64 KiB"));
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    group.disband();
    if !status.success() {
        return Err(format!("{program} failed ({status})"));
    }
    Ok(printed)
}

/// Logs what a program writes to standard error, and reads on to its end: the program never waits for
/// cosgate's log. A process that it leaves behind may keep the pipe open, so nothing waits for this.
async fn pass_on(mut complaints: ChildStderr, issuer: String, program: String) {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = complaints.read(&mut buffer).await {
        let room = COMPLAINT_BYTES.saturating_sub(text.len());
        text.extend(buffer.iter().take(read.min(room)));
    }
    if !text.is_empty() {
        let text = String::from_utf8_lossy(&text);
        tracing::warn!(
            issuer,
            program,
            text = text.trim_end(),
            "the command wrote to standard error"
        );
    }
}

/// A program and what it has started: killed together when it is given up.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    /// The program has ended by itself: what it leaves behind is meant to stay.
    fn disband(mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            let _ = kill_process_group(id, Signal::KILL); // it may be gone already
        }
    }
}
