//! The user's terminal: raw mode that always ends, and its size.

use std::os::fd::AsFd;

use davit_client::v1::TerminalSize;
use rustix::termios::{self, OptionalActions, Termios};

/// Raw mode on stdin; dropping it puts the terminal back.
#[derive(Debug)]
pub(crate) struct RawMode {
    saved: Termios,
}

impl RawMode {
    /// Switches stdin to raw mode; none when it is no terminal.
    pub(crate) fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        let saved = termios::tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = saved.clone();
        raw.make_raw();
        termios::tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).ok()?;
        Some(Self { saved })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(
            std::io::stdin().as_fd(),
            OptionalActions::Flush,
            &self.saved,
        );
    }
}

/// Size of the terminal on stdout (or stdin); none when there is none.
pub(crate) fn size() -> Option<TerminalSize> {
    let size = termios::tcgetwinsize(std::io::stdout().as_fd())
        .or_else(|_| termios::tcgetwinsize(std::io::stdin().as_fd()))
        .ok()?;
    Some(TerminalSize {
        width: size.ws_col.into(),
        height: size.ws_row.into(),
    })
}
