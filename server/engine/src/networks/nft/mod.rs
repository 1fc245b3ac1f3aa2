//! nf_tables over netlink: one table of ours, written as a whole in one
//! transaction. Packets see the old rules or the new ones, never half of them.

mod attribute;
mod rule;

use std::{io, os::fd::AsRawFd};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
        setsockopt, socket, sockopt,
    },
    time::TimeVal,
};

use crate::{Error, Result};
use attribute::Attributes;
pub(crate) use rule::Rule;

const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// IPv4 and IPv6 in one table.
const INET: u8 = 1;

/// Answers that are longer are of no interest.
const ANSWER_BYTES: usize = 64 << 10;

/// Where packets meet a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hook {
    /// "filter" or "nat".
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

impl Hook {
    pub(crate) const RAW: Self = Self {
        kind: "filter",
        number: 0,
        priority: -300,
    };
    pub(crate) const PREROUTING: Self = Self {
        kind: "nat",
        number: 0,
        priority: -100,
    };
    pub(crate) const OUTPUT: Self = Self {
        kind: "nat",
        number: 3,
        priority: -100,
    };
    pub(crate) const POSTROUTING: Self = Self {
        kind: "nat",
        number: 4,
        priority: 100,
    };
    pub(crate) const FORWARD: Self = Self {
        kind: "filter",
        number: 2,
        priority: 0,
    };
}

/// A chain with all its rules; without a hook it is jumped to.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

/// Makes the table hold these chains, and each of them these rules. Blocks
/// for a moment; the table is that of the thread's network namespace.
pub(crate) fn replace(table: &str, chains: Vec<Chain>) -> Result<()> {
    let mut batch = Batch::default();
    let named = || Attributes::default().text(1, table);
    batch.add(NEW_TABLE, CREATE, named());
    // All chains first: rules jump to them.
    for chain in &chains {
        let mut attributes = named().text(3, chain.name);
        if let Some(hook) = chain.hook {
            let place = Attributes::default()
                .u32(1, hook.number)
                .u32(2, hook.priority.cast_unsigned());
            attributes = attributes.nested(4, place).text(7, hook.kind);
        }
        batch.add(NEW_CHAIN, CREATE, attributes);
        batch.add(DELETE_RULE, 0, named().text(2, chain.name));
    }
    for chain in chains {
        for rule in chain.rules {
            let attributes = named().text(2, chain.name).nested(4, rule.expressions());
            batch.add(NEW_RULE, CREATE | APPEND, attributes);
        }
    }
    batch
        .send()
        .map_err(|error| Error::io(format!("cannot write the nftables table {table}"), error))
}

/// Deletes the table if it is there.
pub(crate) fn delete(table: &str) -> Result<()> {
    let mut batch = Batch::default();
    batch.add(DELETE_TABLE, 0, Attributes::default().text(1, table));
    match batch.send() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other
            .map_err(|error| Error::io(format!("cannot delete the nftables table {table}"), error)),
    }
}

/// Messages of one transaction.
#[derive(Debug, Default)]
struct Batch {
    messages: Vec<(u16, u16, Vec<u8>)>,
}

impl Batch {
    fn add(&mut self, kind: u16, flags: u16, attributes: Attributes) {
        let kind = SUBSYSTEM << 8 | kind;
        self.messages.push((kind, flags, attributes.into_bytes()));
    }

    fn send(self) -> io::Result<()> {
        let last = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::new();
        message(&mut bytes, BATCH_BEGIN, 0, 0, (0, SUBSYSTEM), &[]);
        for (number, (kind, flags, body)) in (1..).zip(&self.messages) {
            // Failures are told for each message anyway.
            let acknowledge = if number == last { ACKNOWLEDGE } else { 0 };
            message(
                &mut bytes,
                *kind,
                flags | acknowledge,
                number,
                (INET, 0),
                body,
            );
        }
        message(&mut bytes, BATCH_END, 0, last + 1, (0, SUBSYSTEM), &[]);
        exchange(&bytes, last)
    }
}

fn message(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    number: u32,
    (family, resource): (u8, u16),
    body: &[u8],
) {
    let length = u32::try_from(20 + body.len()).unwrap_or(u32::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | REQUEST).to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(body);
}

/// Sends a batch and reads until the message `last` is answered; gives the
/// first failure.
fn exchange(bytes: &[u8], last: u32) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    // A batch goes in one piece.
    let _ = setsockopt(
        &socket,
        sockopt::SndBufForce,
        &bytes.len().max(1 << 16).saturating_mul(2),
    );
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(10, 0))?;
    sendto(
        socket.as_raw_fd(),
        bytes,
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    let mut buffer = vec![0; ANSWER_BYTES];
    let mut failure = None;
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((number, code)) = answer(&mut rest) {
            if code != 0 && failure.is_none() {
                failure = Some(io::Error::from_raw_os_error(-code));
            }
            // What fails outside of the messages is told for the first.
            if number == last || number == 0 && code != 0 {
                return failure.map_or(Ok(()), Err);
            }
        }
    }
}

/// Takes the next answer off: the number of the message, and its errno.
fn answer(rest: &mut &[u8]) -> Option<(u32, i32)> {
    const ERROR: u16 = 2;
    loop {
        let number = |at: usize| -> Option<[u8; 4]> { rest.get(at..at + 4)?.try_into().ok() };
        let length = usize::try_from(u32::from_ne_bytes(number(0)?)).ok()?;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(number(8)?);
        let code = number(16).map_or(0, i32::from_ne_bytes);
        *rest = rest
            .get(length.max(16).next_multiple_of(4)..)
            .unwrap_or_default();
        if kind == ERROR {
            return Some((sequence, code));
        }
    }
}
