//! The power button of machines: QEMU's monitor protocol (QMP), which is what EC2 presses when it stops or terminates an instance.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The monitor's socket in a machine's folder.
const SOCKET: &str = "monitor";

/// How long the emulator may take to answer: a thread of its own does.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Negotiation, without which no command is taken, and the command (QEMU, QMP reference: `qmp_capabilities`, `system_powerdown`).
const COMMANDS: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"system_powerdown\"}\n";
const ANSWERS: usize = 2;

/// QEMU's option for the socket. `folder`: the machine's, seen from where QEMU runs: a socket's path is short.
pub(super) fn option(folder: &Path) -> String {
    format!("unix:{},server=on,wait=off", super::machine::option(&folder.join(SOCKET)))
}

/// What the monitor says: the answer to a command, why there is none, or what has happened.
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "return")]
    returned: Option<serde_json::Value>,
    error: Option<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    desc: String,
}

/// Presses the button of the machine in this folder, which is seen from where this runs. What it does about that, and whether it listens at all, is the machine's affair.
///
/// # Errors
///
/// The socket's, the monitor's refusal, or that it does not answer.
pub(super) async fn press(folder: &Path) -> io::Result<()> {
    let pressed = async {
        let mut stream = BufReader::new(UnixStream::connect(folder.join(SOCKET)).await?);
        stream.get_mut().write_all(COMMANDS).await?;
        let (mut answers, mut line) = (0, String::new());
        while answers < ANSWERS {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let said: Said = serde_json::from_str(&line)?;
            if let Some(refused) = said.error {
                return Err(io::Error::other(refused.desc));
            }
            answers += usize::from(said.returned.is_some());
        }
        Ok(())
    };
    timeout(ANSWER_WITHIN, pressed).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    use super::*;

    /// A monitor that says this, and what pressing comes to.
    async fn pressed(says: &str) -> io::Result<()> {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join(SOCKET)).expect("bound");
        let monitor = async {
            let (mut stream, _) = listener.accept().await.expect("it comes");
            stream.read_exact(&mut [0; COMMANDS.len()]).await.expect("commands");
            stream.write_all(says.as_bytes()).await.expect("written");
        };
        tokio::join!(press(folder.path()), monitor).0
    }

    #[tokio::test]
    async fn an_answer_to_each_command_is_waited_for() {
        let greeting = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";
        let done = "{\"return\": {}}\n";
        let event = "{\"event\": \"POWERDOWN\", \"timestamp\": {}}\n";
        pressed(&[greeting, done, event, done].concat()).await.expect("pressed");
        let cut = pressed(&[greeting, done].concat()).await.expect_err("one is missing");
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        let refusal = "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such command\"}}\n";
        let refused = pressed(&[greeting, done, refusal].concat()).await.expect_err("refused");
        assert_eq!(refused.to_string(), "no such command");
        assert_eq!(press(Path::new("/nowhere")).await.expect_err("none").kind(), io::ErrorKind::NotFound);
    }
}
