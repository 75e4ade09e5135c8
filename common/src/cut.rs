//! Segments that end a TCP connection from outside of it. A reset is taken when its sequence number is the very next that
//! the receiver expects (RFC 5961 §3.2); who is asked by a number before that answers with one that says what he expects,
//! as to any keep-alive (RFC 9293 §3.8.4).

use crate::addr::Ip;
use crate::answer::{Reset4, Reset6};
use crate::checksum::Sum;
use crate::header::{Ipv4Hdr, Ipv6Hdr, Tcp, protocol};

/// A segment without data that seems to come from `src`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Whose connection it seems to be.
    pub src: Ip,
    /// Who is to take it.
    pub dst: Ip,
    /// Port at `src`.
    pub src_port: u16,
    /// Port at `dst`.
    pub dst_port: u16,
    /// The sequence number.
    pub seq: u32,
    /// What `src` would expect next.
    pub ack: u32,
    /// Control bits.
    pub flags: u8,
}

impl Segment {
    /// Over IPv4.
    pub fn v4(&self) -> Reset4 {
        let mut ip = Ipv4Hdr {
            vihl: 0x45,
            tos: 0,
            tot_len: [0, 40],
            id: [0; 2],
            frags: [0x40, 0],
            ttl: 64,
            proto: protocol::TCP,
            check: [0; 2],
            src_addr: self.src.v4(),
            dst_addr: self.dst.v4(),
        };
        ip.check = Sum::default().add_bytes(crate::header::as_bytes(&ip)).field();
        let addresses = Sum::default().add_bytes(&self.src.v4()).add_bytes(&self.dst.v4());
        Reset4 { ip, tcp: self.tcp(addresses) }
    }

    /// Over IPv6.
    pub fn v6(&self) -> Reset6 {
        let ip = Ipv6Hdr {
            vcf: [0x60, 0, 0, 0],
            payload_len: [0, 20],
            next_hdr: protocol::TCP,
            hop_limit: 64,
            src_addr: self.src.bytes(),
            dst_addr: self.dst.bytes(),
        };
        let addresses = Sum::default().add_bytes(&self.src.bytes()).add_bytes(&self.dst.bytes());
        Reset6 { ip, tcp: self.tcp(addresses) }
    }

    fn tcp(&self, addresses: Sum) -> Tcp {
        let mut tcp = Tcp {
            source: self.src_port.to_be_bytes(),
            destination: self.dst_port.to_be_bytes(),
            seq: self.seq.to_be_bytes(),
            ack: self.ack.to_be_bytes(),
            offset: 5 << 4,
            flags: self.flags,
            window: [0; 2],
            check: [0; 2],
            urgent: [0; 2],
        };
        let sum = addresses.add([0, protocol::TCP]).add([0, 20]).add_bytes(crate::header::as_bytes(&tcp));
        tcp.check = sum.field();
        tcp
    }
}
