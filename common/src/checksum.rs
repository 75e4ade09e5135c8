//! The internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! A [`Sum`] is a ones'-complement sum that has not been folded. Words are added as they lie in memory:
//! the sum is independent of byte order as long as every word is read the same way (RFC 1071 §2.B).

use crate::addr::Ip;

/// A ones'-complement sum, not yet folded to 16 bits.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Sum(pub u64);

impl Sum {
    /// The sum of the pseudo header of a transport of `len` bytes (RFC 9293 §3.1, RFC 8200 §8.1).
    #[inline(always)]
    pub const fn pseudo(src: &Ip, dst: &Ip, protocol: u8, len: u32) -> Self {
        let (&Ip([a, b, c, d]), &Ip([e, f, g, h])) = (src, dst);
        let addresses = if src.is_v4() {
            Self(0).add_u32(d).add_u32(h)
        } else {
            Self(0).add_u32(a).add_u32(b).add_u32(c).add_u32(d).add_u32(e).add_u32(f).add_u32(g).add_u32(h)
        };
        let mut sum = addresses.add([0, protocol]).add((len as u16).to_be_bytes());
        if len > 0xffff {
            sum = sum.add(((len >> 16) as u16).to_be_bytes());
        }
        sum
    }

    /// The sum that a checksum field in memory stands for, without the words it covered.
    #[inline(always)]
    pub const fn from_field(field: [u8; 2]) -> Self {
        Self(!u16::from_ne_bytes(field) as u64 & 0xffff)
    }

    /// Adds a 16-bit word as it lies in memory.
    #[inline(always)]
    pub const fn add(self, word: [u8; 2]) -> Self {
        Self(self.0 + u16::from_ne_bytes(word) as u64)
    }

    /// Adds a 32-bit word as it lies in memory, at an even offset of the covered bytes.
    #[inline(always)]
    pub const fn add_u32(self, word: u32) -> Self {
        Self(self.0 + (word & 0xffff) as u64 + (word >> 16) as u64)
    }

    /// Takes away a 16-bit word as it lies in memory.
    #[inline(always)]
    pub const fn remove(self, word: [u8; 2]) -> Self {
        Self(self.0 + (!u16::from_ne_bytes(word)) as u64)
    }

    /// Adds the bytes of a slice; an odd one is padded with zero.
    pub fn add_bytes(mut self, bytes: &[u8]) -> Self {
        let mut words = bytes.chunks_exact(2);
        for word in &mut words {
            self = self.add([word[0], word[1]]);
        }
        if let [last] = words.remainder() {
            self = self.add([*last, 0]);
        }
        self
    }

    /// The checksum field for this sum, as it lies in memory.
    #[inline(always)]
    pub const fn field(self) -> [u8; 2] {
        let [a, b] = self.unfinished();
        [!a, !b]
    }

    /// The sum folded and not inverted: what a checksum field holds while the rest is still to be added.
    #[inline(always)]
    pub const fn unfinished(self) -> [u8; 2] {
        let mut sum = self.0;
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        (sum as u16).to_ne_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(bytes: &[u8]) -> [u8; 2] {
        Sum::default().add_bytes(bytes).field()
    }

    #[test]
    fn the_example_of_rfc_1071_sums_up() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(full(&bytes), (!0xddf2_u16).to_be_bytes());
    }

    proptest! {
        #[test]
        fn an_update_equals_a_recomputation(mut bytes in prop::collection::vec(any::<u8>(), 20..60), at in 0_usize..9, new: [u8; 2]) {
            let before = full(&bytes);
            let old = [bytes[at * 2], bytes[at * 2 + 1]];
            bytes[at * 2..at * 2 + 2].copy_from_slice(&new);
            let updated = Sum::from_field(before).remove(old).add(new).field();
            let recomputed = full(&bytes);
            // Zero has two forms in ones' complement; both verify.
            prop_assert!(updated == recomputed || (updated == [0, 0] && recomputed == [0xff, 0xff]) || (updated == [0xff, 0xff] && recomputed == [0, 0]));
        }
    }
}
