//! A hash that never changes: numbers on the wire, MACs and interface names come from it.

/// FNV-1a over the domain and the parts, each ended by a zero byte that no name has, then the finalizer of
/// SplitMix64 so that every bit of the result depends on every byte.
pub fn hash(domain: &str, parts: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in [domain].iter().chain(parts) {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The upper half of [`hash`] brought into `first..=last`.
pub fn within(domain: &str, parts: &[&str], first: u32, last: u32) -> u32 {
    let [a, b, c, d, ..] = hash(domain, parts).to_be_bytes();
    first + u32::from_be_bytes([a, b, c, d]) % (last - first + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_same_for_ever() {
        assert_eq!(hash("app", &["shop"]), 0x2148_8375_74f4_d4f3);
        assert_eq!(within("app", &["shop"], 16, 0x00ff_ffff), 4_752_789);
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(hash("a", &["bc"]), hash("ab", &["c"]));
        assert_ne!(hash("a", &["b", "c"]), hash("a", &["bc"]));
    }
}
