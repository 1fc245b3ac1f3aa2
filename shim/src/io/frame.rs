//! The attach protocol's frames: `[type u8][length u32 big-endian][payload]`.
//!
//! | type | from | payload |
//! | --- | --- | --- |
//! | `HELLO` 0x01 | client, first | JSON [`Hello`] |
//! | `READY` 0x02 | shim, in answer | JSON `{"tty":bool}` |
//! | `STDIN` 0x10 | client | bytes, any length |
//! | `CLOSE_STDIN` 0x11 | client | none: the process reads end of file (not with a tty) |
//! | `RESIZE` 0x12 | client | JSON [`Size`] |
//! | `STDOUT` 0x20, `STDERR` 0x21 | shim | bytes |
//! | `EXIT` 0x22 | shim, last | JSON `{"code","at"}`, when all output has been sent |
//! | `LAGGED` 0x23 | shim, last | JSON `{"dropped":bytes}`: the reader was too slow |
//! | `REFUSED` 0x24 | shim, last | JSON `{"message"}`: no such process, or a bad frame |

use serde::{Deserialize, Serialize};

pub(crate) const HELLO: u8 = 0x01;
pub(crate) const READY: u8 = 0x02;
pub(crate) const STDIN: u8 = 0x10;
pub(crate) const CLOSE_STDIN: u8 = 0x11;
pub(crate) const RESIZE: u8 = 0x12;
pub(crate) const STDOUT: u8 = 0x20;
pub(crate) const STDERR: u8 = 0x21;
pub(crate) const EXIT: u8 = 0x22;
pub(crate) const LAGGED: u8 = 0x23;
pub(crate) const REFUSED: u8 = 0x24;

/// The longest payload of a frame that is parsed.
pub(crate) const MAX_CONTROL: usize = 64 * 1024;
/// Of a frame's type and length.
pub(crate) const HEADER: usize = 5;

/// What a client wants.
#[derive(Debug, Deserialize)]
pub(crate) struct Hello {
    /// "" = the container's first process.
    #[serde(default)]
    pub(crate) exec: String,
    #[serde(default)]
    pub(crate) stdin: bool,
    #[serde(default)]
    pub(crate) stdout: bool,
    #[serde(default)]
    pub(crate) stderr: bool,
    #[serde(default)]
    pub(crate) from: From,
}

/// Where output begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum From {
    /// With what is written from now on.
    #[default]
    Live,
    /// With all that the log still has, without a gap or a repetition before what is live.
    Start,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) width: u16,
    pub(crate) height: u16,
}

/// The five bytes before a payload of `length` bytes.
pub(crate) fn header(kind: u8, length: usize) -> [u8; HEADER] {
    // Callers' payloads are far below 4 GiB.
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind, length[0], length[1], length[2], length[3]]
}

/// Splits a header.
pub(crate) fn parse(header: [u8; HEADER]) -> (u8, usize) {
    let [kind, length @ ..] = header;
    (kind, u32::from_be_bytes(length) as usize)
}
