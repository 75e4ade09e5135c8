//! What a SYN says about segments is lowered to what reaches the peer in one piece.

use super::lab::cast::{At, CACHE, DB, Net, WEB};
use super::lab::{Lab, UNDERLAY_MTU};
use weft_common::tunnel::inner_mtu;
use weft_tests::frame::decoded::Transport;
use weft_tests::frame::flags::{ACK, FIN, SYN};
use weft_tests::frame::{Frame, tcp};
use weft_tests::underlay::Family;

/// The largest segment that fits.
fn fits(net: Net) -> u16 {
    let headers = if net.inner == Family::V4 { 40 } else { 60 };
    u16::try_from(inner_mtu(UNDERLAY_MTU, net.outer == Family::V4) - headers).expect("short")
}

/// What the peer is told by this packet. All checksums have to be right.
#[track_caller]
fn told(lab: &mut Lab, frame: &Frame) -> Option<u16> {
    let read = lab.sends(WEB, frame).leaves_for(At::B).decode();
    read.assert_sound();
    let Transport::Tcp { mss, .. } = read.tunnel().inner.transport else { panic!("{read}") };
    lab.settle();
    mss
}

#[test]
fn what_is_too_large_is_lowered_and_what_fits_is_left() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        let fits = fits(net);
        for (said, expect) in
            [(1460, fits), (65535, fits), (fits + 1, fits), (fits, fits), (fits - 1, fits - 1), (0, 0)]
        {
            assert_eq!(told(&mut lab, &tcp(web, db).mss(said).syn()), Some(expect));
            assert_eq!(told(&mut lab, &tcp(web, db).mss(said).syn_ack()), Some(expect));
        }
        assert_eq!(told(&mut lab, &tcp(web, db).syn()), None);
    }
}

#[test]
fn the_option_is_found_among_others() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        let [high, low] = 9000_u16.to_be_bytes();
        for before in [&[1][..], &[1, 1, 1], &[3, 3, 7], &[4, 2], &[8, 10, 0, 0, 0, 1, 0, 0, 0, 2]] {
            let options = [before, &[2, 4, high, low, 3, 3, 7]].concat();
            let frame = tcp(web, db).tcp_options(&options).payload(b"fast open").syn();
            assert_eq!(told(&mut lab, &frame), Some(fits(net)), "{before:?}");
        }
    }
}

#[test]
fn nothing_else_is_touched() {
    let mut lab = Lab::two_hosts();
    for net in Net::ALL {
        lab.over(net);
        let [web, db] = net.pair([WEB, DB]);
        // No SYN; an end before the option; an option of no length, or of one that leads out of the header; the same
        // bytes behind the header.
        let large = [2, 4, 0x23, 0x28];
        for (options, payload, flags) in [
            (&large[..], &b""[..], ACK),
            (&large[..], b"", ACK | FIN),
            (&[0, 2, 4, 0x23, 0x28], b"", SYN),
            (&[8, 0, 2, 4, 0x23, 0x28], b"", SYN),
            (&[8, 1, 2, 4, 0x23, 0x28], b"", SYN),
            (&[8, 250, 2, 4, 0x23, 0x28], b"", SYN),
            (&[1, 1, 1, 2], &[4, 0x23, 0x28, 0][..], SYN),
            (&[], &large[..], SYN),
            (&[1; 40], &large[..], SYN),
        ] {
            let frame = tcp(web, db).tcp_options(options).payload(payload).flagged(flags);
            let wire = lab.sends(WEB, &frame).leaves_for(At::B);
            assert!(wire.bytes().ends_with(frame.bytes()), "{options:?}");
            lab.settle();
        }
        let [web, cache] = net.pair([WEB, CACHE]);
        let local = tcp(web, cache).mss(9000).syn();
        assert_eq!(lab.delivers([WEB, CACHE], &local), local);
        lab.settle();
    }
}
