//! The line between the shim and a process that it has forked and that has not executed its program yet.
//!
//! A pair of sequenced-packet sockets, close-on-exec: that the other end is gone means that the program was executed
//! or the process died, and for the process that the shim died.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::error::{Error, Kind, Result};

/// What is longer is cut: it is text for people.
const LONGEST: usize = 16 << 10;

/// One end.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// What goes over it. To the process: [`Message::Go`]. To the shim: all others.
#[derive(Debug)]
pub(super) enum Message {
    /// Carry on.
    Go,
    /// The namespaces are there: time for the hooks that run outside of them.
    Hooks,
    /// The program is found and everything set up; waits for [`Message::Go`] to execute it.
    Ready,
    /// Something that was asked for can't be had on this host.
    Warning(String),
    /// It is over.
    Failed(Error),
    /// The master of the terminal.
    Console(OwnedFd),
    /// The seccomp filter's notification descriptor.
    Notify(OwnedFd),
}

impl Channel {
    pub(super) fn pair() -> Result<(Channel, Channel)> {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|e| Error::because("making a socket pair", e))?;
        Ok((Channel(a), Channel(b)))
    }

    pub(super) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// The same end at a number of at least `lowest`.
    pub(super) fn lifted(&self, lowest: RawFd) -> Result<Channel> {
        let lifted = rustix::io::fcntl_dupfd_cloexec(&self.0, lowest);
        lifted
            .map(Channel)
            .map_err(|e| Error::because("moving a descriptor", e))
    }

    pub(super) fn send(&self, message: &Message) -> Result<()> {
        let (tag, text, fd) = message.encode();
        let mut packet = vec![tag];
        packet.extend_from_slice(&text.as_bytes()[..text.len().min(LONGEST)]);
        let fds: Vec<BorrowedFd<'_>> = fd.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let packet = [IoSlice::new(&packet)];
        rustix::io::retry_on_intr(|| sendmsg(&self.0, &packet, &mut control, SendFlags::NOSIGNAL))
            .map_err(|e| Error::because("telling the other process", e))?;
        Ok(())
    }

    /// Waits for the next message; `None` when the other end is gone.
    pub(super) fn receive(&self) -> Result<Option<Message>> {
        let mut packet = vec![0u8; LONGEST + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut buffer = [IoSliceMut::new(&mut packet)];
            recvmsg(&self.0, &mut buffer, &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let length = match received {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(e) => return Err(Error::because("hearing from the other process", e)),
        };
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                fd = fds.next();
            }
        }
        match packet[..length].split_first() {
            None => Ok(None),
            Some((tag, text)) => Message::decode(*tag, text, fd).map(Some),
        }
    }

    /// Waits for [`Message::Go`]; an error when the shim is gone.
    pub(super) fn wait_for_go(&self) -> Result<()> {
        match self.receive()? {
            Some(Message::Go) => Ok(()),
            Some(_) => Err(Error::new(
                Kind::Unknown,
                "unexpected message from the shim",
            )),
            None => Err(Error::new(Kind::Unknown, "the shim is gone")),
        }
    }
}

impl Message {
    fn encode(&self) -> (u8, String, Option<&OwnedFd>) {
        match self {
            Message::Go => (b'g', String::new(), None),
            Message::Hooks => (b'h', String::new(), None),
            Message::Ready => (b'r', String::new(), None),
            Message::Warning(text) => (b'w', text.clone(), None),
            Message::Failed(error) => (
                b'f',
                format!("{}{}", kind_letter(error.kind), error.message),
                None,
            ),
            Message::Console(fd) => (b'c', String::new(), Some(fd)),
            Message::Notify(fd) => (b'n', String::new(), Some(fd)),
        }
    }

    fn decode(tag: u8, text: &[u8], fd: Option<OwnedFd>) -> Result<Message> {
        let text = String::from_utf8_lossy(text).into_owned();
        match (tag, fd) {
            (b'g', _) => Ok(Message::Go),
            (b'h', _) => Ok(Message::Hooks),
            (b'r', _) => Ok(Message::Ready),
            (b'w', _) => Ok(Message::Warning(text)),
            (b'f', _) => {
                let mut chars = text.chars();
                let kind = letter_kind(chars.next().unwrap_or('u'));
                Ok(Message::Failed(Error::new(kind, chars.as_str())))
            }
            (b'c', Some(fd)) => Ok(Message::Console(fd)),
            (b'n', Some(fd)) => Ok(Message::Notify(fd)),
            _ => Err(Error::new(
                Kind::Unknown,
                "unknown message from the forked process",
            )),
        }
    }
}

fn kind_letter(kind: Kind) -> char {
    match kind {
        Kind::NotFound => 'n',
        Kind::AlreadyExists => 'a',
        Kind::InvalidArgument => 'i',
        Kind::FailedPrecondition => 'p',
        Kind::Unimplemented => 'x',
        Kind::DeadlineExceeded => 'd',
        Kind::Unknown => 'u',
    }
}

fn letter_kind(letter: char) -> Kind {
    match letter {
        'n' => Kind::NotFound,
        'a' => Kind::AlreadyExists,
        'i' => Kind::InvalidArgument,
        'p' => Kind::FailedPrecondition,
        'x' => Kind::Unimplemented,
        'd' => Kind::DeadlineExceeded,
        _ => Kind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&Message::Failed(Error::new(Kind::NotFound, "no")))
            .unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        a.send(&Message::Console(write)).unwrap();
        let Some(Message::Failed(error)) = b.receive().unwrap() else {
            panic!()
        };
        assert_eq!((error.kind, error.message.as_str()), (Kind::NotFound, "no"));
        let Some(Message::Console(fd)) = b.receive().unwrap() else {
            panic!()
        };
        rustix::io::write(fd, b"x").unwrap();
        assert_eq!(rustix::io::read(read, &mut [0; 4]).unwrap(), 1);
        drop(a);
        assert!(b.receive().unwrap().is_none());
    }
}
