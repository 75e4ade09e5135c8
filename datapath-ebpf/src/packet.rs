//! Packet memory: the only place that holds a raw pointer to it.
//!
//! Headers are copied out, never referenced, so none outlives a resize. Writes go through
//! `bpf_skb_store_bytes`, which makes room for them only where they land: a direct write would make the
//! verifier unclone every TCP packet at the program's start.

#![expect(unsafe_code, reason = "reads packet memory and calls the helpers that resize it")]

use core::arch::asm;

use aya_ebpf::bindings::{__sk_buff, BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, xdp_md};
use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_csum_diff, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_change_type, bpf_skb_get_tunnel_key, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_set_tunnel_key,
    bpf_skb_set_tunnel_opt, bpf_skb_store_bytes,
};
use aya_ebpf::programs::{TcContext, XdpContext};
use weft_common::addr::Ip;
use weft_common::checksum::Sum;
use weft_common::header::{Bytes, Ether, Header, IPV6_LEN, Tcp, UDP_LEN, Vxlan, protocol};
use weft_common::id::Identity;
use weft_common::parse::{Packet, parse_into};
use weft_common::tunnel::{self, Tunnel};
use weft_common::verdict::DropReason;

/// Bytes that hold all headers of any packet that is not refused.
const HEADERS: u32 = 256;

const FIXED_GSO: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64;

/// Beyond this no header is looked for: lets the verifier bound every offset.
const REACH: u32 = 0x3fff;

/// A packet at a TC hook.
pub struct Skb {
    raw: *mut __sk_buff,
}

impl Skb {
    /// The packet of this run.
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Self {
        Self { raw: ctx.skb.skb }
    }

    /// Bytes of the frame, all of its segments' together.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        // SAFETY: the kernel keeps the context alive for the run.
        unsafe { (*self.raw).len }
    }

    /// Interface whose hook this is.
    #[inline(always)]
    pub fn link(&self) -> u32 {
        // SAFETY: the kernel keeps the context alive for the run.
        unsafe { (*self.raw).ifindex }
    }

    /// Interface the packet came in on, or 0 when this host made it.
    #[inline(always)]
    pub fn arrived_on(&self) -> u32 {
        // SAFETY: the kernel keeps the context alive for the run.
        unsafe { (*self.raw).ingress_ifindex }
    }

    /// Whether it has a VLAN tag. The kernel takes the outermost off the frame and keeps it beside it.
    #[inline(always)]
    pub fn is_tagged(&self) -> bool {
        // SAFETY: the kernel keeps the context alive for the run.
        unsafe { (*self.raw).vlan_present != 0 }
    }

    /// Payload bytes of each segment of a merged packet, or 0.
    #[inline(always)]
    pub fn segment_size(&self) -> u32 {
        // SAFETY: the kernel keeps the context alive for the run.
        unsafe { (*self.raw).gso_size }
    }

    /// Whether a VXLAN device took it off a tunnel.
    #[inline(always)]
    pub fn is_tunnelled(&self) -> bool {
        // `struct bpf_tunnel_key` up to its label, a size that every kernel since 4.4 takes.
        let mut key = [0_u32; 6];
        // SAFETY: the helper writes at most the size it is given. It wants to be told the family.
        let found = |key: &mut [u32; 6], flags| unsafe {
            bpf_skb_get_tunnel_key(self.raw, key.as_mut_ptr().cast(), size_of::<[u32; 6]>() as u32, flags) == 0
        };
        found(&mut key, 0) || found(&mut key, BPF_F_TUNINFO_IPV6)
    }

    /// Copies the bytes at `at` into `to`.
    #[inline(always)]
    pub fn copy(&self, at: u32, to: &mut [u8]) -> Result<(), DropReason> {
        let len = to.len() as u32;
        // SAFETY: the helper writes at most the slice's length and checks the offset itself.
        ok(unsafe { bpf_skb_load_bytes(self.raw.cast(), at, to.as_mut_ptr().cast(), len) })
    }

    /// Writes the bytes at `at`.
    #[inline(always)]
    pub fn paste(&mut self, at: u32, from: &[u8]) -> Result<(), DropReason> {
        // SAFETY: the helper reads exactly the slice and checks the offset itself.
        ok(unsafe { bpf_skb_store_bytes(self.raw, at, from.as_ptr().cast(), from.len() as u32, 0) })
    }

    /// Writes the sixteen bytes of an address at `at`.
    #[inline(always)]
    pub fn paste_addr(&mut self, at: u32, addr: &Ip) -> Result<(), DropReason> {
        // SAFETY: the helper reads exactly the address, whose words are as they are in packets, and checks the offset itself.
        ok(unsafe { bpf_skb_store_bytes(self.raw, at, addr.0.as_ptr().cast(), 16, 0) })
    }

    /// Writes a link header, with what follows it, at `at` that is too large for the stack, by way of `room`.
    #[inline(always)]
    pub fn put_by<T: Header>(&mut self, at: u32, room: &mut Room, header: T) -> Result<(), DropReason> {
        self.put_placed::<T, 2>(at, room, header)
    }

    /// Likewise a network header.
    #[inline(always)]
    pub fn put_net_by<T: Header>(&mut self, at: u32, room: &mut Room, header: T) -> Result<(), DropReason> {
        self.put_placed::<T, 0>(at, room, header)
    }

    #[inline(always)]
    fn put_placed<T: Header, const LEAD: usize>(
        &mut self,
        at: u32,
        room: &mut Room,
        header: T,
    ) -> Result<(), DropReason> {
        const { assert!(size_of::<Placed<T, LEAD>>() <= size_of::<Room>()) };
        let placed: *mut Placed<T, LEAD> = (&raw mut *room).cast();
        // SAFETY: the room is large enough and aligned for it; the helper reads exactly the header and
        // checks the offset itself.
        ok(unsafe {
            (&raw mut (*placed).header).write(header);
            bpf_skb_store_bytes(self.raw, at, (&raw const (*placed).header).cast(), size_of::<T>() as u32, 0)
        })
    }

    /// Writes a header at `at`.
    #[inline(always)]
    pub fn put<T: Header>(&mut self, at: u32, header: T) -> Result<(), DropReason> {
        let placed = Placed { lead: [0; 2], header };
        let from = (&raw const placed.header).cast();
        // SAFETY: the helper reads exactly the header's size and checks the offset itself.
        let done = unsafe { bpf_skb_store_bytes(self.raw, at, from, size_of::<T>() as u32, 0) };
        ok(done)
    }

    /// Replaces two bytes at `at` and puts the transport checksum at `check` right, also when it is left to a device.
    #[inline(always)]
    pub fn replace16(&mut self, at: u32, check: u32, old: [u8; 2], new: [u8; 2]) -> Result<(), DropReason> {
        let (mut from, mut to) = (u16::from_ne_bytes(old), u16::from_ne_bytes(new));
        // Two bytes that lie across words count in each word as the other byte (RFC 1071 §2.B).
        if (at ^ check) & 1 == 1 {
            (from, to) = (from.swap_bytes(), to.swap_bytes());
        }
        // SAFETY: changes the packet the context belongs to; no pointer into it is held.
        ok(unsafe { bpf_l4_csum_replace(self.raw, check, u64::from(from), u64::from(to), 2) })?;
        self.paste(at, &new)
    }

    /// Opens room for `len` bytes behind the link header, whose copy ends up in front of the network
    /// header. `flags` say what the room will hold, so that offloads keep working. What segments carry stays.
    #[inline(always)]
    pub fn grow(&mut self, len: u32, flags: u64) -> Result<(), DropReason> {
        // SAFETY: changes the packet the context belongs to; no pointer into it is held.
        ok(unsafe { bpf_skb_adjust_room(self.raw, len as i32, BPF_ADJ_ROOM_MAC, FIXED_GSO | flags) })
    }

    /// Takes away `len` bytes behind the link header.
    #[inline(always)]
    pub fn shrink(&mut self, len: u32, flags: u64) -> Result<(), DropReason> {
        // SAFETY: as in `grow`.
        ok(unsafe { bpf_skb_adjust_room(self.raw, -(len as i32), BPF_ADJ_ROOM_MAC, FIXED_GSO | flags) })
    }

    /// Cuts or pads the frame to `len` bytes; a merged packet becomes a plain one.
    #[inline(always)]
    pub fn resize(&mut self, len: u32) -> Result<(), DropReason> {
        // SAFETY: as in `grow`.
        ok(unsafe { bpf_skb_change_tail(self.raw, len, 0) })
    }

    /// Makes the frame at least `len` bytes long, and exactly so where the kernel lets it: not a packet that came out of a
    /// tunnel device of this machine and was not on a wire since. What such a frame has beyond is padding then; its first
    /// bytes become zeros, so that a checksum that is left to a device is right with it.
    #[inline(always)]
    pub fn fit(&mut self, len: u32) -> Result<(), DropReason> {
        if self.resize(len).is_ok() {
            return Ok(());
        }
        if self.segment_size() != 0 {
            return Err(DropReason::KernelRefused);
        }
        if self.len() < len {
            return self.grow(len - self.len(), 0);
        }
        // As many as TCP has options.
        for word in 0..10 {
            if len + word * 4 + 4 > self.len() {
                break;
            }
            self.paste(len + word * 4, &[0; 4])?;
        }
        Ok(())
    }

    /// As [`Self::fit`], and forgets that the checksum of what starts at `at` was left to a device, which would write it into
    /// what stands there now. All bytes from the network header to `at` are lost. The kernel forgets it when the place is
    /// taken away; what is left then has to be no shorter than a network header, so there is more than `len` meanwhile.
    #[inline(always)]
    pub fn settle(&mut self, len: u32, at: u32) -> Result<(), DropReason> {
        const LEFT: u32 = Ether::LEN + IPV6_LEN;

        let least = at + 2 + LEFT;
        self.fit(if len < least { least } else { len })?;
        self.shrink(at + 2, 0)?;
        self.grow(at + 2, 0)?;
        if self.len() != len {
            // Where it can not be cut the rest is padding.
            _ = self.resize(len);
        }
        Ok(())
    }

    /// Says that the packet is for the one who gets it. What is delivered by redirect keeps the type it
    /// was received with, and `ip_rcv` drops what was addressed to another station.
    #[inline(always)]
    pub fn set_for_us(&mut self) {
        const PACKET_HOST: u32 = 0;
        // SAFETY: as in `grow`. It fails only for types that are not asked for here.
        unsafe { bpf_skb_change_type(self.raw, PACKET_HOST) };
    }

    /// Makes the headers readable directly. Nearly always they are; to make more so, the kernel copies what a large TCP
    /// packet shares with the sender's memory of it, which costs as much as a whole run.
    #[inline(always)]
    pub fn reveal(&self) {
        if self.readable() < self.headers() && self.readable() < self.transport_end(0) {
            self.pull();
        }
    }

    /// As [`Skb::reveal`], also of what is in a tunnel to `port`.
    #[inline(always)]
    pub fn reveal_tunnel(&self, port: u16) {
        if self.readable() < self.headers() {
            let outer = self.transport_end(0);
            // The port of UDP. Of another protocol it is another field, and at worst more is made readable than is read.
            let is_tunnel = self.get(outer - 6) == Some(port.to_be_bytes());
            let end = if is_tunnel { self.transport_end(outer + Vxlan::LEN) } else { outer };
            if self.readable() < end {
                self.pull();
            }
        }
    }

    /// Makes all headers readable directly, with their options.
    #[inline(always)]
    pub fn pull(&self) {
        let want = self.headers();
        if self.readable() < want {
            // SAFETY: as in `grow`. When it fails, what can not be read is refused as malformed.
            unsafe { bpf_skb_pull_data(self.raw, want) };
        }
    }

    #[inline(always)]
    fn headers(&self) -> u32 {
        if self.len() < HEADERS { self.len() } else { HEADERS }
    }

    /// Bytes from the start of the frame that are readable directly.
    #[inline(always)]
    fn readable(&self) -> u32 {
        // SAFETY: the kernel keeps the context alive for the run.
        unsafe { (*self.raw).data_end - (*self.raw).data }
    }

    /// Where the transport header ends, options apart, of the frame at `at`; of other protocols than TCP and UDP, and
    /// when that much is not readable, where all headers end.
    #[inline(always)]
    fn transport_end(&self, at: u32) -> u32 {
        const PROTOCOL4: u32 = Ether::LEN + 9;
        const PROTOCOL6: u32 = Ether::LEN + 6;
        const IPV6_END: u32 = Ether::LEN + IPV6_LEN;

        let (start, protocol) = match self.get(at + 12) {
            Some(Ether::IPV4) => {
                let words = self.get::<u8>(at + Ether::LEN).map_or(0, |vihl| u32::from(vihl & 0x0f));
                (at + Ether::LEN + 4 * words, self.get::<u8>(at + PROTOCOL4))
            }
            Some(Ether::IPV6) => (at + IPV6_END, self.get(at + PROTOCOL6)),
            _ => (0, None),
        };
        match protocol {
            Some(protocol::TCP) => start + Tcp::LEN,
            Some(protocol::UDP) => start + UDP_LEN,
            _ => HEADERS,
        }
    }

    /// The same packet, for a callback that the kernel calls with a pointer of its own.
    #[inline(always)]
    pub fn again(&self) -> Self {
        Self { raw: self.raw }
    }

    /// Sends a copy out of an interface.
    #[inline(always)]
    pub fn copy_to(&mut self, link: u32) -> Result<(), DropReason> {
        // SAFETY: the helper copies the packet; no pointer into it is held.
        ok(unsafe { bpf_clone_redirect(self.raw, link, 0) })
    }

    /// Sends a copy to this host's stack, as received on an interface.
    #[inline(always)]
    pub fn copy_from(&mut self, link: u32) -> Result<(), DropReason> {
        // SAFETY: as in `copy_to`.
        ok(unsafe { bpf_clone_redirect(self.raw, link, BPF_F_INGRESS) })
    }

    /// Addresses copies that are sent out of a VXLAN device: to the peer at `addr`, as `identity`. The kernel finds the
    /// way and the neighbour, which a copy, unlike a redirect, has to be given.
    #[inline(always)]
    pub fn set_tunnel(&mut self, addr: Ip, identity: Identity) -> Result<(), DropReason> {
        let (v4, flags) =
            if addr.is_v4() { (true, BPF_F_ZERO_CSUM_TX) } else { (false, BPF_F_TUNINFO_IPV6 | BPF_F_ZERO_CSUM_TX) };
        let mut key = TunnelKey { id: identity.app.0, remote: [0; 4], tos: 0, ttl: 64, ext: 0, label: 0 };
        if v4 {
            key.remote[0] = u32::from_be(addr.0[3]);
        } else {
            key.remote = addr.0;
        }
        let mut group = u32::from(identity.role.0);
        // SAFETY: the helpers read exactly the sizes they are given.
        ok(unsafe { bpf_skb_set_tunnel_key(self.raw, (&raw mut key).cast(), size_of::<TunnelKey>() as u32, flags) })?;
        // SAFETY: as above.
        ok(unsafe { bpf_skb_set_tunnel_opt(self.raw, (&raw mut group).cast(), 4) })
    }

    /// The context, for helpers that take it.
    #[inline(always)]
    pub fn raw(&self) -> *mut __sk_buff {
        self.raw
    }
}

/// `struct bpf_tunnel_key` as of 4.10, which every later kernel takes.
#[repr(C)]
struct TunnelKey {
    id: u32,
    /// An IPv4 address in host order in the first word, or an IPv6 address in network order.
    remote: [u32; 4],
    tos: u8,
    ttl: u8,
    ext: u16,
    label: u32,
}

const BPF_F_INGRESS: u64 = 1;
const BPF_F_TUNINFO_IPV6: u64 = 1;
const BPF_F_ZERO_CSUM_TX: u64 = 1 << 1;

/// The sum of `bytes`, whose number is a multiple of four, by the kernel's own routine.
#[inline(always)]
pub fn sum(bytes: &[u8]) -> Sum {
    // SAFETY: the helper reads exactly the slice.
    let sum =
        unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes.as_ptr().cast_mut().cast(), bytes.len() as u32, 0) };
    Sum(sum as u64 & 0xffff_ffff)
}

/// Reads the IP packet at `at` into `packet`, in a frame of its own.
#[inline(never)]
pub fn parse(packet: &mut Packet, skb: &Skb, at: u32, ethertype: [u8; 2]) -> Result<(), DropReason> {
    parse_into(packet, skb, at, ethertype)
}

/// Reads the tunnel headers into `tunnel`, in a frame of its own. False: it is not a tunnel packet to `port`.
#[inline(never)]
pub fn open(tunnel: &mut Tunnel, skb: &Skb, port: u16) -> Result<bool, DropReason> {
    match tunnel::open(skb, port)? {
        Some(opened) => {
            *tunnel = opened;
            Ok(true)
        }
        None => Ok(false),
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    fn get<T: Header>(&self, at: u32) -> Option<T> {
        // SAFETY: the kernel keeps the context alive for the run.
        let (data, end) = unsafe { (bound(&raw const (*self.raw).data), bound(&raw const (*self.raw).data_end)) };
        read(data, end, at)
    }
}

/// A packet at the XDP hook.
pub struct Raw {
    raw: *mut xdp_md,
}

impl Raw {
    /// The packet of this run.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self { raw: ctx.ctx }
    }
}

impl Bytes for Raw {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        // SAFETY: the kernel keeps the context alive for the run.
        unsafe { (*self.raw).data_end - (*self.raw).data }
    }

    #[inline(always)]
    fn get<T: Header>(&self, at: u32) -> Option<T> {
        // SAFETY: the kernel keeps the context alive for the run.
        let (data, end) = unsafe { (bound(&raw const (*self.raw).data), bound(&raw const (*self.raw).data_end)) };
        read(data, end, at)
    }
}

/// A bound of the packet. The context shows it as 32 bits and the verifier as a pointer: it has to be read
/// anew each time, or the compiler keeps half of a register and the verifier loses what it was.
///
/// # Safety
///
/// `field` is the context's `data` or `data_end`.
#[inline(always)]
unsafe fn bound(field: *const u32) -> usize {
    // SAFETY: the caller points into the context, which lives for the run.
    unsafe { field.read_volatile() as usize }
}

#[inline(always)]
fn read<T: Header>(data: usize, end: usize, at: u32) -> Option<T> {
    if at > REACH {
        return None;
    }
    let start: usize;
    // SAFETY: a move. It keeps the compiler from working the address out a second time behind the check, where the
    // verifier would not know it again.
    unsafe {
        asm!("{start} = {at}", start = out(reg) start, at = in(reg) data + at as usize, options(pure, nomem, nostack))
    };
    if start + size_of::<T>() > end {
        return None;
    }
    // SAFETY: the line above proves that the bytes lie within the packet.
    Some(unsafe { load(start) })
}

/// Copies a header out of the packet, in words as wide as they come: the compiler, which has to assume
/// that the processor minds where a word lies, would load every byte on its own.
///
/// # Safety
///
/// The header's bytes lie within the packet.
#[inline(always)]
unsafe fn load<T: Header>(at: usize) -> T {
    const { assert!(size_of::<T>() <= size_of::<Words>()) };
    let mut words = Words([0; 8]);
    let size = size_of::<T>();
    // SAFETY: each load lies within the header, which the caller vouches for, and goes to the same offset of
    // `words`, which is aligned for it and large enough. `Header` promises that any bits are a valid value.
    unsafe {
        let to = (&raw mut words).cast::<u8>();
        let mut i = 0;
        while i + 8 <= size {
            let word: u64;
            asm!("{word} = *(u64 *)({at} + 0)", word = out(reg) word, at = in(reg) at + i, options(pure, readonly, nostack));
            to.add(i).cast::<u64>().write(word);
            i += 8;
        }
        if i + 4 <= size {
            let word: u64;
            asm!("{word} = *(u32 *)({at} + 0)", word = out(reg) word, at = in(reg) at + i, options(pure, readonly, nostack));
            to.add(i).cast::<u32>().write(word as u32);
            i += 4;
        }
        if i + 2 <= size {
            let word: u64;
            asm!("{word} = *(u16 *)({at} + 0)", word = out(reg) word, at = in(reg) at + i, options(pure, readonly, nostack));
            to.add(i).cast::<u16>().write(word as u16);
            i += 2;
        }
        if i < size {
            let word: u64;
            asm!("{word} = *(u8 *)({at} + 0)", word = out(reg) word, at = in(reg) at + i, options(pure, readonly, nostack));
            to.add(i).write(word as u8);
        }
        to.cast::<T>().read()
    }
}

/// Room for the largest header that is read.
#[repr(C, align(8))]
struct Words([u64; 8]);

/// Room for the largest header that is written.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Room([u64; 12]);

/// A header in memory, placed so that what follows its link header is aligned as it would be in memory:
/// the compiler then stores words and not bytes.
#[repr(C, align(8))]
struct Placed<T, const LEAD: usize = 2> {
    lead: [u8; LEAD],
    header: T,
}

#[inline(always)]
fn ok(code: i64) -> Result<(), DropReason> {
    if code == 0 { Ok(()) } else { Err(DropReason::KernelRefused) }
}
