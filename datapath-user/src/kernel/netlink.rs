//! Netlink without a runtime: one question and its answers, in the namespace of the calling thread.
//!
//! For filters that hold programs and for nftables; links and routes go through rtnetlink. A question that is not
//! answered in time is an error, so nothing here waits for ever.

use std::{fmt::Debug, io};

use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::{TimeVal, TimeValLike as _},
};
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkMessage, NetlinkPayload,
        NetlinkSerializable,
    },
    sys::{Socket, SocketAddr},
};

/// Longer than the kernel ever needs, also where it waits for a grace period.
const PATIENCE_SECONDS: i64 = 10;

/// `NLMSG_ALIGNTO`.
const ALIGN: usize = 4;

/// What can be asked and answered.
pub(super) trait Message: NetlinkSerializable + NetlinkDeserializable + Debug {}
impl<M: NetlinkSerializable + NetlinkDeserializable + Debug> Message for M {}

/// Asks for a list. What our parser does not understand is left out: it is not ours.
pub(super) fn dump<M: Message>(protocol: isize, mut question: NetlinkMessage<M>) -> io::Result<Vec<M>> {
    question.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    converse(protocol, vec![question])
}

/// Asks for a change. The flags say of what kind.
pub(super) fn change<M: Message>(protocol: isize, mut order: NetlinkMessage<M>, flags: u16) -> io::Result<()> {
    order.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    converse(protocol, vec![order]).map(drop)
}

/// Sends the messages in one piece, and reads until the last that asks for an answer has it, or one is refused.
pub(super) fn converse<M: Message>(protocol: isize, messages: Vec<NetlinkMessage<M>>) -> io::Result<Vec<M>> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;

    let mut bytes = Vec::new();
    let mut last = 0;
    for (number, mut message) in (1..).zip(messages) {
        message.header.sequence_number = number;
        message.finalize();
        let start = bytes.len();
        bytes.resize((start + message.buffer_len()).next_multiple_of(ALIGN), 0);
        message.serialize(&mut bytes[start..]);
        if message.header.flags & (NLM_F_ACK | NLM_F_DUMP) != 0 {
            last = number;
        }
    }
    socket.send(&bytes, 0)?;

    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let length = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?.length() as usize;
            let message = NetlinkMessage::<M>::deserialize(rest);
            rest = rest.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
            let Ok(NetlinkMessage { header, payload, .. }) = message else { continue };
            #[expect(clippy::wildcard_enum_match_arm, reason = "the rest says nothing")]
            match payload {
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Done(_) | NetlinkPayload::Error(_) if header.sequence_number == last => {
                    return Ok(answers);
                }
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Overrun(_) => return Err(io::Error::other("a part of the answer was lost")),
                _ => {}
            }
        }
    }
}
