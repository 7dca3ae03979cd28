//! A connection that stays open: psql behind two pipes.

use std::io::{BufRead, BufReader, ErrorKind, PipeReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::thread::JoinHandle;

use xtask::Cluster;

/// Ends what a statement prints. psql fills in whether the statement failed and how.
const END: &str = "-- end of reply --";

/// What a lost connection is reported as.
const LOST: &str = "lost";

/// One connection, used a statement at a time. Statements can be sent without waiting for what comes back.
#[derive(Debug)]
pub struct Session {
    psql: Child,
    input: Option<ChildStdin>,
    output: BufReader<PipeReader>,
    /// Process id of the backend.
    pub pid: String,
}

/// What a statement printed, rows and messages in order, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Rows as lines with `|` between columns; messages as psql prints them.
    pub text: String,
    /// `None` when it succeeded; `lost` when the connection is gone.
    pub sqlstate: Option<String>,
}

impl Reply {
    /// The rows.
    ///
    /// # Panics
    /// When the statement failed.
    #[must_use]
    pub fn rows(self) -> String {
        assert!(self.sqlstate.is_none(), "{:?}: {}", self.sqlstate, self.text);
        self.text
    }

    /// The SQLSTATE.
    ///
    /// # Panics
    /// When the statement succeeded.
    #[must_use]
    pub fn error(self) -> String {
        self.sqlstate.unwrap_or_else(|| panic!("this should have failed, and printed {}", self.text))
    }
}

impl Session {
    /// Connects.
    ///
    /// # Panics
    /// When psql cannot be started or connected.
    #[must_use]
    pub fn open(cluster: &Cluster, database: &str) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut psql = cluster.client("psql", database);
        psql.args(["-X", "-q", "-A", "-t"]).stdin(Stdio::piped());
        psql.stdout(writer.try_clone().unwrap()).stderr(writer);
        let mut child = psql.spawn().unwrap();
        // The command holds the pipe's other end, and the end of psql would not be seen.
        drop(psql);
        let input = child.stdin.take();
        let mut session = Self { psql: child, input, output: BufReader::new(reader), pid: String::new() };
        session.pid = session.ask("SELECT pg_backend_pid()");
        session
    }

    /// Sends statements without waiting. Where psql is gone, which ends when it sees that its connection is, the reply
    /// says so.
    ///
    /// # Panics
    /// When the pipe breaks in another way.
    pub fn send(&mut self, sql: &str) {
        let input = self.input.as_mut().unwrap();
        // A second semicolon would be an empty statement, which succeeds and hides the error before it.
        let sql = sql.trim_end().trim_end_matches(';');
        // At once: psql must not be gone before the rest of it was sent.
        let sent = input.write_all(format!("{sql};\n\\echo {END} :ERROR :SQLSTATE\n").as_bytes());
        assert!(!sent.as_ref().is_err_and(|error| error.kind() != ErrorKind::BrokenPipe), "{sent:?}");
    }

    /// Sends a script from another thread, for more than a pipe holds. The session answers nothing any more, and a
    /// server that dies on the way is not an error.
    ///
    /// # Panics
    /// When something was fed before.
    pub fn feed(&mut self, script: &str) -> JoinHandle<()> {
        let mut input = self.input.take().unwrap();
        let script = script.to_owned();
        std::thread::spawn(move || drop(input.write_all(script.as_bytes())))
    }

    /// Waits for the end of what was sent first and has not been waited for.
    ///
    /// # Panics
    /// When the pipe breaks.
    pub fn reply(&mut self) -> Reply {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                return Reply { text, sqlstate: Some(LOST.to_owned()) };
            }
            if let Some(end) = line.strip_prefix(END) {
                let (failed, state) = end.trim().split_once(' ').unwrap();
                text.truncate(text.trim_end_matches('\n').len());
                return Reply { text, sqlstate: (failed == "true").then(|| state.to_owned()) };
            }
            text.push_str(&line);
        }
    }

    /// Sends statements and waits; the reply tells how the last of them ended.
    ///
    /// # Panics
    /// When the pipe breaks.
    pub fn run(&mut self, sql: &str) -> Reply {
        self.send(sql);
        self.reply()
    }

    /// The rows of statements that must succeed.
    ///
    /// # Panics
    /// When the last one fails.
    pub fn ask(&mut self, sql: &str) -> String {
        self.run(sql).rows()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}
