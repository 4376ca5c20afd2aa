//! Messages to the kernel (netlink(7)): a header, a fixed part, attributes.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// Bytes of a message's header (`struct nlmsghdr`).
const HEADER: usize = 16;
/// The message that acknowledges another, or says what is wrong with it.
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
/// Make what is not there yet.
pub(super) const NLM_F_CREATE: u16 = 0x400;
/// Behind what is there.
pub(super) const NLM_F_APPEND: u16 = 0x800;
/// An attribute that has attributes.
const NLA_F_NESTED: u16 = 0x8000;
/// Bytes of answers that are read at once; an acknowledgement has some forty, a refusal repeats the
/// message.
const ANSWERS: usize = 64 << 10;

/// Attributes that are being written, one after the other.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds an attribute.
    pub(super) fn put(mut self, kind: u16, value: &[u8]) -> Self {
        let bytes = &mut self.0;
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a text with the zero that ends it.
    pub(super) fn text(self, kind: u16, text: &str) -> Self {
        self.put(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// Adds a number in network order.
    pub(super) fn number(self, kind: u16, number: u32) -> Self {
        self.put(kind, &number.to_be_bytes())
    }

    /// Adds an attribute that has attributes.
    pub(super) fn nest(self, kind: u16, inner: Self) -> Self {
        self.put(kind | NLA_F_NESTED, &inner.0)
    }
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
    acknowledged: bool,
}

impl Message {
    /// A message of `kind`, to be acknowledged: its fixed part, then attributes.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8], attributes: &Attributes) -> Self {
        Self::with(kind, flags | NLM_F_ACK, fixed, attributes)
    }

    /// A message without attributes that nobody acknowledges.
    pub(super) fn silent(kind: u16, fixed: &[u8]) -> Self {
        Self::with(kind, 0, fixed, &Attributes::default())
    }

    fn with(kind: u16, flags: u16, fixed: &[u8], attributes: &Attributes) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(fixed);
        bytes.extend(&attributes.0);
        Self {
            bytes,
            acknowledged: flags & NLM_F_ACK != 0,
        }
    }

    fn finish(mut self, number: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&number.to_ne_bytes());
        self.bytes
    }
}

/// A part of the kernel that takes messages.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    /// A way to `protocol`, of the network namespace that the caller is in.
    pub(super) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        Ok(Self(socket))
    }

    /// Sends messages at once and waits until all are acknowledged. After a refusal there may be
    /// answers still that nobody reads: open another one then.
    pub(super) fn send(&self, messages: Vec<Message>) -> io::Result<()> {
        let mut waiting = messages.iter().filter(|m| m.acknowledged).count();
        let numbered = messages.into_iter().zip(1..);
        let bytes: Vec<u8> = numbered.flat_map(|(m, n)| m.finish(n)).collect();
        send(&self.0, &bytes, SendFlags::empty())?;
        let mut answers = vec![0; ANSWERS];
        while waiting > 0 {
            let (length, _) = recv(&self.0, &mut answers[..], RecvFlags::empty())?;
            let mut rest = &answers[..length];
            while let Some(answer) = split(&mut rest) {
                if answer.len() < HEADER + 4 || answer[4..6] != NLMSG_ERROR.to_ne_bytes() {
                    continue;
                }
                let code = answer[HEADER..HEADER + 4].try_into();
                let code = code.map(i32::from_ne_bytes).unwrap_or_default();
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
                waiting -= 1;
            }
        }
        Ok(())
    }
}

/// Takes the first message off `bytes`.
fn split<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = bytes.get(..4)?.try_into().ok()?;
    let length = usize::try_from(u32::from_ne_bytes(length)).ok()?;
    if length < HEADER || length > bytes.len() {
        return None;
    }
    let (first, rest) = bytes.split_at(length.next_multiple_of(4).min(bytes.len()));
    *bytes = rest;
    Some(&first[..length])
}
