//! Groups: who of an app wants which multicast group, learnt from what hosts tell routers (RFC 2236, RFC 3376,
//! RFC 2710, RFC 3810).
//!
//! Reports are read where they pass and passed on to the app's other hosts, which read them too: membership is in
//! the programs' tables and needs no daemon.

use crate::addr::Ip;
use crate::header::{Bytes, protocol};
use crate::id::AppId;
use crate::parse::Packet;
use crate::route::Hop;

crate::wire! {
    /// One of those that get copies of what is sent to an app.
    pub struct MemberKey {
        /// The app.
        pub app: AppId,
        /// Counts its members from 0, without gaps.
        pub index: u32,
    }

    /// An endpoint of this host, or a peer that may have some.
    pub struct Member {
        /// Where it is.
        pub hop: Hop,
        /// Who it is. Of a peer: its app, with [`crate::id::RoleId::UNKNOWN`].
        pub identity: crate::id::Identity,
    }

    /// A member's wish for a group.
    pub struct GroupKey {
        /// The group.
        pub group: Ip,
        /// In which app.
        pub app: AppId,
        /// Who wishes.
        pub hop: Hop,
    }
}

/// Most members of an app that one packet is copied to.
pub const MEMBERS_MAX: u32 = 1024;
/// Most records that are read of one report.
pub const RECORDS_MAX: u32 = 8;

/// What a message about groups is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// It has nothing to do with groups.
    Other,
    /// Asks who wants what: only routers do.
    Query,
    /// Says what the sender wants.
    Report,
}

/// One record of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The group.
    pub group: Ip,
    /// Whether it is wanted from now on.
    pub wanted: bool,
    /// Where the next record starts in the frame; 0 when this is the last.
    pub next: u32,
    /// Where in the frame its kind is.
    pub kind_at: u32,
    /// The kind that says of the same group that it is wanted.
    pub joining: u8,
}

const IGMP_QUERY: u8 = 0x11;
const IGMP_V1_REPORT: u8 = 0x12;
const IGMP_V2_REPORT: u8 = 0x16;
const IGMP_V2_LEAVE: u8 = 0x17;
const IGMP_V3_REPORT: u8 = 0x22;
const MLD_QUERY: u8 = 130;
const MLD_V1_REPORT: u8 = 131;
const MLD_V1_DONE: u8 = 132;
const MLD_V2_REPORT: u8 = 143;

/// The kind of a record that wants whatever it does not exclude.
const CHANGE_TO_EXCLUDE: u8 = 4;

/// What the packet, whose transport header starts with `kind`, is.
#[inline(always)]
pub const fn message(protocol: u8, kind: u8) -> Message {
    match (protocol, kind) {
        (protocol::IGMP, IGMP_QUERY) | (protocol::ICMPV6, MLD_QUERY) => Message::Query,
        (protocol::IGMP, _) | (protocol::ICMPV6, MLD_V1_REPORT | MLD_V1_DONE | MLD_V2_REPORT) => Message::Report,
        _ => Message::Other,
    }
}

/// The record of a report at `at`; the first one is at its transport header.
#[inline(always)]
pub fn record<B: Bytes + ?Sized>(frame: &B, packet: &Packet, at: u32) -> Option<Record> {
    let start = u32::from(packet.l4);
    let kind: u8 = frame.get(start)?;
    let single = |wanted| {
        let is_igmp = packet.protocol == protocol::IGMP;
        let group = if is_igmp { group4(frame, start + 4)? } else { group6(frame, start + 8)? };
        let joining = if is_igmp { IGMP_V2_REPORT } else { MLD_V1_REPORT };
        Some(Record { group, wanted, next: 0, kind_at: start, joining })
    };
    match kind {
        IGMP_V1_REPORT | IGMP_V2_REPORT | MLD_V1_REPORT => single(true),
        IGMP_V2_LEAVE | MLD_V1_DONE => single(false),
        IGMP_V3_REPORT | MLD_V2_REPORT => listed(frame, packet, if at == start { start + 8 } else { at }),
        _ => None,
    }
}

/// A record of the newer reports: type, length of auxiliary data in words, number of sources, group, sources.
#[inline(always)]
fn listed<B: Bytes + ?Sized>(frame: &B, packet: &Packet, at: u32) -> Option<Record> {
    let [kind, auxiliary, high, low] = frame.get::<[u8; 4]>(at)?;
    let sources = u32::from(u16::from_be_bytes([high, low]));
    let (group, width) =
        if packet.protocol == protocol::IGMP { (group4(frame, at + 4)?, 4) } else { (group6(frame, at + 4)?, 16) };
    let next = at + 4 + width + sources * width + u32::from(auxiliary) * 4;
    if next > packet.end {
        return None;
    }
    // Including no source is wanting nothing (RFC 3376 §4.2.12, RFC 3810 §5.2.12).
    let (group, wanted) = match kind {
        1 | 3 => (group, sources > 0),
        2 | 4 | 5 => (group, true),
        _ => (Ip::NONE, false),
    };
    let next = if next < packet.end { next } else { 0 };
    Some(Record { group, wanted, next, kind_at: at, joining: CHANGE_TO_EXCLUDE })
}

#[inline(always)]
fn group4<B: Bytes + ?Sized>(frame: &B, at: u32) -> Option<Ip> {
    frame.get::<[u8; 4]>(at).map(Ip::from_v4)
}

#[inline(always)]
fn group6<B: Bytes + ?Sized>(frame: &B, at: u32) -> Option<Ip> {
    frame.get::<[u8; 16]>(at).map(Ip::from_v6)
}

/// Whether everybody on a link gets what is sent to `ip`, wanted or not: broadcasts, 224.0.0.0/24 (RFC 4541
/// §2.1.2), and IPv6 groups of link-local scope.
#[inline(always)]
pub fn is_for_all(ip: Ip) -> bool {
    if !ip.is_multicast() {
        return true;
    }
    if ip.is_v4() { matches!(ip.v4(), [224, 0, 0, _]) } else { ip.bytes()[1] & 0xf <= 2 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Ether;
    use crate::parse::parse;
    use core::net::IpAddr;
    use std::{vec, vec::Vec};

    fn ip(text: &str) -> Ip {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn igmp(body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(Ether::IPV4);
        // Router alert (RFC 2113), as every report carries.
        let total = u16::try_from(24 + body.len()).unwrap().to_be_bytes();
        frame.extend([
            0x46, 0xc0, total[0], total[1], 0, 0, 0x40, 0, 1, 2, 0, 0, 10, 1, 1, 10, 224, 0, 0, 22, 0x94, 4, 0, 0,
        ]);
        frame.extend(body);
        frame
    }

    fn records(frame: &[u8]) -> Vec<(Ip, bool)> {
        let packet = parse(frame, Ether::LEN, Ether::IPV4).unwrap();
        let mut at = u32::from(packet.l4);
        let mut found = Vec::new();
        while let Some(record) = record(frame, &packet, at) {
            found.push((record.group, record.wanted));
            if record.next == 0 {
                break;
            }
            at = record.next;
        }
        found
    }

    #[test]
    fn reports_of_every_version_are_read() {
        let group = [239, 1, 1, 1];
        let old = |kind: u8| igmp(&[&[kind, 0, 0, 0][..], &group].concat());
        assert_eq!(records(&old(0x16)), [(ip("239.1.1.1"), true)]);
        assert_eq!(records(&old(0x17)), [(ip("239.1.1.1"), false)]);
        let joins = [&[0x22, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0][..], &group, &[3, 0, 0, 0, 239, 2, 2, 2]].concat();
        assert_eq!(records(&igmp(&joins)), [(ip("239.1.1.1"), true), (ip("239.2.2.2"), false)]);
        for cut in 0..joins.len() {
            records(&igmp(&joins[..cut]));
        }
    }

    #[test]
    fn a_leave_made_a_join_is_read_as_one() {
        let group = [239, 1, 1, 1];
        let leaves = [&[0x22, 0, 0, 0, 0, 0, 0, 2, 3, 0, 0, 0][..], &group, &[1, 0, 0, 0, 239, 2, 2, 2]].concat();
        for mut frame in [igmp(&[&[0x17, 0, 0, 0][..], &group].concat()), igmp(&leaves)] {
            let packet = parse(frame.as_slice(), Ether::LEN, Ether::IPV4).unwrap();
            let first = record(frame.as_slice(), &packet, u32::from(packet.l4)).unwrap();
            assert!(!first.wanted);
            frame[first.kind_at as usize] = first.joining;
            assert_eq!(records(&frame)[0], (ip("239.1.1.1"), true));
            assert!(records(&frame)[1..].iter().all(|(_, wanted)| !wanted));
        }
    }

    #[test]
    fn only_link_local_groups_are_for_all() {
        for (text, all) in [
            ("255.255.255.255", true),
            ("10.1.255.255", true),
            ("224.0.0.251", true),
            ("224.0.1.1", false),
            ("239.1.1.1", false),
            ("ff02::fb", true),
            ("ff05::1", false),
        ] {
            assert_eq!(is_for_all(ip(text)), all, "{text}");
        }
    }
}
