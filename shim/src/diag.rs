//! The shim's own log: single lines on stderr. Under containerd stderr is the bundle's `log` FIFO, under davitd a file.

use std::fmt;
use std::io::Write;

/// Something went wrong that nobody is waiting to be told about.
pub(crate) fn warn(message: impl fmt::Display) {
    line("warning", &message);
}

/// Something an operator may want to know.
pub(crate) fn info(message: impl fmt::Display) {
    line("info", &message);
}

fn line(level: &str, message: &dyn fmt::Display) {
    let text = format!(
        "time=\"{}\" level={level} msg={:?} pid={}\n",
        jiff::Timestamp::now(),
        message.to_string(),
        std::process::id()
    );
    // A reader that is slow or gone must not hold the shim up, and there is nobody left to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
